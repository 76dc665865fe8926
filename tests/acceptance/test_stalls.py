"""A beat whose main thread hangs: it says so, lets others lead, or ends to be restarted."""

import time
from typing import Any

import pytest
import redis

from redbeat.beat.watchdog import EXIT_STALLED
from support.messages import read_messages
from support.programs import MakeProject, Project
from support.waiting import wait_until
from support.wire import MakeProxy

STATIC = {"each-second": {"task": "proj.add", "schedule": 1, "args": [1, 2]}}

#: Short timeouts, and a lock that outlasts them all.
IMPATIENT = {
    "redbeat_failover_timeout": 1,
    "redbeat_stall_timeout": 1,
    "redbeat_lock_timeout": 600,
    "beat_max_loop_interval": None,
}

#: A scheduler that hangs at its first message; the next process finds a trace of that, and sends.
HANGING = """
import pathlib
import time

from redbeat import RedBeatScheduler


class Scheduler(RedBeatScheduler):
    def apply_async(self, *args, **kwargs):
        trace = pathlib.Path("hung")
        if not trace.exists():
            trace.touch()
            {how}
        return super().apply_async(*args, **kwargs)
"""

HOW = {
    "asleep": "time.sleep(3600)",
    "while it logs": "import logging; logging._acquireLock() if hasattr(logging, '_acquireLock') "
    "else logging._lock.acquire(); [h.acquire() for h in logging.root.handlers]; time.sleep(3600)",
}


@pytest.fixture
def make_hanging(make_project: MakeProject) -> MakeProject:
    """A project with a scheduler that hangs at its first message."""

    def make(how: str = "asleep", **settings: Any) -> Project:
        project = make_project(**(IMPATIENT | {"beat_schedule": STATIC} | settings))
        (project.directory / "hanging.py").write_text(HANGING.format(how=HOW[how]))
        return project

    return make


@pytest.mark.parametrize("lock", ["led", "shared"])
def test_a_stuck_beat_that_nobody_replaces_ends_and_the_next_one_goes_on(
    make_hanging: MakeProject, broker: redis.Redis, lock: str
) -> None:
    """The process that its supervisor starts need not wait for the lock."""
    settings = {"redbeat_lock_key": None, "redbeat_claim_timeout": 1} if lock == "shared" else {}
    project = make_hanging(**settings)
    beat = project.beat(scheduler="hanging.Scheduler")
    assert beat.wait_for_exit() == EXIT_STALLED
    assert "in apply_async" in beat.log
    assert "no other beat leads. Ending this process" in beat.log
    project.beat(scheduler="hanging.Scheduler")
    wait_until(lambda: len(read_messages(broker)) > 1, 10, "the next beat to send")


def test_a_beat_that_is_stuck_while_logging_ends_as_well(make_hanging: MakeProject) -> None:
    """No thread can log any more."""
    beat = make_hanging("while it logs").beat(scheduler="hanging.Scheduler")
    assert beat.wait_for_exit() == EXIT_STALLED


def test_a_stuck_beat_that_is_replaced_stays(
    make_hanging: MakeProject, broker: redis.Redis
) -> None:
    """Somebody may want to look at it. It ends once no beat leads any more."""
    project = make_hanging()
    beat = project.beat(scheduler="hanging.Scheduler")
    beat.wait_for_line("CRITICAL.*main thread")
    standby = project.beat()
    wait_until(lambda: len(read_messages(broker)) > 10, 30, "a while of another's lead")
    assert beat.is_running()
    standby.kill()
    assert beat.wait_for_exit() == EXIT_STALLED


def test_a_setting_keeps_a_stuck_beat_running(make_hanging: MakeProject) -> None:
    beat = make_hanging(redbeat_exit_when_stalled=False).beat(scheduler="hanging.Scheduler")
    beat.wait_for_line("CRITICAL.*main thread")
    assert_stays(beat)


def assert_stays(program: Any) -> None:
    """Otherwise it would end once the failover timeout and a takeover have passed."""
    later = time.monotonic() + 10
    wait_until(lambda: not program.is_running() or time.monotonic() > later, 11, "an end")
    assert program.is_running()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_with_a_stuck_beat_goes_on(
    make_hanging: MakeProject, broker: redis.Redis, pool: str
) -> None:
    """Nothing would restart its beat, and its tasks must run."""
    project = make_hanging()
    worker = project.worker("--beat", "--scheduler", "hanging.Scheduler", "--pool", pool)
    worker.wait_for_line("CRITICAL.*main thread")
    assert_stays(worker)
    assert "Ending this process" not in worker.log
    project.script("from proj import app; app.send_task('proj.record', ['ran'])")
    wait_until(lambda: broker.llen("runs"), 10, "the worker to run a task")


def test_a_broker_connection_that_died_silently_is_replaced(
    make_project: MakeProject, make_proxy: MakeProxy, redis_server: Any, broker: redis.Redis
) -> None:
    """As behind a firewall that dropped it. The only beat goes on within seconds."""
    proxy = make_proxy(redis_server)
    project = make_project(beat_schedule=STATIC, broker_url=proxy.url(1))
    project.beat()
    wait_until(lambda: read_messages(broker), 20, "a first run")
    proxy.mute()
    sent = len(read_messages(broker))
    wait_until(lambda: len(read_messages(broker)) > sent, 20, "the next run")
