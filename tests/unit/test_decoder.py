"""JSON in and out: nothing lost, nothing executed, `ValueError` for all that is wrong."""

import json
import logging
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from celery import Celery, chain, signature
from celery.schedules import BaseSchedule, solar
from celery.schedules import crontab as celery_crontab
from celery.schedules import schedule as interval
from dateutil import rrule as recurrence
from dateutil import tz as dateutil_tz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redbeat.decoder import (
    RedBeatJSONDecoder,
    RedBeatJSONEncoder,
    from_timestamp,
    get_utcoffset_minutes,
    register_codec,
    to_timestamp,
)
from redbeat.schedules import crontab, once, rrule

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")


def written(value: Any) -> str:
    return json.dumps(value, cls=RedBeatJSONEncoder)


def read(text: str) -> Any:
    return json.loads(text, cls=RedBeatJSONDecoder)


def there_and_back(value: Any) -> Any:
    return read(written(value))


def test_a_plain_interval_is_written_as_by_2_x() -> None:
    assert written(interval(60)) == '{"__type__": "interval", "every": 60.0, "relative": false}'


def test_an_interval_is_read_without_relative() -> None:
    schedule = read('{"__type__": "interval", "every": 60}')
    assert (schedule.run_every, schedule.relative) == (timedelta(minutes=1), False)


@pytest.mark.parametrize("every", ["0", "-1", "1e-9", "NaN", "Infinity", "1e308", "true", '"60"'])
def test_an_impossible_interval_is_a_value_error_that_names_it(every: str) -> None:
    with pytest.raises(ValueError, match="every must be a number"):
        read(f'{{"__type__": "interval", "every": {every}, "relative": false}}')


def test_an_interval_of_zero_is_refused_when_written() -> None:
    with pytest.raises(ValueError, match="every must be a number of seconds above 0"):
        written(interval(0))


def test_a_crontab_has_its_fields_as_originally_written_in_their_order() -> None:
    text = written(celery_crontab(5, "*/3", "mon-fri", [1, 15], 2))
    assert text == (
        '{"__type__": "crontab", "minute": 5, "hour": "*/3", "day_of_week": "mon-fri", '
        '"day_of_month": [1, 15], "month_of_year": 2}'
    )


def test_a_crontab_may_leave_fields_out() -> None:
    assert read('{"__type__": "crontab", "minute": "5"}') == celery_crontab("5")


def test_crontabs_with_equal_fields_are_separate_objects() -> None:
    one, other = there_and_back([celery_crontab("*/5"), celery_crontab("*/5")])
    one.app = app = Celery(set_as_current=False)
    assert one == other
    assert other.app is not app


def test_a_crontab_of_sets_and_ranges_is_stored_as_lists() -> None:
    assert there_and_back(celery_crontab({30, 0}, range(8, 17))) == celery_crontab(
        [0, 30], list(range(8, 17))
    )


def test_a_crontab_in_a_zone_has_one_more_field() -> None:
    plain, zoned = json.loads(written(crontab(5))), json.loads(written(crontab(5, tz=BERLIN)))
    assert zoned == {**plain, "tz": "Europe/Berlin"}
    assert there_and_back(crontab(5, tz=BERLIN)) == crontab(5, tz="Europe/Berlin")
    assert there_and_back(crontab(5, tz=timezone(timedelta(hours=2)))).zone.utcoffset(
        None
    ) == timedelta(hours=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('"minute": "99"', "99"),
        ('"minute": "x"', "x"),
        ('"minute": "*/0"', "crontab"),
        ('"minute": {}', "minute must be"),
        ('"minute": []', "minute must be"),
        ('"minute": [0.5]', "minute must consist of whole numbers"),
        ('"minute": "%s"' % ("1," * 1000), "minute is longer than 1000"),
        ('"minutes": 1', "minutes"),
        ('"tz": "Mars/Olympus"', "Mars/Olympus"),
        ('"tz": 1e9', "offset"),
    ],
)
def test_an_impossible_crontab_is_a_value_error_that_says_why(fields: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(f'{{"__type__": "crontab", {fields}}}')


MOMENTS = [
    datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    datetime(2020, 1, 2, tzinfo=timezone(timedelta(seconds=-3661))),
    datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN),
    datetime(2020, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_datetime_keeps_offset_zone_and_fold(moment: datetime) -> None:
    back = there_and_back(moment)
    assert (back, back.utcoffset(), back.fold) == (moment, moment.utcoffset(), moment.fold)
    assert str(back.tzinfo) == str(moment.tzinfo)


def test_fold_is_written_only_if_it_is_1() -> None:
    assert "fold" not in written(MOMENTS[2])
    assert json.loads(written(MOMENTS[3]))["fold"] == 1


def test_a_naive_datetime_is_utc() -> None:
    assert there_and_back(datetime(2020, 1, 1)) == datetime(2020, 1, 1, tzinfo=UTC)


def test_zones_of_dateutil_and_pytz_are_kept_by_name() -> None:
    pytz = pytest.importorskip("pytz")
    wall = datetime(2020, 10, 25, 2, 30)
    second_time = pytz.timezone("Europe/Berlin").localize(wall, is_dst=False)
    for moment in (
        second_time,
        wall.replace(tzinfo=dateutil_tz.gettz("Europe/Berlin"), fold=1),
    ):
        back = there_and_back(moment)
        assert (back.tzinfo, back.fold) == (BERLIN, 1)
        assert back.timestamp() == moment.timestamp()


@pytest.mark.parametrize(
    "fields",
    [
        '"year": 2023, "month": 2, "day": 30',
        '"year": 2023, "month": 2',
        '"year": 1e400, "month": 2, "day": 1',
        '"year": 2023, "month": 2, "day": 1, "timezone": "Mars/Olympus"',
        '"year": 2023, "month": 2, "day": 1, "timezone": "../../etc/passwd"',
        '"year": 2023, "month": 2, "day": 1, "timezone": "America"',
        '"year": 2023, "month": 2, "day": 1, "timezone": null',
        '"year": 2023, "month": 2, "day": 1, "timezone": 86400',
        '"year": 2023, "month": 2, "day": 1, "tzinfo": null',
    ],
)
def test_an_impossible_datetime_is_a_value_error(fields: str) -> None:
    with pytest.raises(ValueError, match="is not a valid datetime"):
        read(f'{{"__type__": "datetime", {fields}}}')


def test_weekdays_keep_n_and_write_it_only_if_set() -> None:
    assert written(recurrence.TU) == '{"__type__": "weekday", "wkday": 1}'
    assert there_and_back([recurrence.TU(-1), recurrence.MO]) == [recurrence.TU(-1), recurrence.MO]


@pytest.mark.parametrize("text", ['{"__type__": "weekday", "wkday": 7}', '{"__type__": "weekday"}'])
def test_an_impossible_weekday_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="wkday"):
        read(text)


def test_an_rrule_in_a_zone_keeps_it_and_its_wall_clock_time() -> None:
    rule = rrule("DAILY", dtstart=datetime(2024, 3, 1, 9, tzinfo=BERLIN))
    back = there_and_back(rule)
    assert back.dtstart.tzinfo == BERLIN
    assert back.following(datetime(2024, 4, 1, tzinfo=UTC)).hour == 7
    assert written(back) == written(rule)


def test_2_x_and_any_other_reader_still_see_the_offset_of_a_zone() -> None:
    rule = rrule(
        "DAILY",
        dtstart=datetime(2024, 3, 1, tzinfo=BERLIN),
        until=datetime(2024, 6, 1, tzinfo=ZoneInfo("America/New_York")),
    )
    fields = json.loads(written(rule))
    assert list(fields)[-4:] == ["dtstart", "dtstart_tz", "until", "until_tz"]
    assert (fields["dtstart_tz"], fields["until_tz"]) == (60.0, -240.0)
    assert there_and_back(rule).until.tzinfo == ZoneInfo("America/New_York")
    assert json.loads(json.dumps(rule, cls=RedBeatJSONEncoder, sort_keys=True, indent=1)) == fields


def test_an_rrule_without_a_zone_name_is_written_without_one() -> None:
    for zone in (UTC, ZoneInfo("UTC"), timezone(timedelta(hours=2)), dateutil_tz.tzlocal()):
        text = written(rrule("DAILY", dtstart=datetime(2024, 3, 1, tzinfo=zone)))
        assert text.count("dtstart_tz") == 1


def test_an_rrule_may_have_the_name_of_its_zone_alone() -> None:
    rule = read(
        '{"__type__": "rrule", "freq": "daily", "dtstart": 1704101400, '
        '"dtstart_tz": "Europe/Berlin"}'
    )
    assert str(rule.dtstart) == "2024-01-01 10:30:00+01:00"


def test_an_rrule_stored_without_a_start_has_the_same_occurrences_at_every_reading() -> None:
    text = '{"__type__": "rrule", "freq": "HOURLY"}'
    moment = datetime(2024, 1, 1, 0, 30, tzinfo=UTC)
    assert read(text).following(moment) == datetime(2024, 1, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('"freq": 9', "freq"),
        ('"freq": "hourlyish"', "freq"),
        ('"interval": 1', "freq"),
        ('"freq": 3, "interval": 0', "interval"),
        ('"freq": 3, "interval": 1.5', "interval"),
        ('"freq": 3, "count": -1', "count"),
        ('"freq": 3, "byhour": 24', "byhour"),
        ('"freq": 3, "byhour": "9"', "byhour"),
        ('"freq": 3, "byhour": {"__type__": "weekday", "wkday": 0}', "byhour"),
        ('"freq": 3, "bymonth": [1, 13]', "bymonth"),
        ('"freq": 3, "bymonthday": 0', "bymonthday"),
        ('"freq": 3, "byweekday": "MO"', "byweekday"),
        ('"freq": 3, "wkst": 7', "wkst"),
        ('"freq": 3, "dtstart": 1e300', "dtstart"),
        ('"freq": 3, "dtstart": NaN', "dtstart"),
        ('"freq": 3, "dtstart": 0, "dtstart_tz": 1e300', "dtstart"),
        ('"freq": 3, "dtstart": 0, "dtstart_tz": {}', "dtstart"),
        ('"freq": 3, "cache": true', "cache"),
        ('"freq": 4, "interval": 24, "byhour": 5, "dtstart": 0', "byhour"),
    ],
)
def test_an_impossible_rrule_is_a_value_error_that_names_the_parameter(
    fields: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(f'{{"__type__": "rrule", {fields}}}')


VALUES = [
    UUID(int=1),
    Decimal("1.10"),
    b"\x00\xff",
    date(2024, 2, 29),
    timedelta(days=-1, microseconds=5),
    signature("tasks.add", args=(1, 2), kwargs={"at": date(2024, 1, 1)}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_that_2_x_refused_come_back_equal(value: Any) -> None:
    back = there_and_back({"args": [value], "kwargs": {"deep": {"er": [value]}}})
    assert back == {"args": [value], "kwargs": {"deep": {"er": [value]}}}
    assert type(back["args"][0]) is type(value)


def test_a_chain_of_signatures_comes_back_as_a_chain() -> None:
    tasks = chain(signature("tasks.add", args=(1, 2)), signature("tasks.add", args=(3,)))
    back = there_and_back(tasks)
    assert type(back) is type(tasks)
    assert [task.args for task in back.tasks] == [(1, 2), (3,)]


def test_a_value_that_cannot_be_stored_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"kwargs\.deep\[1\]: .*object"):
        written({"args": [1], "kwargs": {"deep": [UUID(int=1), object()]}})
    with pytest.raises(TypeError, match=r"args\[0\]: .*set"):
        written({"args": [{1, 2}]})
    with pytest.raises(TypeError, match="object"):
        written(object())
    with pytest.raises(TypeError, match="keys must be"):
        written({date(2024, 1, 1): 1})


def test_a_moment_that_its_zone_cannot_hold_is_refused_when_written() -> None:
    pytz = pytest.importorskip("pytz")
    zone = pytz.timezone("America/New_York")
    with pytest.raises(ValueError, match="out of range"):
        written({"args": [datetime.max.replace(tzinfo=zone)]})


@pytest.mark.parametrize("text", ['{"__type__": "unknown", "x": 1}', '{"__type__": ["x"]}', "{}"])
def test_an_object_of_an_unknown_type_stays_a_dict(text: str) -> None:
    assert read(text) == json.loads(text)


def test_once_is_stored() -> None:
    at = datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN)
    assert there_and_back(once(at)) == once(at)


def test_a_set_of_rules_is_stored_as_its_text() -> None:
    text = "DTSTART;TZID=Europe/Berlin:20240101T090000\nRRULE:FREQ=DAILY\nEXDATE:20240102T080000Z"
    rules = rrule.from_string(text)
    assert json.loads(written(rules)) == {"__type__": "rruleset", "text": text}
    assert written(there_and_back(rules)) == written(rules)


def test_a_crontab_or_a_place_that_could_not_be_read_again_is_refused_when_written() -> None:
    pytest.importorskip("ephem")
    with pytest.raises(ValueError, match="whole numbers"):
        written(celery_crontab([0.5]))
    with pytest.raises(ValueError, match="lat must be a number"):
        written(solar("sunrise", float("nan"), 13.4))


def test_solar_schedules_are_stored() -> None:
    pytest.importorskip("ephem")
    schedule = solar("sunrise", 52.5, 13.4)
    assert there_and_back(schedule) == schedule


class EveryFullMoon(BaseSchedule):  # type: ignore[misc]  # celery is untyped
    """A schedule of a user's own."""

    def __init__(self, phase: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.phase = phase


class Eager(interval):  # type: ignore[misc]  # celery is untyped
    """An interval of a user's own."""


class Nightly(celery_crontab):  # type: ignore[misc]  # celery is untyped
    """A crontab of a user's own."""


def test_a_schedule_without_a_codec_is_refused_by_name() -> None:
    class Unheard(EveryFullMoon):
        pass

    with pytest.raises(TypeError, match="Unheard has no codec"):
        written(Unheard())


def test_a_schedule_with_a_codec_of_the_user_is_stored() -> None:
    register_codec(
        "tests.moon",
        EveryFullMoon,
        lambda moon: {"phase": moon.phase},
        lambda fields: EveryFullMoon(phase=fields["phase"]),
    )
    assert there_and_back(EveryFullMoon(3)).phase == 3
    with pytest.raises(ValueError, match=r"is not a valid tests\.moon"):
        read('{"__type__": "tests.moon", "face": 1}')


@pytest.mark.parametrize("tag", ["datetime", "", None])
def test_a_codec_needs_a_tag_that_is_not_taken(tag: Any) -> None:
    with pytest.raises(ValueError, match="tag"):
        register_codec(tag, EveryFullMoon, vars, vars)


def test_a_subclass_is_stored_as_its_base_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="celery.beat"):
        for _ in range(2):
            assert type(there_and_back(Eager(60))) is interval
            assert type(there_and_back(Nightly(5))) is celery_crontab
    assert [record.getMessage().split()[4] for record in caplog.records] == ["Eager", "Nightly"]


def test_what_is_nested_too_deeply_is_a_value_error() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            read(text)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        written(deep)


def test_a_value_that_holds_itself_is_a_value_error() -> None:
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises(ValueError, match="nested too deeply"):
        written(circular)


def test_timestamps_are_whole_seconds_rounded_down() -> None:
    assert to_timestamp(datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC)) == 1
    assert to_timestamp(datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)) == -1
    assert type(to_timestamp(datetime(2020, 1, 1))) is int


def test_a_timestamp_becomes_aware_at_its_offset() -> None:
    assert str(from_timestamp(0.5, 90)) == "1970-01-01 01:30:00.500000+01:30"
    assert get_utcoffset_minutes(from_timestamp(0, 90)) == 90.0
    assert get_utcoffset_minutes(datetime(2020, 1, 1)) == 0
    with pytest.raises(ValueError, match="timestamp"):
        from_timestamp(1e300)


TAGS = ["datetime", "interval", "crontab", "rrule", "weekday", "once", "rruleset", "solar"]
TAGS += ["date", "timedelta", "uuid", "decimal", "bytes", "signature"]
FIELDS = ["year", "month", "day", "hour", "timezone", "fold", "every", "relative", "minute", "tz"]
FIELDS += ["freq", "dtstart", "dtstart_tz", "until", "byhour", "bymonth", "interval", "count"]
FIELDS += ["wkday", "n", "at", "text", "hex", "base64", "event", "lat", "lon", "days", "task"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["UTC", "Europe/Berlin", "*/5", "DAILY", "RRULE:FREQ=DAILY", 3, 60])
)


def tagged(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
    return st.builds(lambda tag, rest: {"__type__": tag, **rest}, st.sampled_from(TAGS), fields)


JSON = st.recursive(
    LEAVES, lambda values: tagged(values) | st.lists(values, max_size=3), max_leaves=6
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(tagged(JSON))
def test_reading_raises_nothing_but_value_errors(value: Any) -> None:
    with suppress(ValueError):
        read(json.dumps(value))


@given(st.text())
def test_reading_any_text_raises_nothing_but_value_errors(text: str) -> None:
    with suppress(ValueError):
        read(text)


ZONES = st.timezones() | st.integers(-1439, 1439).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)


@given(st.datetimes(timezones=ZONES, allow_imaginary=True))
def test_every_datetime_comes_back_with_zone_and_fold(moment: datetime) -> None:
    back = there_and_back(moment)
    assert back.replace(tzinfo=None) == moment.replace(tzinfo=None)
    assert (back.fold, back.utcoffset()) == (moment.fold, moment.utcoffset())


@given(st.timedeltas(min_value=timedelta(microseconds=1)))
def test_every_interval_comes_back_to_the_microsecond_that_a_float_can_hold(
    every: timedelta,
) -> None:
    assert there_and_back(interval(every)).run_every.total_seconds() == every.total_seconds()


def test_a_decoder_may_read_types_of_its_own_by_overriding_one_method() -> None:
    """As with 2.x; the base class reads all other types."""

    class WithSets(RedBeatJSONDecoder):
        def dict_to_object(self, fields: dict[str, Any]) -> Any:
            if fields.get("__type__") == "set":
                return set(fields["values"])
            return super().dict_to_object(fields)

    text = '[{"__type__": "set", "values": [1, 2]}, {"__type__": "weekday", "wkday": 1}, {"x": 1}]'
    assert json.loads(text, cls=WithSets) == [{1, 2}, recurrence.TU, {"x": 1}]


@pytest.mark.parametrize(
    "fields",
    [
        '"solar", "event": "sunrise", "lat": 52.5, "lon": 13.4, "app": true',
        '"solar", "event": "sunrise", "lat": 52.5, "lon": 13.4, "nowfun": 1',
        '"once", "at": {"__type__": "datetime", "year": 2030, "month": 1, "day": 1}, "app": 1',
        '"rruleset", "text": "RRULE:FREQ=DAILY", "nowfun": "now"',
    ],
)
def test_a_schedule_with_unknown_fields_is_refused(fields: str) -> None:
    """The other arguments of a constructor are not for writers of JSON."""
    with pytest.raises(ValueError, match="it has unknown fields"):
        json.loads(f'{{"__type__": {fields}}}', cls=RedBeatJSONDecoder)
