"""A wall clock that is set while a real beat runs."""

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatSchedulerEntry
from support.clocks import FakeClock
from support.commands import error_of, good, run_in
from support.messages import read_messages
from support.programs import MakeProject
from support.skipping import skipping_without_server
from support.waiting import wait_until

STATIC = {"each-second": {"task": "proj.add", "schedule": 1, "args": [1, 2]}}

HOUR = 3600


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    with skipping_without_server():
        return FakeClock(tmp_path)


def sends_more(broker: redis.Redis, count: int = 3) -> Callable[[], bool]:
    before = len(read_messages(broker))
    return lambda: len(read_messages(broker)) >= before + count


@pytest.mark.parametrize("lock_key", ["redbeat::lock", None], ids=["led", "shared"])
def test_a_clock_that_was_ahead_for_a_while_leaves_no_entry_silent(
    make_project: MakeProject, broker: redis.Redis, clock: FakeClock, lock_key: str | None
) -> None:
    """An hour ahead for some seconds: both jumps are logged, and the runs go on."""
    project = make_project(beat_schedule=STATIC, redbeat_lock_key=lock_key)
    beat = project.beat(prefix=clock.prefix)
    wait_until(sends_more(broker), 20, "first runs")
    clock.set(HOUR)
    beat.wait_for_line("WARNING.*clock of this host was set ahead by 3600 seconds")
    wait_until(sends_more(broker), 20, "runs while the clock is ahead")
    clock.set(0)
    beat.wait_for_line("WARNING.*clock of this host was set back by 3600 seconds")
    beat.wait_for_line("WARNING.*count as run .* seconds earlier")
    wait_until(sends_more(broker), 20, "runs at the right time")
    assert beat.terminate() == 0


def test_a_sleeping_beat_notices_that_its_clock_was_set_back(
    make_project: MakeProject, broker: redis.Redis, clock: FakeClock, app: Celery
) -> None:
    """Its next entry is due in hours by the wrong clock, and now by the right one."""
    ahead = datetime.now(timezone.utc).timestamp() + HOUR
    ran_ahead = datetime.fromtimestamp(ahead, timezone.utc)
    RedBeatSchedulerEntry("a", "proj.add", schedule(60), [1, 2], app=app).save().next(ran_ahead)
    project = make_project(beat_max_loop_interval=None)
    clock.set(HOUR)
    beat = project.beat(prefix=clock.prefix)
    beat.wait_for_line("This beat leads")
    clock.set(-60)
    beat.wait_for_line("WARNING.*count as run .* seconds earlier")
    assert read_messages(broker) == []


def test_check_fails_for_an_entry_that_is_due_later_than_its_schedule_allows(
    make_project: MakeProject, app: Celery, redis_client: redis.Redis, clock: FakeClock
) -> None:
    """It may have run on a host whose clock was ahead, and that is gone."""
    project = make_project(beat_schedule=STATIC)
    names = {"minutes": schedule(60), "daily": crontab(minute=0, hour=12), "well": schedule(60)}
    for name, each in names.items():
        RedBeatSchedulerEntry(name, "proj.add", each, [1, 2], app=app).save()
    beat = project.beat()
    beat.wait_for_line("Sending due task each-second")
    good(run_in(project, "check"))
    now = datetime.now(timezone.utc).timestamp()
    late = {"redbeat:minutes": now + 2 * HOUR, "redbeat:daily": now + 72 * HOUR}
    redis_client.zadd("redbeat::schedule", late)
    error = error_of(run_in(project, "check"), 1)
    assert error == "Error: due later than their schedules allow: minutes, daily"
    good(run_in(project, "check", "--ignore", "late"))
