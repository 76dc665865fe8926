"""When schedules are due: intervals, one-off entries, and schedules that answer for themselves."""

import copy
import pickle
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import BaseSchedule, schedstate, solar
from celery.schedules import crontab as celery_crontab
from celery.schedules import schedule as interval

from redbeat.schedules import crontab, once, rrule
from redbeat.timing.due import due_state, next_due

UTC = timezone.utc
NOW = datetime(2024, 5, 1, 12, 0, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def app() -> Celery:
    return Celery(set_as_current=False)


def test_an_interval_that_ran_45_minutes_ago_is_due_in_15() -> None:
    last_run_at = NOW - 45 * timedelta(minutes=1)
    assert next_due(interval(HOUR), last_run_at, NOW) == NOW + HOUR / 4
    assert due_state(interval(HOUR), last_run_at, NOW) == (False, 900)


def test_an_overdue_interval_is_due_at_the_time_it_should_have_run() -> None:
    last_run_at = NOW - 3 * HOUR
    assert next_due(interval(HOUR), last_run_at, NOW) == NOW - 2 * HOUR
    assert due_state(interval(HOUR), last_run_at, NOW) == (True, 3600)


def test_an_interval_that_never_ran_is_due_now() -> None:
    assert next_due(interval(HOUR), None, NOW) == NOW
    assert due_state(interval(HOUR), None, NOW) == (True, 3600)


@pytest.mark.parametrize("last_run_at", [EARLIEST, datetime.min, LATEST, datetime.max])
@pytest.mark.parametrize("every", [timedelta(microseconds=1), HOUR, timedelta.max])
def test_an_interval_reaches_to_the_ends_of_time(last_run_at: datetime, every: timedelta) -> None:
    due = next_due(interval(every), last_run_at, NOW)
    assert due is not None
    assert due_state(interval(every), last_run_at, NOW).is_due is (due <= NOW)


@pytest.mark.parametrize("year", [1, 9999])
def test_a_last_run_beyond_what_utc_can_hold_counts_as_the_end_of_time(year: int) -> None:
    zone = timezone(timedelta(hours=14 if year == 1 else -12))
    last_run_at = (datetime.min if year == 1 else datetime.max).replace(tzinfo=zone)
    assert due_state(interval(HOUR), last_run_at, NOW).is_due is (year == 1)


def test_a_last_run_is_an_instant_whatever_its_zone() -> None:
    instants = [
        NOW.replace(tzinfo=None),
        NOW.astimezone(ZoneInfo("Asia/Tokyo")),
        NOW.astimezone(timezone(-5 * HOUR)),
    ]
    assert {next_due(interval(HOUR), moment, NOW) for moment in instants} == {NOW + HOUR}


def test_an_interval_is_elapsed_time_across_a_transition() -> None:
    before = datetime(2024, 3, 31, 1, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert next_due(interval(HOUR), before, NOW) == datetime(2024, 3, 31, 1, 30, tzinfo=UTC)


def test_the_clock_of_the_schedule_counts_if_it_has_one() -> None:
    def noon() -> datetime:
        return datetime(2024, 1, 1, 12)

    for schedule in (
        interval(HOUR, nowfun=noon),
        celery_crontab(0, 13, nowfun=noon, app=app()),
        rrule("HOURLY", dtstart=datetime(2024, 1, 1), nowfun=noon),
        once(datetime(2024, 1, 1, 13), nowfun=noon),
    ):
        assert due_state(schedule, noon(), NOW) == (False, 3600)


class Moody(BaseSchedule):  # type: ignore[misc]  # celery is untyped
    """A user's own schedule, which remembers what it was asked."""

    def __init__(self, remaining: timedelta | None) -> None:
        super().__init__(app=app(), nowfun=lambda: NOW)
        self.remaining = remaining
        self.asked: list[datetime] = []

    def remaining_estimate(self, last_run_at: datetime) -> timedelta | None:
        self.asked.append(last_run_at)
        return self.remaining

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        self.asked.append(last_run_at)
        return True, 42.0


def test_a_schedule_of_the_users_own_is_asked_by_its_methods() -> None:
    schedule = Moody(HOUR)
    assert next_due(schedule, NOW - HOUR, NOW) == NOW + HOUR
    assert due_state(schedule, NOW - HOUR, NOW) == schedstate(True, 42.0)
    assert schedule.asked == [NOW - HOUR] * 2


@pytest.mark.parametrize(
    ("every", "ran", "ends"),
    [
        (60, "12:00:30.500000", "12:01:00"),
        (60, "12:01:00", "12:02:00"),
        (10, "12:00:06.990000", "12:00:16"),
        (3600, "12:59:59", "13:00:00"),
        (0.5, "12:00:00.200000", "12:00:00.700000"),
    ],
)
def test_a_relative_interval_ends_at_a_round_time_and_not_at_its_own_run(
    every: float, ran: str, ends: str
) -> None:
    """Whatever its clock reads by then. An end that would be at once is not rounded."""
    schedule = interval(every, relative=True, app=app())
    last_run_at, end = (datetime.fromisoformat(f"2024-05-01T{at}+00:00") for at in (ran, ends))
    assert next_due(schedule, last_run_at, last_run_at) == end
    following = next_due(schedule, end, end)
    assert following is not None
    left = (following - end).total_seconds()
    assert due_state(schedule, last_run_at, end) == schedstate(True, left)
    assert not due_state(schedule, last_run_at, end - timedelta(microseconds=1)).is_due


def test_a_schedule_of_the_users_own_may_have_nothing_left() -> None:
    assert next_due(Moody(None), NOW, NOW) is None


def test_a_schedule_of_the_users_own_that_never_ran_counts_from_now() -> None:
    schedule = Moody(HOUR)
    next_due(schedule, None, NOW)
    due_state(schedule, None, NOW)
    assert schedule.asked == [NOW] * 2


@pytest.mark.parametrize("last_run_at", [EARLIEST, LATEST, datetime.min, datetime.max])
def test_celerys_own_methods_get_moments_that_they_can_bear(
    last_run_at: datetime,
) -> None:
    class Sub(celery_crontab):  # type: ignore[misc]  # celery is untyped
        pass

    for schedule in (interval(HOUR, relative=True, app=app()), Sub(app=app())):
        assert due_state(schedule, last_run_at, NOW).is_due is (last_run_at.year == 1)


def test_a_relative_interval_is_asked_and_due_if_it_never_ran() -> None:
    schedule = interval(HOUR, relative=True, nowfun=lambda: NOW, app=app())
    assert next_due(schedule, NOW, NOW) == NOW.replace(hour=13, minute=0, second=0)
    assert due_state(schedule, None, NOW).is_due
    assert next_due(schedule, None, NOW) == NOW


def test_an_overdue_relative_interval_is_looked_at_again_at_its_next_round_time() -> None:
    """Not an interval later, which is past that."""
    minutely = interval(60, relative=True, app=app())
    assert due_state(minutely, NOW - HOUR, NOW) == (True, 30)
    assert due_state(minutely, None, NOW) == (True, 30)
    assert due_state(interval(60, app=app()), NOW - HOUR, NOW) == (True, 60)


def test_an_interval_subclass_is_asked_through_its_methods() -> None:
    class Never(interval):  # type: ignore[misc]  # celery is untyped
        def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
            return False, 7.0

    assert due_state(Never(1, app=app()), None, NOW) == (False, 7.0)


def test_a_solar_schedule_that_never_ran_waits_for_the_sun() -> None:
    pytest.importorskip("ephem")
    schedule = solar("sunrise", 52.5, 13.4, nowfun=lambda: NOW, app=app())
    due = next_due(schedule, None, NOW)
    assert due is not None
    assert NOW < due < NOW + 24 * HOUR
    assert not due_state(schedule, None, NOW).is_due
    assert due_state(schedule, NOW - 48 * HOUR, NOW).is_due


def test_once_runs_once_and_late_rather_than_never() -> None:
    schedule = once(NOW)
    assert due_state(schedule, None, NOW - HOUR) == (False, 3600)
    assert due_state(schedule, None, NOW) == (True, None)
    assert due_state(schedule, None, NOW + 1000 * HOUR) == (True, None)
    assert due_state(schedule, NOW - HOUR, NOW + HOUR) == (True, None)
    assert due_state(schedule, NOW, NOW + HOUR) == (False, None)
    assert next_due(schedule, NOW, NOW + HOUR) is None


def test_once_answers_celery_by_its_own_clock() -> None:
    schedule = once(NOW.replace(tzinfo=None), nowfun=lambda: NOW - HOUR)
    assert schedule.remaining_estimate(None) == HOUR
    assert schedule.is_due(None) == (False, 3600)


def test_once_needs_an_instant() -> None:
    with pytest.raises(ValueError, match="at must be a datetime"):
        once("tomorrow")  # type: ignore[arg-type]  # that is the point


def test_two_once_schedules_are_equal_if_they_are_at_the_same_instant() -> None:
    assert once(NOW) == once(NOW.astimezone(ZoneInfo("Asia/Tokyo")))
    assert once(NOW) != once(NOW + HOUR)
    assert once(NOW) != interval(HOUR)


COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda schedule: pickle.loads(pickle.dumps(schedule)),
]


@pytest.mark.parametrize("duplicate", COPIES)
def test_schedules_are_copied_and_pickled_whole(duplicate: Callable[[Any], Any]) -> None:
    zone = ZoneInfo("Europe/Berlin")
    zoned = duplicate(crontab(5, 2, tz=zone))
    assert (zoned, zoned.tz) == (crontab(5, 2, tz=zone), zone)
    assert duplicate(once(NOW)) == once(NOW)
    rule = rrule("DAILY", dtstart=NOW.astimezone(zone), byweekday=[0, 1], count=3)
    assert duplicate(rule).parameters() == rule.parameters()
    rules = rrule.from_string(f"DTSTART:{NOW:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=DAILY\nRDATE:20250101")
    assert duplicate(rules).text == rules.text
