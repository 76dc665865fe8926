"""Reading what is typed on the command line."""

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import click
import pytest
from celery.schedules import crontab as celery_crontab

from redbeat.schedules import crontab, rrule, rruleset
from redbeat.tools.arguments import Duration, Moment, Zone, read_cron, read_duration, read_rrule

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("90", 90),
        ("1.5", 1.5),
        ("15m", 900),
        ("1h30m", 5400),
        ("1.5D", 129600),
        ("2w", 1209600),
        ("250ms", 0.25),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert read_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "m", "5 apples", "1h 30m", "-5s", "9" * 400 + "w", "1e5"])
def test_text_that_is_not_a_duration(text: str) -> None:
    assert read_duration(text) is None
    with pytest.raises(click.BadParameter, match="30s"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["0", "0s", "0.0h"])
def test_a_duration_is_above_zero(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_moments() -> None:
    """ISO 8601, naive if it has no offset; or a duration from now."""
    read = Moment()
    assert read.convert("2030-12-24T18:00", None, None) == datetime(2030, 12, 24, 18)
    offset = timezone(timedelta(hours=1))
    assert read.convert("2030-12-24T18:00+01:00", None, None) == datetime(
        2030, 12, 24, 18, tzinfo=offset
    )
    later = read.convert("90m", None, None)
    assert abs(later - datetime.now(timezone.utc) - timedelta(minutes=90)) < timedelta(seconds=5)


@pytest.mark.parametrize("text", ["tomorrow", "2030-13-01", "18:00:99", "99999999w"])
def test_text_that_is_not_a_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="Use a value such as"):
        Moment().convert(text, None, None)


def test_zones() -> None:
    assert Zone().convert("Europe/Berlin", None, None) == BERLIN
    with pytest.raises(click.BadParameter, match="Europe/Berlin"):
        Zone().convert("Europe/Atlantis", None, None)


def test_a_cron_text_without_a_zone_gives_celery_s_own_crontab() -> None:
    """So that 2.x can read it."""
    read = read_cron("*/5 9-17 1 6 mon-fri", None)
    assert type(read) is celery_crontab
    assert read == celery_crontab("*/5", "9-17", "mon-fri", "1", "6")
    assert read_cron("0 9 * * *", BERLIN) == crontab(0, 9, tz=BERLIN)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("* * * *", "4 fields"),
        ("60 * * * *", "minute '60'"),
        ("* 24 * * *", "hour '24'"),
        ("* * 32 * *", "day of month '32'"),
        ("* * * 13 *", "month of year '13'"),
        ("* * * * funday", "day of week 'funday'"),
    ],
)
def test_an_invalid_cron_text_is_refused_with_the_field(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        read_cron(text, None)


def test_rules() -> None:
    assert isinstance(read_rrule("FREQ=DAILY;BYHOUR=9", None), rrule)
    zoned = read_rrule("FREQ=DAILY;BYHOUR=9", BERLIN)
    assert isinstance(zoned, rrule)
    assert zoned.dtstart.tzinfo == BERLIN
    text = "DTSTART:20300101T090000Z\\nRRULE:FREQ=DAILY\\nEXDATE:20300102T090000Z"
    assert isinstance(read_rrule(text, None), rruleset)
    with pytest.raises(ValueError, match="OFTEN"):
        read_rrule("FREQ=OFTEN", None)


@pytest.mark.parametrize(
    ("text", "moment"),
    [("2031", datetime(2031, 1, 1)), ("20301224", datetime(2030, 12, 24))],
)
def test_a_number_alone_is_a_date_not_seconds(text: str, moment: datetime) -> None:
    """As ISO 8601 has it."""
    assert Moment().convert(text, None, None) == moment


def test_a_start_without_a_zone_is_in_the_given_zone() -> None:
    """However it is written."""
    zone = ZoneInfo("America/New_York")
    rule = read_rrule(r"DTSTART:20300101T090000\nRRULE:FREQ=DAILY", zone)
    assert rule.dtstart == datetime(2030, 1, 1, 14, tzinfo=timezone.utc)
    rule = read_rrule(r"dtstart;value=date:20300101\nRRULE:FREQ=DAILY", zone)
    assert rule.dtstart == datetime(2030, 1, 1, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize("number", ["1.5", "90"])
def test_a_number_that_is_not_a_date_is_not_a_time(number: str) -> None:
    with pytest.raises(click.UsageError, match="is not a time"):
        Moment().convert(number, None, None)


@pytest.mark.parametrize(
    "text", ["DTSTART\n :20300101T090000\nRRULE:FREQ=DAILY", "RDATE:20300101T090000"]
)
def test_a_zone_changes_nothing_else_about_how_a_recurrence_is_read(text: str) -> None:
    """Folded lines, and dates without a rule."""
    rule = read_rrule(text, ZoneInfo("America/New_York"))
    assert rule.dtstart == datetime(2030, 1, 1, 14, tzinfo=timezone.utc)


@pytest.mark.parametrize("start", ["DTSTART:20300101T090000Z", "DTSTART;TZID=UTC:20300101T090000"])
def test_a_start_with_a_zone_allows_no_other(start: str) -> None:
    with pytest.raises(ValueError, match="omit --tz"):
        read_rrule(f"{start}\nRRULE:FREQ=DAILY", ZoneInfo("America/New_York"))


def test_an_invalid_month_is_not_called_a_weekday() -> None:
    with pytest.raises(ValueError, match=r"month of year 'foo' is not valid$"):
        read_cron("* * * foo *", None)
    with pytest.raises(ValueError, match=r"day of week '7' is not valid.*Sunday is 0"):
        read_cron("* * * * 7", None)
