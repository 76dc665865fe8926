"""How times, schedules and JSON are printed."""

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab as celery_crontab
from celery.schedules import schedule, solar

from redbeat.schedules import crontab, once, rrule
from redbeat.tools.terminal import counted, duration, in_words, local, rule, to_json

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "now"),
        (1, "in 1 second"),
        (-59, "59 seconds ago"),
        (60, "in 1 minute"),
        (-7200, "2 hours ago"),
        (86400 * 3, "in 3 days"),
    ],
)
def test_distances_in_time(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.25 s"), (30, "30 s"), (90, "1.5 min"), (3600, "1 h"), (86400, "1 d")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("rule_", "words"),
    [
        (schedule(90), "every 1.5 min"),
        (celery_crontab("*/5", "9-17", "mon-fri"), "*/5 9-17 * * mon-fri"),
        (crontab(0, 9, tz="Europe/Berlin"), "0 9 * * * Europe/Berlin"),
        (once(NOW), "once at 2030-01-01 00:00:00+00:00"),
        (rrule("daily", dtstart=NOW), "DTSTART:20300101T000000 RRULE:FREQ=DAILY"),
        (
            rrule("daily", dtstart=NOW.astimezone(ZoneInfo("Asia/Tokyo"))),
            "DTSTART:20300101T090000 RRULE:FREQ=DAILY Asia/Tokyo",
        ),
        (
            rrule("daily", dtstart=NOW.astimezone(timezone(timedelta(hours=9)))),
            "DTSTART:20300101T090000 RRULE:FREQ=DAILY UTC+09:00",
        ),
    ],
)
def test_schedules(rule_: object, words: str) -> None:
    assert rule(rule_) == words


def test_any_other_schedule_is_shown_by_its_repr() -> None:
    sunrise = solar("sunrise", 52.5, 13.4)
    assert rule(sunrise) == repr(sunrise)


def test_a_moment_is_shown_in_local_time_and_in_words() -> None:
    assert local(None, NOW) == "-"
    naive = (NOW + timedelta(minutes=5)).replace(tzinfo=None)
    assert local(naive, NOW).endswith("(in 5 minutes)")


def test_json_is_strict_and_can_be_encoded() -> None:
    """Whatever was stored."""
    text = to_json({"x": [float("nan"), float("-inf"), "größe\udc80"]})
    assert text == r'{"x": ["NaN", "-Infinity", "größe\udc80"]}'


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.3, "0.3 s"),
        (30, "30 s"),
        (60, "1 min"),
        (90, "1.5 min"),
        (100, "100 s"),
        (3599, "3599 s"),
        (90_000, "25 h"),
        (86_399, "86399 s"),
        (1_000_001, "1000001 s"),
        (129_600, "1.5 d"),
    ],
)
def test_an_interval_is_shown_as_it_is(seconds: float, shown: str) -> None:
    """It can be typed again."""
    assert rule(schedule(seconds)) == f"every {shown}"


def test_a_crontab_of_lists_is_shown_as_it_is_typed() -> None:
    assert rule(crontab(minute=[0, 30], hour={9, 10}, day_of_week="mon-fri")) == (
        "0,30 9,10 * * mon-fri"
    )


def test_one_thing_is_singular() -> None:
    assert [counted(n, "entry", "entries") for n in (0, 1, 2)] == [
        "0 entries",
        "1 entry",
        "2 entries",
    ]
