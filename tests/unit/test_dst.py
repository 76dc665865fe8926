"""A fake clock, moved minute by minute through the transitions of four zones."""

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab as celery_crontab
from celery.schedules import schedule as interval
from hypothesis import given
from hypothesis import strategies as st

from redbeat.schedules import crontab, rrule
from redbeat.timing.due import due_state, next_due

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

#: Zone, and the UTC instants of its two transitions in 2024; for the zone without any, of others'.
SPRING = {
    "Europe/Berlin": datetime(2024, 3, 31, 1, tzinfo=UTC),
    "America/New_York": datetime(2024, 3, 10, 7, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2024, 10, 5, 15, 30, tzinfo=UTC),
    "Asia/Kolkata": datetime(2024, 3, 31, 1, tzinfo=UTC),
}
AUTUMN = {
    "Europe/Berlin": datetime(2024, 10, 27, 1, tzinfo=UTC),
    "America/New_York": datetime(2024, 11, 3, 6, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2024, 4, 6, 15, tzinfo=UTC),
    "Asia/Kolkata": datetime(2024, 10, 27, 1, tzinfo=UTC),
}
ZONES = list(SPRING)
TRANSITIONS = [(zone, moments[zone]) for moments in (SPRING, AUTUMN) for zone in ZONES]

every_transition = pytest.mark.parametrize(
    ("zone", "transition"), TRANSITIONS, ids=lambda value: str(value).replace(" ", "T")
)


def runs_around(schedule: Any, transition: datetime, hours: int = 30) -> list[datetime]:
    """The instants at which a beat that looks every minute would run `schedule`."""
    now = transition - hours * HOUR
    last_run_at = next_due(schedule, now, now)
    assert last_run_at is not None
    runs = [last_run_at]
    now = last_run_at
    while now < transition + hours * HOUR:
        now += MINUTE
        state = due_state(schedule, last_run_at, now)
        if state.is_due:
            runs.append(now)
            last_run_at = now
        else:
            assert next_due(schedule, last_run_at, now) == now + timedelta(seconds=state.next)
    return runs


def gaps(runs: list[datetime]) -> set[timedelta]:
    return {later - earlier for earlier, later in pairwise(runs)}


def walls(runs: list[datetime], zone: str) -> list[str]:
    return [f"{run.astimezone(ZoneInfo(zone)):%d %H:%M}" for run in runs]


def rule(freq: str, zone: str, transition: datetime, hour: int = 0, **parts: Any) -> rrule:
    start = (transition - timedelta(days=10)).astimezone(ZoneInfo(zone))
    return rrule(freq, dtstart=start.replace(hour=hour, minute=0), **parts)


@every_transition
@pytest.mark.parametrize("minutes", [10, 60])
def test_an_interval_runs_on_through_a_transition(
    minutes: int, zone: str, transition: datetime
) -> None:
    schedule = interval(minutes * MINUTE, app=Celery(set_as_current=False))
    schedule.app.conf.timezone = zone
    assert gaps(runs_around(schedule, transition)) == {minutes * MINUTE}


@every_transition
def test_a_crontab_of_every_quarter_runs_every_quarter_of_an_hour(
    zone: str, transition: datetime
) -> None:
    assert gaps(runs_around(crontab("*/15", tz=zone), transition)) == {15 * MINUTE}


@every_transition
def test_celerys_own_crontab_follows_the_zone_of_its_app_through_a_transition(
    zone: str, transition: datetime
) -> None:
    schedule = celery_crontab("*/15", app=Celery(set_as_current=False))
    schedule.app.conf.timezone = zone
    assert schedule.tz == ZoneInfo(zone)
    assert gaps(runs_around(schedule, transition)) == {15 * MINUTE}


@every_transition
def test_an_hourly_crontab_runs_at_every_full_hour_that_the_clock_shows(
    zone: str, transition: datetime
) -> None:
    runs = runs_around(crontab(0, tz=zone), transition)
    skipped = transition == SPRING["Australia/Lord_Howe"]
    assert {run.astimezone(ZoneInfo(zone)).minute for run in runs} == ({0, 30} if skipped else {0})
    assert len(set(runs)) == len(runs)
    repeated_half_hour = transition == AUTUMN["Australia/Lord_Howe"]
    assert max(gaps(runs)) == (90 * MINUTE if repeated_half_hour else HOUR)


@every_transition
def test_a_daily_crontab_outside_the_gap_runs_at_noon_of_every_day(
    zone: str, transition: datetime
) -> None:
    runs = runs_around(crontab(0, 12, tz=zone), transition, hours=60)
    assert {wall[3:] for wall in walls(runs, zone)} == {"12:00"}
    assert len(set(walls(runs, zone))) == len(runs) >= 5


@every_transition
@pytest.mark.parametrize("schedule", ["crontab", "rrule"])
def test_a_daily_time_runs_once_a_day_through_gap_and_repetition(
    schedule: str, zone: str, transition: datetime
) -> None:
    daily = {
        "crontab": crontab(15, 2, tz=zone),
        "rrule": rule("DAILY", zone, transition, hour=2, byminute=15),
    }
    runs = runs_around(daily[schedule], transition, hours=60)
    days = [wall[:2] for wall in walls(runs, zone)]
    assert len(set(days)) == len(days) >= 5
    assert max(gaps(runs)) <= 25 * HOUR


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("schedule", ["crontab", "rrule"])
def test_a_skipped_daily_time_runs_at_the_first_instant_after_the_gap(
    schedule: str, zone: str
) -> None:
    daily = {
        "crontab": crontab(15, 2, tz=zone),
        "rrule": rule("DAILY", zone, SPRING[zone], hour=2, byminute=15),
    }
    assert SPRING[zone] in runs_around(daily[schedule], SPRING[zone])


def test_a_repeated_time_runs_the_first_time_if_the_hour_is_named() -> None:
    autumn = AUTUMN["Europe/Berlin"]
    first_half_past_two = autumn - HOUR / 2
    for hour in (2, "2", "1,2", [2], {1, 2}):
        runs = runs_around(crontab(30, hour, tz="Europe/Berlin"), autumn, hours=20)
        assert first_half_past_two in runs
        assert first_half_past_two + HOUR not in runs


def test_a_repeated_time_runs_both_times_if_the_hours_are_run_through() -> None:
    autumn = AUTUMN["Europe/Berlin"]
    for hour in ("*", "*/2", "1-3", "1,2-4"):
        runs = runs_around(crontab(30, hour, tz="Europe/Berlin"), autumn, hours=20)
        assert {autumn - HOUR / 2, autumn + HOUR / 2} <= set(runs)


def test_several_skipped_times_make_one_run() -> None:
    spring = SPRING["Europe/Berlin"]
    runs = runs_around(crontab("*", 2, tz="Europe/Berlin"), spring, hours=3)
    assert runs == [spring]


@every_transition
@pytest.mark.parametrize(("freq", "minutes"), [("MINUTELY", 10), ("MINUTELY", 45), ("HOURLY", 60)])
def test_an_rrule_below_a_day_keeps_its_distance_through_a_transition(
    freq: str, minutes: int, zone: str, transition: datetime
) -> None:
    schedule = rule(freq, zone, transition, interval=minutes if freq == "MINUTELY" else 1)
    assert gaps(runs_around(schedule, transition)) == {minutes * MINUTE}


@every_transition
def test_an_rrule_that_runs_through_named_hours_runs_in_both_of_a_repeated_one(
    zone: str, transition: datetime
) -> None:
    schedule = rule("MINUTELY", zone, transition, interval=10, byhour=range(24))
    assert gaps(runs_around(schedule, transition)) == {10 * MINUTE}


def test_a_daily_rrule_in_a_zone_keeps_its_wall_clock_time() -> None:
    for zone, transition in TRANSITIONS:
        runs = runs_around(rule("DAILY", zone, transition, hour=9), transition, hours=60)
        assert {wall[3:] for wall in walls(runs, zone)} == {"09:00"}


def slots_by_definition(
    minutes: set[int], hours: set[int], repeats: bool, zone: str, start: datetime, end: datetime
) -> list[datetime]:
    """Every minute from `start` to `end`, compared with what the clock shows and skips."""
    slots, before = [], start - MINUTE
    for number in range(int((end - start) / MINUTE)):
        now = start + number * MINUTE
        shown, earlier = now.astimezone(ZoneInfo(zone)), before.astimezone(ZoneInfo(zone))
        jump = shown.replace(tzinfo=None) - earlier.replace(tzinfo=None)
        walls = [
            shown.replace(tzinfo=None) - skipped * MINUTE for skipped in range(int(jump / MINUTE))
        ]
        if shown.fold == 0 or repeats:
            slots += (
                [now]
                if any(w.minute in minutes and w.hour in hours for w in walls or [shown])
                else []
            )
        before = now
    return slots


@given(
    st.sets(st.integers(0, 59), min_size=1),
    st.sets(st.integers(0, 23), min_size=1),
    st.booleans(),
    st.sampled_from(TRANSITIONS),
)
def test_a_crontab_has_exactly_the_slots_that_the_rule_defines(
    minutes: set[int], hours: set[int], repeats: bool, where: tuple[str, datetime]
) -> None:
    zone, transition = where
    field = ",".join(f"{hour}-{hour}" if repeats else str(hour) for hour in hours)
    schedule = crontab(minutes, field, tz=zone)
    start, end = transition - 4 * HOUR, transition + 4 * HOUR
    expected = slots_by_definition(minutes, hours, repeats, zone, start, end)
    slots, slot = [], next_due(schedule, start - MINUTE, start)
    while slot is not None and slot < end:
        slots.append(slot)
        slot = next_due(schedule, slot, start)
    assert slots == expected


@pytest.mark.parametrize("microsecond", [0, 1, 10_000, 999_999])
def test_a_run_at_a_fraction_of_a_second_in_the_repeated_hour_has_a_next_one(
    microsecond: int,
) -> None:
    """Beat runs an entry a moment after its slot, never on the second."""
    last_run_at = datetime(2027, 10, 31, 0, 0, 0, microsecond, tzinfo=timezone.utc)
    due = next_due(crontab("*/30", "1-2", tz="Europe/Berlin"), last_run_at, last_run_at)
    assert due == datetime(2027, 10, 31, 0, 30, tzinfo=timezone.utc)
