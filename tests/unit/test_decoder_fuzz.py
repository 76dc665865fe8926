"""Any text gives a ``ValueError`` or an object that works, quickly, and nothing is executed."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery.schedules import BaseSchedule
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redbeat.decoder import CODECS, RedBeatJSONDecoder, RedBeatJSONEncoder
from redbeat.timing.due import due_state, next_due

pytest.importorskip("ephem")

UTC = timezone.utc
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)

#: Seconds for one text and for one look at the schedule in it, on a busy machine.
BOUND = 30

MOMENT = {"year": 2024, "month": 10, "day": 27, "hour": 2, "minute": 30, "second": 5}
MOMENT |= {"microsecond": 6}
FULL_RULE = {"wkst": 0, "count": 100, "bysetpos": [1, -1], "bymonth": [1, 6], "byweekday": [0]}
FULL_RULE |= {"byhour": [9, 10], "byminute": 30, "bysecond": [0, 59]}
TEXT = "DTSTART;TZID=Europe/Berlin:20240101T090000\nRRULE:FREQ=DAILY;BYHOUR=9,10;COUNT=500\n"
TEXT += "RRULE:FREQ=MONTHLY;BYDAY=-1FR;UNTIL=20300101T000000Z\nEXDATE:20240105T080000Z\n"
TEXT += "EXRULE:FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=25\nRDATE;VALUE=DATE:20240106"

VALID: list[dict[str, Any]] = [
    {"__type__": "datetime", **MOMENT, "timezone": "Europe/Berlin", "fold": 1},
    {"__type__": "datetime", **MOMENT, "timezone": -3600.5},
    {"__type__": "interval", "every": 60.0, "relative": True},
    {
        "__type__": "crontab",
        "minute": "*/5",
        "hour": "8-17,22-3",
        "day_of_week": "mon-fri",
        "day_of_month": [1, 15],
        "month_of_year": 2,
        "tz": "America/New_York",
    },
    {"__type__": "rrule", "freq": 1, "interval": 2, "dtstart": 1704067200, **FULL_RULE},
    {
        "__type__": "rrule",
        "freq": "SECONDLY",
        "interval": 7,
        "dtstart": -1e9,
        "dtstart_tz": "Europe/Berlin",
        "until": 4102444799.5,
        "until_tz": -90,
        "byhour": [2],
        "bysetpos": 1,
    },
    {"__type__": "rrule", "freq": 0, "dtstart": 0, "byeaster": -2, "count": 9},
    {"__type__": "rrule", "freq": 2, "dtstart": 0, "byweekno": [1, -1], "byyearday": [1, 366]},
    {"__type__": "weekday", "wkday": 4, "n": -1},
    {"__type__": "rruleset", "text": TEXT},
    {"__type__": "once", "at": {"__type__": "datetime", **MOMENT}},
    {"__type__": "solar", "event": "sunrise", "lat": 52.5, "lon": 13.4},
    {"__type__": "date", "year": 2024, "month": 2, "day": 29},
    {"__type__": "timedelta", "days": -1, "seconds": 5, "microseconds": 6},
    {"__type__": "uuid", "hex": "12345678123456781234567812345678"},
    {"__type__": "decimal", "text": "9.90"},
    {"__type__": "bytes", "base64": "AP8="},
    {
        "__type__": "signature",
        "task": "tasks.add",
        "args": [1],
        "kwargs": {"a": 1},
        "options": {"link": []},
        "subtask_type": None,
        "immutable": False,
    },
]

HOSTILE: list[Any] = [
    *(None, True, 0, -1, 1, 7, 60, 10**9, 10**18, 10**400, -(10**30), 0.5, 1e-300, 1e308, -1e308),
    *(
        float("nan"),
        float("inf"),
        "",
        "0",
        "*",
        "*/0",
        "1-",
        "-1",
        "1-0/0",
        "\0",
        "\ud800",
        "٣",
        "é",
    ),
    *("x" * 10_000, "1," * 10_000, "9" * 5_000, [[]], [[[[1]]]], {}, {"a": []}, [None] * 1_000),
    *("Mars/Olympus", "../../etc/passwd", "/etc/passwd", "localtime", "UTC", "America", "con"),
    *(
        "__import__('os').system('true')",
        "!!python/object/apply:os.system",
        "cos\nsystem\n(S''\ntR.",
    ),
    *("os.system", {"__reduce__": ["os.system", ["true"]]}, {"py/object": "os.system"}),
    *("group", "chain", "chord", "xmap", "RRULE:FREQ=SECONDLY;INTERVAL=0", "FREQ=DAILY;COUNT=1"),
    *(
        "DTSTART:99991231T235959Z\nRRULE:FREQ=DAILY",
        "DTSTART:00010101\nRRULE:FREQ=YEARLY",
        "1E+99999",
    ),
    [{"__type__": "weekday", "wkday": 0, "n": 5}],
    {"__type__": "datetime", "year": 1, "month": 1, "day": 1, "timezone": 86399},
    {"__type__": "datetime", "year": 9999, "month": 12, "day": 31, "timezone": -86399},
]

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
VALUES = st.recursive(
    st.sampled_from(HOSTILE) | st.sampled_from(VALID) | LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(
    sorted({name for valid in VALID for name in valid} | {"self", "cls", "app"})
)
TAGS = [valid["__type__"] for valid in VALID]


@st.composite
def near_valid(draw: st.DrawFn) -> str:
    """The text of an object as it should be, but for some of its fields."""
    pairs = list(draw(st.sampled_from(VALID)).items())
    for _ in range(draw(st.integers(0, 3))):
        number = draw(st.integers(0, len(pairs) - 1))
        name, value = pairs[number]
        change = draw(st.sampled_from(["drop", "replace", "wrap", "rename", "add", "retag"]))
        if change == "drop" and len(pairs) > 1:
            del pairs[number]
        elif change == "replace":
            pairs[number] = (name, draw(VALUES))
        elif change == "wrap":
            pairs[number] = (name, [value, value])
        elif change == "rename":
            pairs[number] = (draw(NAMES), value)
        elif change == "retag":
            pairs[number] = ("__type__", draw(st.sampled_from(TAGS)))
        else:
            pairs.append((draw(NAMES), draw(VALUES)))
    # Not a dict, so that a name may be there twice.
    return (
        "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
    )


@st.composite
def near_text(draw: st.DrawFn) -> str:
    """The text of a valid object in which some characters are others, fewer or more."""
    text = json.dumps(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(start + 5, len(text))))
        text = text[:start] + draw(st.text(max_size=5)) + text[end:]
    return text


#: What Python reports of itself when something is run, started, or connected to.
EXECUTION = ("os.", "subprocess.", "socket.", "pickle.", "ctypes.", "webbrowser.", "shutil.")
HARMLESS = ("os.listdir", "os.scandir", "os.fwalk", "os.walk")
watching: list[list[str]] = []


def _note(event: str, args: tuple[Any, ...]) -> None:
    if not watching:
        return
    is_code = event == "compile" and args[0] is not None
    if is_code or (event.startswith(EXECUTION) and event not in HARMLESS):
        watching[-1].append(event)
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        watching[-1].append(f"open {args[0]!r} to write")


sys.addaudithook(_note)


@contextlib.contextmanager
def nothing_is_executed() -> Iterator[None]:
    """Fail if anything is run, started, connected to, or written inside the ``with`` block."""
    events: list[str] = []
    watching.append(events)
    try:
        yield
    finally:
        watching.remove(events)
    assert events == []


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    # CPU time, so that it does not matter what else the machine does.
    began = time.thread_time()
    yield
    assert time.thread_time() - began < BOUND


def schedules_in(value: Any) -> Iterator[BaseSchedule]:
    if isinstance(value, BaseSchedule):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from schedules_in(part)


def read(text: str) -> None:
    """Read a text, and use what came out of it, as beat does."""
    with nothing_is_executed():
        try:
            with bounded():
                value = json.loads(text, cls=RedBeatJSONDecoder)
        except ValueError:
            return
        for schedule in schedules_in(value):
            use(schedule)


def use(schedule: BaseSchedule) -> None:
    with bounded():
        assert isinstance(json.dumps(schedule, cls=RedBeatJSONEncoder), str)
        for last_run_at in (None, NOW - timedelta(days=400)):
            next_due(schedule, last_run_at, NOW)
            due_state(schedule, last_run_at, NOW)


heavily = settings(
    max_examples=4 * settings().max_examples, suppress_health_check=list(HealthCheck)
)


def test_the_watch_notices_what_is_executed() -> None:
    with pytest.raises(AssertionError, match="compile"), nothing_is_executed():
        eval("1 + 1")


def test_every_type_has_a_valid_object_to_start_from() -> None:
    assert {codec.tag for codec in CODECS} == set(TAGS)
    for valid in VALID:
        read(json.dumps(valid))
        assert json.loads(json.dumps(valid), cls=RedBeatJSONDecoder) != valid


@heavily
@given(near_valid())
def test_nearly_valid_objects_of_every_type_are_read_or_refused(text: str) -> None:
    read(text)


@heavily
@given(near_text())
def test_nearly_valid_texts_are_read_or_refused(text: str) -> None:
    read(text)


@heavily
@given(VALUES)
@example("[" * 100_000)
def test_any_json_is_read_or_refused(value: Any) -> None:
    read(json.dumps(value))
    if isinstance(value, str):
        read(value)


@pytest.mark.parametrize("name", sorted({name for valid in VALID for name in valid}))
def test_a_hostile_value_in_any_field_is_read_or_refused(name: str) -> None:
    for valid in VALID:
        for hostile in HOSTILE if name in valid else ():
            read(json.dumps({**valid, name: hostile}))
            read(json.dumps({**valid, name: [hostile]}))
