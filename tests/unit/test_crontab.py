"""Crontabs: Celery's own meaning, found faster, and a zone of their own."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab as celery_crontab
from celery.utils.time import LocalTimezone
from celery.utils.time import timezone as celery_zones
from hypothesis import assume, given
from hypothesis import strategies as st

from redbeat.schedules import crontab
from redbeat.timing.due import due_state, next_due

UTC = timezone.utc
NOW = datetime(2024, 5, 1, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def app(**settings: Any) -> Celery:
    application = Celery(set_as_current=False)
    application.conf.update(settings)
    return application


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2024, 5, day, hour, minute, tzinfo=UTC)


FIELDS = {
    "minute": st.sampled_from(["*", "*/7", "0", "59", "5,35", "10-20/3", 30]),
    "hour": st.sampled_from(["*", "*/5", "0", "23", "2", "8-17", "22-3", [6, 18]]),
    "day_of_week": st.sampled_from(["*", "mon-fri", "sun", "0,3", "sat,tue", "*/2"]),
    "day_of_month": st.sampled_from(["*", "1", "31", "29", "1-7,15-21", "*/10"]),
    "month_of_year": st.sampled_from(["*", "2", "*/3", "2,6,10", "12"]),
}


@given(
    st.fixed_dictionaries(FIELDS),
    st.datetimes(datetime(1995, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
)
def test_the_next_slot_is_the_one_that_celerys_own_crontab_finds(
    fields: dict[str, Any], moment: datetime
) -> None:
    assume(not (fields["month_of_year"] == "2" and fields["day_of_month"] == "31"))
    schedule = celery_crontab(**fields, nowfun=lambda: moment, app=app())
    assert next_due(schedule, moment, moment) == moment + schedule.remaining_estimate(moment)
    assert due_state(schedule, moment, moment) == schedule.is_due(moment)


@given(
    st.fixed_dictionaries(FIELDS),
    st.datetimes(
        datetime(2024, 4, 2), datetime(2024, 9, 1), timezones=st.just(ZoneInfo("Europe/Berlin"))
    ),
)
def test_in_a_zone_too_the_next_slot_is_celerys_away_from_a_transition(
    fields: dict[str, Any], moment: datetime
) -> None:
    assume(not (fields["month_of_year"] == "2" and fields["day_of_month"] == "31"))
    schedule = celery_crontab(**fields, nowfun=lambda: moment, app=app(timezone="Europe/Berlin"))
    due = next_due(schedule, moment, moment)
    assert due is not None
    assume(due < datetime(2024, 10, 20, tzinfo=UTC))
    assert due == moment + schedule.remaining_estimate(moment)


def test_a_crontab_that_never_ran_waits_for_its_slot() -> None:
    schedule = celery_crontab(0, "*", app=app())
    assert next_due(schedule, None, NOW) == at(13)
    assert due_state(schedule, None, NOW) == (False, 59.5 * 60)


def test_an_overdue_crontab_is_due_and_looks_for_its_following_slot() -> None:
    schedule = celery_crontab(0, "*", app=app())
    assert next_due(schedule, at(9, 30), NOW) == at(10)
    assert due_state(schedule, at(9, 30), NOW) == (True, 59.5 * 60)


@pytest.mark.parametrize(
    ("deadline", "is_due"), [(None, True), (29, False), (30, True), (3600, True)]
)
def test_a_slot_missed_by_more_than_the_starting_deadline_does_not_run(
    deadline: int | None, is_due: bool
) -> None:
    for schedule in (
        celery_crontab(0, "*", app=app(beat_cron_starting_deadline=deadline)),
        crontab(0, "*", app=app(beat_cron_starting_deadline=deadline), tz="UTC"),
    ):
        assert due_state(schedule, at(10, 30), NOW) == (is_due, 59.5 * 60)


def test_a_slot_that_is_due_this_instant_runs_whatever_the_deadline() -> None:
    schedule = celery_crontab(0, "*", app=app(beat_cron_starting_deadline=0))
    assert due_state(schedule, at(10), at(11)).is_due


@pytest.mark.parametrize("last_run_at", [datetime.min, datetime.min.replace(tzinfo=UTC)])
def test_a_last_run_at_the_beginning_of_time_is_overdue(last_run_at: datetime) -> None:
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        assert due_state(crontab(tz=zone), last_run_at, NOW).is_due


@pytest.mark.parametrize("last_run_at", [datetime.max, datetime.max.replace(tzinfo=UTC)])
def test_a_last_run_at_the_end_of_time_leaves_nothing(last_run_at: datetime) -> None:
    assert next_due(crontab(tz="Asia/Tokyo"), last_run_at, NOW) is None
    assert due_state(crontab(tz="Asia/Tokyo"), last_run_at, NOW) == (False, None)


def test_a_leap_day_on_a_monday_is_found_across_a_century() -> None:
    schedule = crontab(0, 0, "mon", 29, 2, tz="UTC")
    assert next_due(schedule, datetime(2072, 3, 1), NOW) == datetime(2112, 2, 29, tzinfo=UTC)


def test_a_date_that_never_comes_leaves_nothing() -> None:
    schedule = crontab(tz="UTC")
    schedule.month_of_year, schedule.day_of_month = {2}, {30}
    assert next_due(schedule, NOW, NOW) is None


class Unlisted(set[int]):
    """Numbers that one may ask for, but not list or sort."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("the field of a crontab was listed")


@pytest.mark.parametrize("hour", ["*", "3,9", "*/7"])
def test_a_look_at_a_crontab_does_not_sort_its_fields(hour: str) -> None:
    schedule = crontab("*/5", hour, tz="Europe/Berlin", app=app())
    expected = due_state(schedule, at(9, 30), NOW)
    for field in ("minute", "hour", "day_of_week", "day_of_month", "month_of_year"):
        setattr(schedule, field, Unlisted(getattr(schedule, field)))
    assert due_state(schedule, at(9, 30), NOW) == expected


def test_a_zone_of_its_own_wins_over_the_zone_of_the_app() -> None:
    schedule = crontab(0, 9, tz="Europe/Berlin", app=app(timezone="Asia/Tokyo"))
    assert next_due(schedule, NOW, NOW) == at(7, day=2)
    assert next_due(celery_crontab(0, 9, app=schedule.app), NOW, NOW) == at(0, day=2)


def test_celerys_scheduler_gets_the_same_answers_from_its_methods() -> None:
    schedule = crontab(0, 9, tz="Europe/Berlin", nowfun=lambda: NOW, app=app())
    assert schedule.remaining_estimate(NOW) == at(7, day=2) - NOW
    assert schedule.is_due(NOW.replace(tzinfo=None)) == (False, (at(7, day=2) - NOW).seconds)


def test_a_zone_is_given_by_name_or_as_an_object_of_any_library() -> None:
    pytz = pytest.importorskip("pytz")
    zones = ["Europe/Berlin", ZoneInfo("Europe/Berlin"), pytz.timezone("Europe/Berlin")]
    assert all(crontab(5, tz=zone) == crontab(5, tz="Europe/Berlin") for zone in zones)
    assert next_due(celery_crontab(0, 9, app=app(timezone=zones[2])), NOW, NOW) == at(7, day=2)


class Summery(tzinfo):
    """A zone such as one finds in Python's documentation."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return self.dst(moment)

    def dst(self, moment: datetime | None) -> timedelta:
        is_summer = moment is not None and 4 <= moment.month < 10
        return timedelta(hours=1 if is_summer else 0)

    def tzname(self, moment: datetime | None) -> str:
        return "summery"


def test_a_zone_may_be_a_tzinfo_of_ones_own() -> None:
    schedule = crontab(0, 9, tz=Summery(), app=app())
    for month, hour in (1, 9), (7, 8):
        midnight = datetime(2024, month, 1, tzinfo=UTC)
        assert next_due(schedule, midnight, midnight) == midnight + timedelta(hours=hour)


def test_crontabs_of_different_zones_differ() -> None:
    assert crontab(5, tz="Europe/Berlin") != crontab(5, tz="Asia/Tokyo")
    assert crontab(5, tz="Europe/Berlin") != celery_crontab(5)
    assert crontab(5) == celery_crontab(5)
    assert crontab(5) != 5
    assert "Europe/Berlin" in repr(crontab(5, tz="Europe/Berlin"))
    assert repr(crontab(5)) == repr(celery_crontab(5))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../UTC", "America", "\0", "x" * 5000, 5])
def test_an_unknown_zone_is_a_value_error_that_names_it(zone: Any) -> None:
    with pytest.raises(ValueError, match="time zone"):
        crontab(tz=zone)


def test_a_crontab_is_read_from_a_line_of_text() -> None:
    schedule = crontab.from_string("0 9 1 * mon", tz="Europe/Berlin")
    assert schedule == crontab(0, 9, "mon", 1, tz="Europe/Berlin")


@pytest.fixture(params=[LocalTimezone, lambda: ZoneInfo("Europe/Berlin")], ids=["local", "named"])
def berlin_machine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A machine whose clock shows the time of Berlin; Celery may find out what that is called.

    It keeps, for the whole process, what it found first.
    """
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        patch.setitem(vars(celery_zones), "local", request.param())
        yield
    time.tzset()


LOCAL: list[tuple[dict[str, Any], str]] = [
    ({"enable_utc": False}, "Europe/Berlin"),
    ({"enable_utc": False, "timezone": "America/New_York"}, "America/New_York"),
    ({"enable_utc": True, "timezone": "America/New_York"}, "America/New_York"),
    ({"enable_utc": True}, "UTC"),
]


@pytest.mark.usefixtures("berlin_machine")
@pytest.mark.parametrize(("settings", "zone"), LOCAL, ids=str)
@pytest.mark.parametrize("month", [3, 10])
def test_celerys_own_crontab_follows_the_zone_in_the_settings_of_its_app(
    settings: dict[str, Any], zone: str, month: int
) -> None:
    application = app(**settings)
    for fields in (("*/15", "*"), (30, 2), (0, "*/3")):
        assert slots(celery_crontab(*fields, app=application), month) == slots(
            crontab(*fields, tz=zone), month
        )


@pytest.mark.usefixtures("berlin_machine")
@pytest.mark.parametrize("month", [3, 10])
def test_the_local_zone_of_older_celery_versions_is_that_of_the_machine(month: int) -> None:
    for fields in (("*/15", "*"), (30, 2), (30, "*")):
        local, named = (crontab(*fields, tz=tz) for tz in (LocalTimezone(), "Europe/Berlin"))
        assert slots(local, month) == slots(named, month)


def slots(schedule: Any, month: int) -> list[datetime]:
    """All slots of the last week of the month, in which the clocks of Berlin change."""
    end = datetime(2024, month + 1, 1, tzinfo=UTC)
    found = [end - timedelta(days=7)]
    while found[-1] < end:
        found.append(next_due(schedule, found[-1], end) or end)
    return found
