"""RFC 5545 text: the examples of its section 3.8.5.3, and sets of rules and dates."""

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from celery import Celery

from redbeat.schedules import rrule, rruleset
from redbeat.timing.due import due_state, next_due

UTC = timezone.utc
NEW_YORK = ZoneInfo("America/New_York")
EARLIEST = datetime.min.replace(tzinfo=UTC)

#: Rule; the first days it names, at 9:00 New York unless they say otherwise; how many there are.
EXAMPLES = [
    ("FREQ=DAILY;COUNT=10", "97-09-02 97-09-03 97-09-04", 10),
    ("FREQ=DAILY;UNTIL=19971224T000000Z", "97-09-02 97-09-03", 113),
    ("FREQ=DAILY;INTERVAL=2", "97-09-02 97-09-04 97-09-06", None),
    ("FREQ=DAILY;INTERVAL=10;COUNT=5", "97-09-02 97-09-12 97-09-22 97-10-02 97-10-12", 5),
    ("FREQ=WEEKLY;COUNT=10", "97-09-02 97-09-09 97-09-16", 10),
    ("FREQ=WEEKLY;UNTIL=19971224T000000Z", "97-09-02 97-09-09", 17),
    ("FREQ=WEEKLY;INTERVAL=2;WKST=SU", "97-09-02 97-09-16 97-09-30", None),
    ("FREQ=WEEKLY;COUNT=10;WKST=SU;BYDAY=TU,TH", "97-09-02 97-09-04 97-09-09", 10),
    ("FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH", "97-09-02 97-09-04 97-09-16", 8),
    ("FREQ=MONTHLY;COUNT=10;BYDAY=1FR", "97-09-05 97-10-03 97-11-07", 10),
    ("FREQ=MONTHLY;UNTIL=19971224T000000Z;BYDAY=1FR", "97-09-05 97-10-03 97-11-07 97-12-05", 4),
    ("FREQ=MONTHLY;INTERVAL=2;COUNT=10;BYDAY=1SU,-1SU", "97-09-07 97-09-28 97-11-02", 10),
    ("FREQ=MONTHLY;COUNT=6;BYDAY=-2MO", "97-09-22 97-10-20 97-11-17 97-12-22", 6),
    ("FREQ=MONTHLY;BYMONTHDAY=-3", "97-09-28 97-10-29 97-11-28 97-12-29 98-01-29", None),
    ("FREQ=MONTHLY;COUNT=10;BYMONTHDAY=2,15", "97-09-02 97-09-15 97-10-02", 10),
    ("FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1", "97-09-30 97-10-01 97-10-31", 10),
    ("FREQ=MONTHLY;INTERVAL=18;COUNT=10;BYMONTHDAY=10,11,12", "97-09-10 97-09-11 97-09-12", 10),
    ("FREQ=MONTHLY;INTERVAL=2;BYDAY=TU", "97-09-02 97-09-09 97-09-16", None),
    ("FREQ=YEARLY;INTERVAL=2;COUNT=10;BYMONTH=1,2,3", "99-01-02 99-02-02 99-03-02 01-01-02", 10),
    ("FREQ=YEARLY;INTERVAL=3;COUNT=10;BYYEARDAY=1,100,200", "00-01-01 00-04-09 00-07-18", 10),
    ("FREQ=YEARLY;BYDAY=20MO", "98-05-18 99-05-17 00-05-15", None),
    ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "98-05-11 99-05-17 00-05-15", None),
    ("FREQ=YEARLY;BYMONTH=3;BYDAY=TH", "98-03-05 98-03-12 98-03-19 98-03-26 99-03-04", None),
    ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "98-02-13 98-03-13 98-11-13 99-08-13", None),
    ("FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13", "97-09-13 97-10-11 97-11-08", None),
    (
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
        "97-11-04 01-11-06",
        None,
    ),
    ("FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "97-09-04 97-10-07 97-11-06", 3),
    ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2", "97-09-29 97-10-30 97-11-27", None),
    ("FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T210000Z", "97-09-02 97-09-02T12 97-09-02T15", 3),
    ("FREQ=MINUTELY;INTERVAL=90;COUNT=4", "97-09-02 97-09-02T10:30 97-09-02T12", 4),
    ("FREQ=DAILY;BYHOUR=9,10;BYMINUTE=0,20", "97-09-02 97-09-02T09:20 97-09-02T10", None),
    ("FREQ=MINUTELY;INTERVAL=20;BYHOUR=9,10", "97-09-02 97-09-02T09:20 97-09-02T09:40", None),
    ("FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=5", "97-09-15 97-09-30 97-10-15", 5),
]


def occurrences(rules: rrule | rruleset, count: int = 1000) -> list[datetime]:
    found: list[datetime] = []
    moment = rules.following(EARLIEST)
    while moment is not None and len(found) < count:
        found.append(moment)
        moment = rules.following(moment)
    return found


def shown(moment: datetime) -> str:
    text = f"{moment.astimezone(NEW_YORK):%y-%m-%dT%H:%M}"
    return text.removesuffix("T09:00").removesuffix(":00")


@pytest.mark.parametrize(("rule", "days", "count"), EXAMPLES, ids=[rule[0] for rule in EXAMPLES])
def test_the_examples_of_the_rfc(rule: str, days: str, count: int | None) -> None:
    rules = rrule.from_string(f"DTSTART;TZID=America/New_York:19970902T090000\nRRULE:{rule}")
    assert isinstance(rules, rrule)
    expected = days.split()
    assert [shown(moment) for moment in occurrences(rules, len(expected))] == expected
    if count is not None:
        assert len(occurrences(rules)) == count


def test_the_example_of_the_rfc_whose_week_start_matters() -> None:
    for start, expected in (("MO", "05 10 19 24"), ("SU", "05 17 19 31")):
        rule = f"RRULE:FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST={start}"
        rules = rrule.from_string(f"DTSTART:19970805T090000Z\n{rule}")
        assert " ".join(f"{moment:%d}" for moment in occurrences(rules)) == expected


def test_the_example_of_the_rfc_with_an_exdate() -> None:
    rules = rrule.from_string(
        "DTSTART;TZID=America/New_York:19970902T090000\n"
        "EXDATE;TZID=America/New_York:19970902T090000\n"
        "RRULE:FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13"
    )
    assert [shown(moment) for moment in occurrences(rules, 2)] == ["98-02-13", "98-03-13"]


def days(text: str) -> list[int]:
    return [moment.day for moment in occurrences(rrule.from_string(text), 20)]


def test_several_rules_and_dates_make_one_schedule_without_repetitions() -> None:
    text = (
        "DTSTART:20240101T090000Z\nRRULE:FREQ=DAILY;INTERVAL=2;COUNT=3\n"
        "RRULE:FREQ=DAILY;INTERVAL=4;COUNT=3\nRDATE:20240102T090000Z,20240103T090000Z\n"
        "RDATE;VALUE=DATE:20240120"
    )
    assert days(text) == [1, 2, 3, 5, 9, 20]
    assert [moment.day for moment in rrule.from_string(text).rrule] == [1, 2, 3, 5, 9, 20]


def test_excluded_rules_and_dates_do_not_run() -> None:
    text = (
        "DTSTART:20240101T090000Z\nRRULE:FREQ=DAILY;COUNT=8\n"
        "EXRULE:FREQ=DAILY;INTERVAL=3\nEXDATE:20240102T090000Z,20240102T080000Z"
    )
    assert days(text) == [3, 5, 6, 8]
    assert [moment.day for moment in rrule.from_string(text).rrule] == [3, 5, 6, 8]


def test_dates_without_a_rule_begin_with_the_start() -> None:
    assert days("DTSTART:20240101T090000Z\nRDATE:20240105T090000Z") == [1, 5]


def test_a_rule_that_excludes_all_of_itself_has_nothing_left() -> None:
    rules = rrule.from_string("DTSTART:20240101T090000Z\nRRULE:FREQ=DAILY\nEXRULE:FREQ=DAILY")
    assert next_due(rules, None, datetime(2024, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("rules", "last", "expected"),
    [
        (
            "RRULE:FREQ=SECONDLY\nEXRULE:FREQ=SECONDLY;BYHOUR=22,23,0,1,2,3,4,5,6",
            datetime(2024, 5, 1, 21, 59, 59, tzinfo=UTC),
            datetime(2024, 5, 2, 7, tzinfo=UTC),
        ),
        (
            "RRULE:FREQ=SECONDLY\nEXRULE:FREQ=SECONDLY;BYDAY=SA,SU",
            datetime(2024, 5, 3, 23, 59, 59, tzinfo=UTC),
            datetime(2024, 5, 6, tzinfo=UTC),
        ),
    ],
    ids=["night", "weekend"],
)
def test_a_rule_goes_on_after_a_night_or_a_weekend_that_is_excluded(
    rules: str, last: datetime, expected: datetime
) -> None:
    assert next_due(rrule.from_string(f"DTSTART:20240101T000000Z\n{rules}"), last, last) == expected


def test_a_set_keeps_its_wall_clock_time_and_its_exceptions_across_a_transition() -> None:
    rules = rrule.from_string(
        "DTSTART;TZID=Europe/Berlin:20240329T090000\nRRULE:FREQ=DAILY;COUNT=5\n"
        "EXDATE;TZID=Europe/Berlin:20240401T090000"
    )
    assert [(moment.day, moment.hour) for moment in occurrences(rules)] == [
        (29, 8),
        (30, 8),
        (31, 7),
        (2, 7),
    ]


def test_text_without_a_start_starts_now_and_its_text_says_so() -> None:
    now = datetime(2024, 5, 1, 12, 0, 0, 7, tzinfo=UTC)
    assert rrule.from_string("FREQ=DAILY", nowfun=lambda: now).dtstart == now.replace(microsecond=0)
    rules = rrule.from_string("RRULE:FREQ=DAILY\nRDATE:20250101", nowfun=lambda: now)
    assert isinstance(rules, rruleset)
    assert rules.text.splitlines()[0] == "DTSTART:20240501T120000Z"
    stored = rruleset(rules.text)
    assert due_state(stored, None, now + timedelta(seconds=5)).is_due
    assert not due_state(stored, None, now + timedelta(minutes=5)).is_due
    assert "RDATE" in repr(rules)


def test_floating_times_are_those_of_the_zone_of_the_app() -> None:
    app = Celery(set_as_current=False)
    app.conf.timezone = "Europe/Berlin"
    rule = rrule.from_string("DTSTART:20240101T090000\nRRULE:FREQ=DAILY", app=app)
    assert str(rule.dtstart) == "2024-01-01 09:00:00+01:00"


def test_lines_may_be_folded_and_written_in_lower_case() -> None:
    text = "dtstart:20240101T090000Z\r\nrrule:freq=daily;\r\n count=2\r\n"
    assert days(text) == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "consists of"),
        (5, "must be text"),
        ("RDATE:" + ",".join(["20240101"] * 120_000), "longer than 1000000"),
        ("DURATION:PT1H", "DURATION"),
        ("RRULE:FREQ=DAILY;BYDAY=XX", "XX"),
        ("RRULE:FREQ=DAILY;BYDAY=", "weekday"),
        ("RRULE:FREQ=DAILY;BYHOUR=x", "byhour"),
        ("RRULE:FREQ=DAILY;BYHOUR=25", "byhour"),
        ("RRULE:FREQ=DAILY;FREQ=DAILY", "FREQ"),
        ("RRULE:FREQ=DAILY;RSCALE=CHINESE", "RSCALE"),
        ("RRULE:INTERVAL=1", "FREQ"),
        ("RRULE:FREQ=OFTEN", "freq"),
        ("RRULE:FREQ=DAILY;UNTIL=tomorrow", "TOMORROW"),
        ("DTSTART:20240230\nRRULE:FREQ=DAILY", "20240230"),
        ("DTSTART:20240101\nDTSTART:20240102\nRRULE:FREQ=DAILY", "one DTSTART"),
        ("DTSTART;TZID=Mars/Olympus:20240101\nRRULE:FREQ=DAILY", "Mars/Olympus"),
        ("RDATE;VALUE=PERIOD:19960403T020000Z/PT3H", "PERIOD"),
    ],
)
def test_text_that_is_not_a_recurrence_is_a_value_error_that_names_the_part(
    text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rrule.from_string(text)


def test_dates_without_a_rule_begin_with_the_first_of_them() -> None:
    """Not now, with a run that nobody asked for."""
    found = rrule.from_string("RDATE:20300101T090000Z,20290101T090000Z")
    assert found.dtstart == datetime(2029, 1, 1, 9, tzinfo=timezone.utc)
