"""Every schedule, from the first instant that a datetime can hold to the last, in any zone."""

import itertools
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab as celery_crontab
from celery.schedules import schedule as interval
from celery.schedules import solar

from redbeat import RedBeatSchedulerEntry
from redbeat.schedules import crontab, once, rrule
from redbeat.timing.due import due_state, next_due

UTC = timezone.utc
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

APP = Celery(set_as_current=False)
APP.conf.redbeat_redis_url = "redis://never-asked.invalid/0"

ZONES: list[tzinfo] = [
    UTC,
    timezone(timedelta(hours=14)),
    timezone(-timedelta(hours=23, minutes=59)),
    ZoneInfo("Pacific/Auckland"),
    ZoneInfo("America/New_York"),
]
ENDS = [datetime.min, datetime.min + DAY, datetime.max - DAY, datetime.max]
LAST_RUNS = [NOW, None, *(end.replace(tzinfo=zone) for end in ENDS for zone in (None, *ZONES))]
STARTS = [datetime(1990, 1, 1), datetime(2030, 1, 1), *ENDS]
RULES: list[tuple[str, dict[str, Any]]] = [
    ("YEARLY", {"count": 3}),
    ("MONTHLY", {"byweekday": 4, "bysetpos": -1}),
    ("WEEKLY", {"until": datetime.max}),
    ("DAILY", {"count": 100}),
    ("HOURLY", {}),
    ("MINUTELY", {"count": 5, "interval": 7}),
    ("SECONDLY", {"byhour": 3, "count": 10**9}),
]

SCHEDULES: dict[str, Any] = {
    f"{freq}-{start}-{zone}": rrule(freq, start.replace(tzinfo=zone), **parts)
    for (freq, parts), start, zone in itertools.product(RULES, STARTS, ZONES)
}
SCHEDULES |= {
    f"once-{start}-{zone}": once(start.replace(tzinfo=zone))
    for start, zone in itertools.product(STARTS, ZONES)
}
SCHEDULES |= {f"crontab-{zone}": crontab(0, 5, tz=zone) for zone in ZONES}
SCHEDULES |= {
    f"interval-{every}-{relative}": interval(every, relative=relative, app=APP)
    for every in (timedelta(microseconds=1), DAY, timedelta.max)
    for relative in (False, True)
}
SCHEDULES |= {
    "celery's crontab": celery_crontab(0, 5, app=APP),
    "solar": solar("sunrise", 52, 13, app=APP, nowfun=lambda: NOW),
    "set": rrule.from_string(
        "DTSTART:00010101T000000Z\nRRULE:FREQ=DAILY;BYHOUR=3\nRDATE:99991231T235959Z"
    ),
    "dates": rrule.from_string("DTSTART;TZID=Europe/Berlin:99991231T235959\nRDATE:00010101"),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_schedule_answers_whenever_it_last_ran(schedule: Any) -> None:
    for last_run_at in LAST_RUNS:
        state = due_state(schedule, last_run_at, NOW)
        assert state.next is None or state.next > 0
        due = next_due(schedule, last_run_at, NOW)
        assert due is None or due.utcoffset() == timedelta(0)
        assert state.is_due is (due is not None and due <= NOW)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_an_entry_that_never_ran_has_a_score_whenever_it_was_made(schedule: Any) -> None:
    for last_run_at in LAST_RUNS:
        entry = RedBeatSchedulerEntry("a", "tasks.a", schedule, app=APP, last_run_at=last_run_at)
        assert type(entry.score) is int
        assert entry.due_at is None or entry.due_at >= NOW
        assert len(entry.is_due()) == 2


@pytest.mark.parametrize("last_run_at", [datetime.min, datetime.min.replace(tzinfo=UTC)])
def test_a_rule_that_starts_in_2030_waits_for_its_start_whenever_the_entry_was_made(
    last_run_at: datetime,
) -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    entry = RedBeatSchedulerEntry(
        "a", "tasks.a", rrule("DAILY", start), app=APP, last_run_at=last_run_at
    )
    assert entry.due_at == start
    assert entry.score == start.timestamp()


@pytest.mark.parametrize("zone", ZONES, ids=str)
def test_a_rule_from_the_beginning_of_time_keeps_its_time_of_day(zone: tzinfo) -> None:
    rule = rrule("DAILY", datetime.min.replace(tzinfo=zone), byhour=9, byminute=0, bysecond=0)
    due = next_due(rule, NOW, NOW)
    assert due is not None
    assert (due.astimezone(zone).hour, due - NOW <= DAY) == (9, True)
