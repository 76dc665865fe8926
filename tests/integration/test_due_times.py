"""Due times in entries and ticks: they are exact, also that of a first run."""

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest
import redis
from celery import Celery
from celery.schedules import BaseSchedule, schedstate, schedule
from celery.schedules import crontab as celery_crontab

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.decoder import register_codec
from redbeat.schedules import crontab, once, rrule

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"


@pytest.fixture
def scheduler(app: Celery) -> RedBeatScheduler:
    app.conf.redbeat_lock_key = None
    return RedBeatScheduler(app)


def entry(app: Celery, rule: Any, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry("a", "tasks.a", rule, app=app, **fields)


def seconds_from_now(moment: datetime | None) -> float:
    assert moment is not None
    return (moment - datetime.now(UTC)).total_seconds()


def test_an_hourly_entry_that_ran_45_minutes_ago_is_due_in_15(app: Celery) -> None:
    """Not in an hour, and not 45 minutes ago."""
    ran = datetime.now(UTC) - timedelta(minutes=45)
    hourly = entry(app, schedule(3600), last_run_at=ran)
    assert seconds_from_now(hourly.due_at) == pytest.approx(900, abs=1)


def test_a_calendar_entry_that_never_ran_is_due_at_its_slot(app: Celery) -> None:
    """An interval is due now."""
    yearly = entry(app, celery_crontab(0, 0, day_of_month=1, month_of_year=1))
    yearly.last_run_at = None
    assert yearly.due_at is not None
    assert (yearly.due_at.month, yearly.due_at.day) == (1, 1)
    interval = entry(app, schedule(3600))
    interval.last_run_at = None
    assert seconds_from_now(interval.due_at) == pytest.approx(0, abs=1)


class ToTheSecond(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """A user-defined schedule: due at each whole second, by its own clock."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        slot = last_run_at.replace(microsecond=0) + timedelta(seconds=1)
        remaining: timedelta = slot - self.now()
        return remaining

    def is_due(self, last_run_at: datetime) -> schedstate:
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        return schedstate(remaining <= 0, max(remaining, 0) or 1)


@pytest.mark.parametrize("rule", [schedule(1, relative=True), ToTheSecond()], ids=["rel", "own"])
def test_a_slot_of_a_schedule_with_its_own_clock_runs_once(app: Celery, rule: Any) -> None:
    """No tick comes before it, and it is not due again after its run."""
    app.conf.update(broker_url="memory://", redbeat_lock_key=None)
    register_codec("to-the-second", ToTheSecond, lambda schedule: {}, lambda fields: ToTheSecond())
    scheduler = RedBeatScheduler(app)
    scheduler.join(is_service=True)
    entry(app, rule).save()
    ran: list[float] = []
    with mock.patch.object(
        RedBeatScheduler, "send_task", side_effect=lambda *args, **kwargs: ran.append(time.time())
    ):
        while len(ran) < 3:
            scheduler.tick()
    scheduler.close()
    assert len({int(moment) for moment in ran}) == len(ran)


def test_a_rule_runs_at_its_start_and_then_at_its_next_slot(
    scheduler: RedBeatScheduler, sent: list[str], app: Celery
) -> None:
    """A rule that starts now runs now, once."""
    daily = entry(app, rrule("DAILY", dtstart=datetime.now(UTC), app=app)).save()
    scheduler.tick()
    scheduler.tick()
    assert sent == ["tasks.a"]
    stored = RedBeatSchedulerEntry.from_key(daily.key, app=app)
    assert seconds_from_now(stored.due_at) == pytest.approx(86400, abs=5)


@pytest.mark.parametrize("late", [0, 3600])
def test_a_one_off_runs_late_rather_than_never(
    scheduler: RedBeatScheduler, sent: list[str], app: Celery, redis_client: redis.Redis, late: int
) -> None:
    """Then it leaves the due range and keeps its history."""
    at = datetime.now(UTC) - timedelta(seconds=late)
    saved = entry(app, once(at)).save()
    for _ in range(3):
        scheduler.tick()
    assert sent == ["tasks.a"]
    assert redis_client.zscore(SCHEDULE, saved.key) == -1
    assert RedBeatSchedulerEntry.from_key(saved.key, app=app).total_run_count == 1


def test_a_one_off_waits_for_its_instant(scheduler: RedBeatScheduler, app: Celery) -> None:
    """To the fraction of a second."""
    at = datetime.now(UTC) + timedelta(seconds=90.25)
    assert entry(app, once(at)).due_at == at


def test_a_crontab_with_its_own_zone_follows_that_zone(
    scheduler: RedBeatScheduler, app: Celery, redis_client: redis.Redis
) -> None:
    """Whatever the zone of the application is."""
    noon = entry(app, crontab(0, 12, tz="Asia/Kathmandu")).save()
    definition: Any = redis_client.hget(noon.key, "definition")
    assert json.loads(definition)["schedule"]["tz"] == "Asia/Kathmandu"
    stored = RedBeatSchedulerEntry.from_key(noon.key, app=app)
    assert stored.due_at is not None
    assert (stored.due_at.hour, stored.due_at.minute) == (6, 15)


def test_intervals_keep_their_phase(
    scheduler: RedBeatScheduler, sent: list[str], app: Celery, redis_client: redis.Redis
) -> None:
    """A tick that comes some milliseconds late does not push later runs back."""
    due_at = datetime.now(UTC) - timedelta(milliseconds=30)
    exact = entry(app, schedule(10), last_run_at=due_at - timedelta(seconds=10))
    exact.save()
    scheduler.tick()
    assert sent == ["tasks.a"]
    score: Any = redis_client.zscore(SCHEDULE, exact.key)
    assert score == pytest.approx(due_at.timestamp() + 10, abs=1e-5)


def test_a_schedule_that_cannot_be_stored_is_refused_at_save(
    app: Celery, redis_client: redis.Redis
) -> None:
    """It is not silently stored as something else."""

    class Tides(celery_crontab.__mro__[1]):  # type: ignore[misc]  # Celery has no types
        def remaining_estimate(self, last_run_at: datetime) -> timedelta:
            return timedelta(hours=6)

        def is_due(self, last_run_at: datetime) -> Any:
            return False, 60

    with pytest.raises(TypeError, match=r"'a'.*schedule.*Tides"):
        entry(app, Tides(app=app)).save()
    assert redis_client.keys("*") == []
