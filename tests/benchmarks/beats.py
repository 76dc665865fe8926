"""Real `celery beat` programs with default settings."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import redis

from benchmarks.contestants import OURS, PEER, Figures, Medians, medians
from benchmarks.entries import HOURLY, fill, overdue
from benchmarks.house import House, Route
from support.messages import QUEUE
from support.programs import Program, Project
from support.waiting import wait_until

START_TIMEOUT = 60

#: Seconds until a beat that has just started has committed its first run, and keeps pace.
SETTLING = 3

#: Fields of `/proc/<pid>/stat` behind the name: the times in user mode and in the kernel.
CPU_FIELDS = slice(11, 13)


def compare_beats(house: House, watch: Callable[[House, str], Figures]) -> Medians:
    """The medians of what `watch` measures of a beat run by our interpreter, and by the peer's."""
    contestants = {OURS: house.ours, PEER: house.peer}
    return medians(
        house.sizes.slow_runs,
        {name: partial(watch, house, python) for name, python in contestants.items()},
    )


@contextlib.contextmanager
def settled_beat(python: str, route: Route) -> Iterator[Program]:
    """A beat that does what it will do from now on."""
    with running_beat(python, route) as beat:
        time.sleep(SETTLING)
        yield beat


@contextlib.contextmanager
def running_beat(python: str, route: Route) -> Iterator[Program]:
    """A beat that has run its first entry; whatever it finds due runs as well."""
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.closing(Project(Path(directory), **_settings(route))) as project,
        redis.Redis.from_url(route.schedule) as schedule,
        redis.Redis.from_url(route.broker) as broker,
    ):
        fill(schedule, overdue(HOURLY, prefix="first-"), 1)
        beat = project.beat(python=python, level="warning")
        wait_until(lambda: broker.llen(QUEUE), START_TIMEOUT, f"the first message\n{beat.log}")
        yield beat


def cpu_seconds(beat: Program) -> float:
    """The processor time that a running program has used so far."""
    stat = Path(f"/proc/{beat.pid}/stat").read_text()
    times = stat.rpartition(")")[2].split()[CPU_FIELDS]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def _settings(route: Route) -> dict[str, Any]:
    return {
        "broker_url": route.broker,
        "redbeat_redis_url": route.schedule,
        "redbeat_redis_options": {},
        "broker_connection_retry_on_startup": True,
    }
