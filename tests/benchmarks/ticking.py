"""One run of the workload `tick`: prepared, started, and its messages counted."""

import contextlib
import time
from contextlib import AbstractContextManager
from typing import NamedTuple

from benchmarks.entries import HOURLY, Kind, far_off, fill, overdue
from benchmarks.house import House, Route
from benchmarks.workload import Workload
from support.messages import QUEUE


class Ticked(NamedTuple):
    """What one run gave.

    Attributes:
        elapsed: Seconds from the start until the last beat was done.
        seconds: Of a tick, as the first beat measured it.
        memory: Bytes at the peak of the first beat's life.
    """

    elapsed: float
    seconds: float
    memory: int


def run_ticks(
    house: House,
    python: str,
    due: tuple[Kind, int] | None = None,
    *,
    stored: int = 0,
    beats: int = 1,
    ticks: int = 1,
    route: Route | None = None,
    during: AbstractContextManager[object] | None = None,
) -> Ticked:
    """Let fresh beats tick over what is due, each run of it sent once.

    Args:
        house: The servers; they are emptied.
        python: The interpreter of the beats.
        due: What is due, and how many of it.
        stored: Entries that are not due for a year.
        beats: How many tick at the same time.
        ticks: How many ticks each does.
        route: How the beats reach the servers; on loopback if not given.
        during: Entered while the beats tick, and at no other time.

    Raises:
        WrongResultError: A due entry was not sent, or sent twice.
    """
    house.clear()
    fill(house.schedule, far_off(), stored)
    with contextlib.ExitStack() as stack:
        workloads = [
            stack.enter_context(_warm_beat(house, python, route or house.loopback, ticks))
            for _ in range(beats)
        ]
        house.broker.delete(QUEUE)
        if due is not None:
            fill(house.schedule, *due)
        with during or contextlib.nullcontext():
            ticked = _tick(workloads)
    house.expect_messages(due[1] if due is not None else 0)
    return ticked


def _warm_beat(house: House, python: str, route: Route, ticks: int) -> Workload:
    """A beat that has run an entry: connections, imports and scripts are in place."""
    fill(house.schedule, overdue(HOURLY, prefix="warm-up-"), 1)
    return Workload(python, "tick", **route._asdict(), ticks=ticks)


def _tick(workloads: list[Workload]) -> Ticked:
    began = time.perf_counter()
    for workload in workloads:
        workload.start()
    figures = [workload.figures() for workload in workloads]
    return Ticked(time.perf_counter() - began, figures[0]["seconds"], figures[0]["memory"])
