"""Recurrence rules: dateutil's occurrences, fast however old the rule, each an instant."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from dateutil import rrule as recurrence
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from redbeat.schedules import rrule
from redbeat.timing.due import due_state, next_due
from redbeat.timing.rule_walls import COUNTDOWNS, countdown_of
from support.counting import calls_of

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2024, 5, 1, 9, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


def occurrences(rule: rrule, count: int) -> list[datetime]:
    found: list[datetime] = []
    moment = rule.following(datetime.min.replace(tzinfo=UTC))
    while moment is not None and len(found) < count:
        found.append(moment)
        moment = rule.following(moment)
    return found


def test_every_parameter_is_an_attribute() -> None:
    rule = rrule("weekly", START, 2, recurrence.SU, 5, None, -1, byweekday=(0, 1), byhour=9)
    assert (rule.freq, rule.dtstart, rule.interval, rule.wkst) == (2, START, 2, recurrence.SU)
    assert (rule.count, rule.until, rule.bysetpos, rule.byweekday) == (5, None, -1, (0, 1))
    assert (rule.byhour, rule.bymonth, rule.byeaster) == (9, None, None)
    assert isinstance(rule.rrule, recurrence.rrule)
    assert "byhour: 9" in repr(rule)


@pytest.mark.parametrize("freq", ["MINUTELY", "minutely", recurrence.MINUTELY])
def test_a_frequency_is_a_number_or_a_name_in_any_case(freq: Any) -> None:
    assert rrule(freq, START).freq == recurrence.MINUTELY


def test_a_rule_without_dtstart_starts_now() -> None:
    assert rrule("DAILY", nowfun=lambda: START).dtstart == START


def test_naive_times_are_utc_in_the_zone_of_the_app() -> None:
    app = Celery(set_as_current=False)
    app.conf.timezone = "Europe/Berlin"
    rule = rrule("DAILY", datetime(2024, 5, 1, 9), until=datetime(2024, 6, 1), app=app)
    assert str(rule.dtstart) == "2024-05-01 11:00:00+02:00"
    assert str(rule.until) == "2024-06-01 02:00:00+02:00"


def test_what_remains_is_the_time_from_now_to_the_first_occurrence_after_the_last_run() -> None:
    rule = rrule("HOURLY", START, nowfun=lambda: START + HOUR / 2)
    assert rule.remaining_estimate(START) == HOUR / 2
    assert rule.remaining_estimate(START - TICK) == -HOUR / 2
    assert rule.is_due(START) == (False, 1800)
    assert rule.is_due(START - DAY) == (True, 1800)


def test_naive_clocks_and_last_runs_are_utc() -> None:
    naive = START.replace(tzinfo=None)
    with (
        mock.patch.object(rrule, "now", return_value=naive + HOUR / 2),
        mock.patch.object(rrule, "tz", UTC),
    ):
        rule = rrule("HOURLY", naive)
        assert rule.remaining_estimate(naive) == HOUR / 2
        assert rule.is_due(naive - HOUR) == (True, 1800)
        assert due_state(rule, naive, START) == (False, 1800)


def test_next_is_none_when_nothing_is_left() -> None:
    rule = rrule("DAILY", START, count=1, nowfun=lambda: START + HOUR)
    assert rule.is_due(START - HOUR) == (True, None)
    assert rule.is_due(START) == (False, None)
    assert rule.remaining_estimate(START) is None
    assert next_due(rule, START, START) is None


def test_a_rule_that_never_ran_waits_for_its_slot() -> None:
    rule = rrule("DAILY", START)
    assert next_due(rule, None, START + 10 * DAY + HOUR) == START + 11 * DAY
    assert due_state(rule, None, START + 10 * DAY + HOUR) == (False, 23 * 3600)


def test_the_occurrence_at_dtstart_runs() -> None:
    rule = rrule("DAILY", START, count=1)
    assert next_due(rule, None, START - HOUR) == START
    assert next_due(rule, START - HOUR, START - HOUR) == START
    assert due_state(rule, None, START) == (True, None)
    assert due_state(rule, START - HOUR, START + HOUR) == (True, None)


def test_a_rule_that_starts_now_runs_at_once_even_if_storing_it_took_a_moment() -> None:
    rule = rrule("DAILY", count=1, nowfun=lambda: START + timedelta(milliseconds=900))
    assert due_state(rrule(**rule.parameters()), None, START + timedelta(seconds=5)).is_due


def test_until_may_be_the_last_occurrence_and_nothing_comes_after_it() -> None:
    rule = rrule("DAILY", START, until=START + 2 * DAY)
    assert occurrences(rule, 9) == [START, START + DAY, START + 2 * DAY]
    assert next_due(rule, START + 3 * DAY, START) is None
    assert occurrences(rrule("DAILY", START, until=START - DAY), 9) == []


def test_until_ends_a_rule_of_elapsed_time() -> None:
    assert len(occurrences(rrule("HOURLY", START, until=START + 3 * HOUR), 9)) == 4
    assert len(occurrences(rrule("HOURLY", START, count=3), 9)) == 3


def test_a_start_in_the_second_pass_of_a_repeated_hour_is_an_occurrence() -> None:
    start = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)
    first, second = occurrences(rrule("DAILY", start), 2)
    assert first == start.astimezone(UTC)
    assert second - first == DAY


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
@pytest.mark.parametrize("freq", ["YEARLY", "WEEKLY", "DAILY", "HOURLY", "SECONDLY"])
def test_a_rule_reaches_to_the_ends_of_time(freq: str, moment: datetime) -> None:
    due = next_due(rrule(freq, START), moment, START)
    assert due == (START if moment.year == 1 else None)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"freq": "fortnightly"}, "freq"),
    ({"freq": 7}, "freq"),
    ({"freq": True}, "freq"),
    ({"dtstart": "2024"}, "dtstart"),
    ({"until": 5}, "until"),
    ({"interval": 0}, "interval"),
    ({"interval": "1"}, "interval"),
    ({"count": 0}, "count"),
    ({"wkst": "MO"}, "wkst"),
    ({"bysetpos": 0}, "bysetpos"),
    ({"bymonth": 13}, "bymonth"),
    ({"bymonthday": [1, 32]}, "bymonthday"),
    ({"byyearday": -367}, "byyearday"),
    ({"byeaster": 1.5}, "byeaster"),
    ({"byweekno": 54}, "byweekno"),
    ({"byweekday": [7]}, "byweekday"),
    ({"byhour": -1}, "byhour"),
    ({"byminute": {1: 2}}, "byminute"),
    ({"bysecond": [60]}, "bysecond"),
    ({"freq": "HOURLY", "interval": 24, "byhour": 5}, "byhour"),
    ({"bymonth": [1] * 1_001}, "bymonth may hold 1000"),
    ({"byweekday": [recurrence.MO(n) for n in range(1, 100_000)]}, "byweekday may hold 1000"),
]


@pytest.mark.parametrize(("parameters", "name"), BAD, ids=str)
def test_a_bad_parameter_is_a_value_error_that_names_it(
    parameters: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        rrule(**{"freq": "DAILY", "dtstart": START, **parameters})


def numbers(low: int, high: int, size: int = 3, zero: bool = True) -> st.SearchStrategy[Any]:
    values = st.integers(low, high).filter(lambda value: zero or value != 0)
    return st.lists(values, min_size=1, max_size=size, unique=True)


WEEKDAYS = st.builds(recurrence.weekday, st.integers(0, 6), st.sampled_from([None, 1, 2, -1]))
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "wkst": st.integers(0, 6),
    "bymonth": numbers(1, 12, 6),
    "bymonthday": numbers(-31, 31, 6, zero=False),
    "byyearday": numbers(-366, 366, 20, zero=False),
    # What of the first and last week lies in another year depends on the frequency in dateutil.
    "byweekno": numbers(-51, 51, 6, zero=False),
    "byeaster": numbers(-3, 3, 2),
    "byweekday": st.lists(WEEKDAYS, min_size=1, max_size=3) | numbers(0, 6),
    "byhour": numbers(0, 23, 5),
    "byminute": numbers(0, 59, 5),
    "bysecond": numbers(0, 59, 5),
    "bysetpos": numbers(-5, 5, 2, zero=False),
    "count": st.integers(1, 50),
    "until": st.datetimes(datetime(2000, 1, 1), datetime(2012, 1, 1), timezones=st.just(UTC)),
}
SOME_PARTS = (
    st.sets(st.sampled_from(list(PARTS)), max_size=4)
    .filter(lambda names: not {"count", "until"} <= names)
    .flatmap(lambda names: st.fixed_dictionaries({name: PARTS[name] for name in sorted(names)}))
)


@given(
    st.integers(0, 6),
    st.integers(1, 50),
    SOME_PARTS,
    st.datetimes(datetime(2000, 1, 1), datetime(2010, 1, 1), timezones=st.just(UTC)),
    st.floats(-0.1, 1),
)
def test_occurrences_equal_those_of_plain_dateutil(
    freq: int, interval: int, parts: dict[str, Any], start: datetime, distance: float
) -> None:
    start = start.replace(microsecond=0)
    try:
        rule = rrule(freq, start, interval, **parts)
    except ValueError:
        assume(False)
    reach = [3000, 1000, 1000, 1000, 30, 3, 0.1][freq]
    moment = start + distance * reach * DAY
    found = rule.following(moment)
    # Plain dateutil looks for a rare occurrence until the year 9999.
    assume(found is not None and found < moment + reach * DAY)
    assert found == rule.rrule.after(moment)


@settings(max_examples=settings().max_examples // 2)
@given(st.integers(0, 6), SOME_PARTS, st.integers(0, 1000))
def test_nothing_lies_between_an_occurrence_and_the_following_one(
    freq: int, parts: dict[str, Any], hours: int
) -> None:
    try:
        rule = rrule(freq, START, 1, **parts)
    except ValueError:
        assume(False)
    moment = START + hours * HOUR
    found = rule.following(moment)
    assume(found is not None)
    assert found is not None
    assert moment < found
    assert rule.following(moment + (found - moment) / 2) == found
    assert rule.following(found - TICK) == found


MANY = st.integers(1, 5_000)
WITH_COUNT = (
    st.sets(st.sampled_from(sorted(PARTS.keys() - {"count", "until"})), min_size=1, max_size=3)
    .flatmap(lambda names: st.fixed_dictionaries({name: PARTS[name] for name in sorted(names)}))
    .filter(lambda parts: parts.keys() != {"wkst"})
)


@given(st.integers(0, 6), st.integers(1, 500), MANY, WITH_COUNT, st.data())
def test_the_last_occurrence_that_count_allows_equals_that_of_plain_dateutil(
    freq: int, interval: int, count: int, parts: dict[str, Any], data: st.DataObject
) -> None:
    try:
        rule = rrule(freq, START, interval, count=count, **parts)
        # Plain dateutil looks for a rare occurrence until the year 9999, so it is asked for the
        # first of an endless rule, as far as that is quick.
        endless = rrule(freq, START, interval, **parts)
    except ValueError:
        assume(False)
    reach = START + [9000, 3000, 3000, 3000, 300, 30, 0.5][freq] * DAY
    assume(endless.following(reach) is not None)
    plain = endless.rrule.between(START, reach, inc=True)[:count]
    moments = data.draw(st.lists(st.integers(0, len(plain)), max_size=5))
    for number in moments:
        moment = plain[number - 1] if number else START - TICK
        expected = plain[number] if number < len(plain) else None
        if expected is None and len(plain) < count:
            continue
        assert rule.following(moment) == expected


OLD_RULES: list[tuple[str, int, dict[str, Any]]] = [
    ("SECONDLY", 10, {}),
    ("MINUTELY", 20, {}),
    ("SECONDLY", 10, {"interval": 7, "byhour": [9, 10]}),
    ("MINUTELY", 20, {"interval": 7, "byweekday": [0, 1, 2, 3, 4], "byhour": range(8, 18)}),
    ("HOURLY", 50, {"bymonth": 2, "bymonthday": -1}),
    ("DAILY", 50, {"byhour": [6, 18], "byminute": [0, 30]}),
    ("WEEKLY", 50, {"interval": 2, "byweekday": [0, 4]}),
    ("MONTHLY", 50, {"byweekday": recurrence.FR(-1)}),
    ("YEARLY", 50, {"bymonth": 3, "byweekday": recurrence.SU(-1), "byhour": 2}),
]


@pytest.mark.parametrize(("freq", "years", "parts"), OLD_RULES, ids=str)
def test_a_look_at_a_rule_that_started_long_ago_costs_no_more_than_at_a_young_one(
    freq: str, years: int, parts: dict[str, Any]
) -> None:
    def steps(start: datetime) -> int:
        rule = rrule(freq, start.astimezone(BERLIN), **parts)
        return min(calls_of(lambda: due_state(rule, START - HOUR, START)) for _ in range(2))

    assert steps(START.replace(year=START.year - years)) < 2 * steps(START - 30 * DAY)


COUNTED_RULES: list[tuple[str, int, dict[str, Any]]] = [
    ("SECONDLY", 10, {"count": 10_000_000, "byhour": [9, 10], "interval": 2}),
    ("SECONDLY", 10, {"count": 10**9, "byhour": [9, 10]}),
    ("MINUTELY", 1, {"count": 100_000, "byhour": range(8, 18)}),
    ("DAILY", 50, {"count": 30_000, "byhour": [6, 18]}),
    ("MONTHLY", 50, {"count": 5_000, "byweekday": range(5), "bysetpos": [1, -1]}),
    ("YEARLY", 400, {"count": 300, "byweekday": 0, "bysetpos": -1}),
]


@pytest.mark.parametrize(("freq", "years", "parts"), COUNTED_RULES, ids=str)
def test_a_rule_with_a_count_is_counted_from_its_start_only_once(
    freq: str, years: int, parts: dict[str, Any]
) -> None:
    start = START.replace(year=START.year - years)

    def evaluate(now: datetime) -> Any:
        return due_state(rrule(freq, start, **parts), now - HOUR, now)

    assert calls_of(lambda: evaluate(START)) < 5_000_000
    counted = countdown_of.cache_info().misses
    for hours in range(1, 20):
        evaluate(START + hours * HOUR)
    assert countdown_of.cache_info().misses == counted


def test_the_number_of_remembered_countdowns_is_bounded() -> None:
    for number in range(COUNTDOWNS + 10):
        start = START - 400 * DAY - number * timedelta(minutes=1)
        assert rrule("DAILY", start, count=9, byhour=9).following(START) is None
    assert countdown_of.cache_info().currsize == COUNTDOWNS


def test_a_count_holds_for_moments_in_any_order_and_from_several_threads() -> None:
    parts: dict[str, Any] = {"interval": 7, "byhour": [3, 9], "count": 500}
    expected = [*rrule("MINUTELY", START, **parts).rrule, None]
    numbers = list(range(0, 501, 3)) * 4
    random.Random(5).shuffle(numbers)

    def following(number: int) -> datetime | None:
        moment = expected[number]
        return rrule("MINUTELY", START, **parts).following((moment or START + 900 * DAY) - TICK)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(following, numbers)) == [expected[number] for number in numbers]


#: Function calls in the longest of searches: all days of a few cycles of the calendar.
MOST_CALLS = 20_000_000


NEVER: list[dict[str, Any]] = [
    {"bymonth": 2, "bymonthday": 30},
    {"byweekno": 28, "bymonth": 1},
    {"byweekno": 28, "byyearday": 1},
    {"byeaster": 0, "byweekday": 0},
]


@pytest.mark.parametrize("freq", range(7))
@pytest.mark.parametrize("parts", NEVER, ids=str)
def test_a_rule_that_can_never_fire_is_recognised_after_a_bounded_search(
    freq: int, parts: dict[str, Any]
) -> None:
    rule, found = rrule(freq, START, **parts), []
    assert calls_of(lambda: found.append(next_due(rule, None, START))) < MOST_CALLS
    assert found == [None]


@pytest.mark.parametrize(
    ("freq", "parts"),
    [
        ("YEARLY", {"interval": 4, "bymonth": 2, "bymonthday": 29, "dtstart": START - 365 * DAY}),
        ("DAILY", {"interval": 7, "byweekday": 0}),
        ("HOURLY", {"interval": 168, "byweekday": 0}),
        ("MINUTELY", {"interval": 1440, "byhour": 3}),
        ("MONTHLY", {"bysetpos": 5, "byweekday": recurrence.MO(1)}),
        ("DAILY", {"bysetpos": 2, "byhour": 9}),
        ("SECONDLY", {"bysetpos": 2, "byhour": 9}),
        ("YEARLY", {"interval": 10**9}),
        ("SECONDLY", {"interval": 10**18}),
        ("SECONDLY", {"interval": 10**18, "byhour": 9}),
    ],
)
def test_an_interval_that_its_parts_never_meet_is_recognised_after_a_bounded_search(
    freq: str, parts: dict[str, Any]
) -> None:
    rule, found = rrule(**{"freq": freq, "dtstart": START, **parts}), []
    assert calls_of(lambda: found.append(rule.following(START))) < MOST_CALLS
    assert found == [None]
