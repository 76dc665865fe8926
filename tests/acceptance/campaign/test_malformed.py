"""Entries that no program should have written, among hundreds of good ones."""

import json
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest

from redbeat.beat.fault_log import MOST_TOLD
from support.campaign import Field, MakeField
from support.programs import Program
from support.runs import PREFIX, SCHEDULE_KEY, definition
from support.waiting import wait_until

# Seconds in which the good entries run, however many bad ones are due beside them.
ON_TIME = 20
GOOD = 200
REPEATS = 3

# How many members that are no entries there are, and how many come into one batch.
GARBAGE = 20_000
PAGE = 500
MAX_LINES_OF_A_FAULT = 2

# A line may tell what is wrong with an entry, and others that its runs began: of a few trials.
MAX_MENTIONS = 4

Fields = dict[str, str | bytes]


def with_schedule(**schedule: Any) -> Fields:
    """The fields of an entry with this schedule."""
    return {"definition": json.dumps(definition("bad", schedule=schedule))}


def with_definition(**fields: Any) -> Fields:
    """The fields of an entry of whose definition some are replaced."""
    return {"definition": json.dumps(definition("bad") | fields)}


def without(name: str) -> Fields:
    """The fields of an entry of whose definition one is missing."""
    complete = definition("bad")
    del complete[name]
    return {"definition": json.dumps(complete)}


def with_meta(text: str | bytes) -> Fields:
    """The fields of a good entry with this meta."""
    return {"definition": json.dumps(definition("bad")), "meta": text}


def with_last_run(**fields: Any) -> Fields:
    """The fields of a good entry whose last run is a datetime of which some fields are replaced."""
    run = {"__type__": "datetime", "year": 2020, "month": 1, "day": 1, "hour": 0, "minute": 0}
    return with_meta(json.dumps({"last_run_at": run | fields}))


def crontab(**fields: Any) -> Fields:
    """The fields of an entry with a crontab of which some fields are replaced."""
    names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    return with_schedule(__type__="crontab", **(dict.fromkeys(names, "*") | fields))


# Each of these is logged at error with its key.
UNUSABLE: dict[str, Fields] = {
    "broken-json": {"definition": "{"},
    "empty-definition": {"definition": ""},
    "null-definition": {"definition": "null"},
    "list-definition": {"definition": "[]"},
    "number-definition": {"definition": "42"},
    "text-definition": {"definition": '"text"'},
    "binary-definition": {"definition": b"\xff\xfe\x00{"},
    "deep-definition": {"definition": "[" * 100_000},
    "deep-arguments": {"definition": '{"args": ' + "[" * 50_000 + "]" * 50_000 + "}"},
    "no-task": without("task"),
    "no-schedule": without("schedule"),
    "null-schedule": with_definition(schedule=None),
    "text-schedule": with_definition(schedule="every minute"),
    "list-schedule": with_definition(schedule=[60]),
    "unknown-type": with_schedule(__type__="fortnight", every=2),
    "untyped-schedule": with_schedule(every=60),
    "list-type": with_schedule(__type__=["interval"], every=60),
    "interval-of-nothing": with_schedule(__type__="interval"),
    "interval-of-text": with_schedule(__type__="interval", every="soon"),
    "interval-of-null": with_schedule(__type__="interval", every=None),
    "huge-interval": with_schedule(__type__="interval", every=1e308),
    "endless-interval": with_schedule(__type__="interval", every=float("inf")),
    "interval-of-nan": with_schedule(__type__="interval", every=float("nan")),
    "crontab-minute-99": crontab(minute="99"),
    "crontab-of-words": crontab(hour="noon"),
    "crontab-of-null": crontab(day_of_week=None),
    "crontab-of-february-30": crontab(day_of_month="30", month_of_year="2"),
    "crontab-with-a-stranger": crontab(century="*"),
    "rrule-of-nonsense": with_schedule(__type__="rrule", freq="SOMETIMES"),
    "rrule-without-freq": with_schedule(__type__="rrule"),
    "rrule-of-a-far-start": with_schedule(__type__="rrule", freq="DAILY", dtstart=1e30),
    "rrule-of-bad-weekday": with_schedule(__type__="rrule", freq="DAILY", byweekday="XX"),
    "list-meta": with_meta("[]"),
    "broken-meta": with_meta("{"),
    "binary-meta": with_meta(b"\xff\xfe"),
    "text-last-run": with_meta('{"last_run_at": "yesterday"}'),
    "month-13": with_last_run(month=13),
    "year-0": with_last_run(year=0),
    "unknown-zone": with_last_run(timezone="Mars/Olympus"),
    "zone-of-a-path": with_last_run(timezone="../../etc/passwd"),
    "last-run-of-words": with_last_run(hour="noon"),
}

# Each of these makes a message that cannot be built: logged at error with the entry's name.
UNSENDABLE: dict[str, Fields] = {
    "arguments-of-a-number": with_definition(args=7),
    "keywords-of-a-list": with_definition(kwargs=[1]),
    "options-of-text": with_definition(options="fast"),
    "expires-of-a-list": with_definition(options={"expires": [1]}),
    "serializer-unknown": with_definition(options={"serializer": "clay"}),
}

# These may run, be repaired or be refused, as long as the others do not suffer.
DOUBTFUL: dict[str, Fields] = {
    "no-name": without("name"),
    "null-name": with_definition(name=None),
    "other-name": with_definition(name="somebody-else"),
    "number-task": with_definition(task=42),
    "empty-task": with_definition(task=""),
    "null-arguments": with_definition(args=None, kwargs=None, options=None),
    "text-enabled": with_definition(enabled="no"),
    "null-enabled": with_definition(enabled=None),
    "stranger-in-definition": with_definition(color="red"),
    "interval-of-zero": with_schedule(__type__="interval", every=0),
    "negative-interval": with_schedule(__type__="interval", every=-60),
    "empty-meta": with_meta(""),
    "null-meta": with_meta("null"),
    "run-count-of-text": with_meta('{"last_run_at": null, "total_run_count": "many"}'),
    "far-last-run": with_last_run(year=9999),
    "early-last-run": with_last_run(year=1),
    "queue-of-a-dict": with_definition(options={"queue": {}}),
    "countdown-of-text": with_definition(options={"countdown": "soon"}),
    "eta-of-text": with_definition(options={"eta": "soon"}),
    "stranger-in-options": with_definition(options={"a b": 1, "task_id": 5}),
    "big-arguments": with_definition(args=["x" * 3_000_000]),
}


def store_bad(field: Field, entries: dict[str, Fields]) -> None:
    """Write the entries as due, each under a name that its definition and arguments have too."""
    for name, fields in entries.items():
        field.schedule.hset(f"{PREFIX}{name}", mapping=named(name, fields))
    field.schedule.zadd(SCHEDULE_KEY, {f"{PREFIX}{name}": time.time() - 1 for name in entries})


def named(name: str, fields: Fields) -> Any:
    """The fields with this name for the one in the tables above."""
    text = fields["definition"]
    if isinstance(text, bytes):
        return fields
    return fields | {"definition": text.replace('"bad"', f'"{name}"')}


def store_strange_members(field: Field) -> None:
    """Write members whose keys hold no entry, and members that are no keys of ours."""
    field.schedule.set(f"{PREFIX}a-text", "{}")
    field.schedule.rpush(f"{PREFIX}a-list", "x")
    members: list[Any] = [f"{PREFIX}a-text", f"{PREFIX}a-list", f"{PREFIX}gone"]
    members += ["", "no-prefix", b"\xff\xfe", f"{PREFIX}{{}}\n\r\n", f"{PREFIX}:schedule"]
    for member in members:
        field.schedule.zadd(SCHEDULE_KEY, {member: time.time() - 1})


def unsettled_good(field: Field) -> set[str]:
    """The good entries that are due or leased; members need not be text."""
    scores = {name: field.schedule.zscore(SCHEDULE_KEY, f"{PREFIX}{name}") for name in GOOD_NAMES}
    return {name for name, score in scores.items() if (score or 0) < time.time() + 3600}


GOOD_NAMES = [f"entry-{number:03d}" for number in range(GOOD)]


def run_good_ones(field: Field) -> None:
    """Let each good entry become due again and again, and run on time each time."""
    for _ in range(REPEATS):
        field.runs.arm()
        wait_until(lambda: not unsettled_good(field), ON_TIME, "a run of each good entry")
    field.note()


def assert_left_in_peace(field: Field, beat: Program, names: Iterable[str]) -> None:
    """None of these entries is due for ever, and the log does not speak of them all the time."""
    due = field.schedule.zrangebyscore(SCHEDULE_KEY, 0, time.time())
    lines = {name: len(re.findall(rf"\b{name}\b", beat.log)) for name in names}
    assert {name for name in names if f"{PREFIX}{name}" in due} == set(), beat.log[-2000:]
    assert {name: count for name, count in lines.items() if count > MAX_MENTIONS} == {}


@pytest.fixture
def field(make_field: MakeField) -> Field:
    """A field of good entries."""
    return make_field(entries=GOOD)


@pytest.mark.timeout(300)
def test_good_entries_run_on_time_beside_unusable_ones(field: Field) -> None:
    """Bad ones are logged with their keys, and not repeatedly."""
    store_bad(field, UNUSABLE)
    beat = field.start_beat()
    run_good_ones(field)
    for name in UNUSABLE:
        beat.wait_for_line(rf"ERROR.*{PREFIX}{name}\b", ON_TIME)
    assert_left_in_peace(field, beat, UNUSABLE)
    assert beat.terminate() == 0


@pytest.mark.timeout(300)
def test_good_entries_run_on_time_beside_entries_that_cannot_be_sent(field: Field) -> None:
    """Those are logged with their names, counted as run, and not retried at once."""
    store_bad(field, UNSENDABLE)
    beat = field.start_beat()
    run_good_ones(field)
    for name in UNSENDABLE:
        beat.wait_for_line(rf"ERROR.*\b{name}\b", ON_TIME)
        assert field.runs.counted(name) == 1
    assert_left_in_peace(field, beat, UNSENDABLE)
    assert beat.terminate() == 0


@pytest.mark.timeout(300)
def test_good_entries_run_on_time_beside_doubtful_ones(field: Field) -> None:
    """Whatever happens to those ends, the others run, and beat survives."""
    store_bad(field, DOUBTFUL)
    beat = field.start_beat()
    run_good_ones(field)
    assert_left_in_peace(field, beat, DOUBTFUL)
    assert beat.terminate() == 0


@pytest.mark.timeout(300)
def test_a_malformed_entry_runs_as_soon_as_it_is_repaired(field: Field) -> None:
    """An entry that was set aside comes back with a new definition, or with a new score."""
    store_bad(field, {"mended": UNUSABLE["broken-json"]})
    beat = field.start_beat()
    beat.wait_for_line(rf"ERROR.*{PREFIX}mended")
    field.schedule.hset(f"{PREFIX}mended", "definition", json.dumps(definition("mended")))
    field.schedule.zadd(SCHEDULE_KEY, {f"{PREFIX}mended": time.time() - 1})
    wait_until(lambda: field.runs.sent()["mended"], 30, "a run of the mended entry")
    assert beat.terminate() == 0


@pytest.mark.timeout(300)
def test_good_entries_run_on_time_beside_members_that_are_not_entries(field: Field) -> None:
    """Keys of another type, missing keys, and members that are not text."""
    store_strange_members(field)
    beat = field.start_beat()
    run_good_ones(field)
    assert beat.terminate() == 0


def store_garbage(field: Field, count: int) -> None:
    """Write members that were due before all others: without a hash, with a text, or a bad one."""
    with field.schedule.pipeline(transaction=False) as pipeline:
        for number in range(count):
            key = f"{PREFIX}junk-{number}"
            if number % 3 == 1:
                pipeline.set(key, "cache")
            elif number % 3 == 2:
                pipeline.hset(key, "definition", "{")
            pipeline.zadd(SCHEDULE_KEY, {key: number})
        pipeline.execute()


@pytest.mark.timeout(300)
def test_good_entries_run_on_time_behind_thousands_of_members_that_are_not_entries(
    make_field: MakeField,
) -> None:
    """Each full page of those costs two log lines at most."""
    field = make_field(entries=GOOD, redbeat_batch_size=PAGE)
    store_garbage(field, GARBAGE)
    beat = field.start_beat()
    run_good_ones(field)
    wait_until(
        lambda: field.schedule.zcount(SCHEDULE_KEY, 0, time.time()) == 0, 60, "no more garbage"
    )
    assert beat.terminate() == 0
    told = [line for line in beat.log.splitlines() if "junk" in line]
    assert 1 <= len(told) <= 2 * GARBAGE / PAGE + MOST_TOLD * MAX_LINES_OF_A_FAULT


@pytest.mark.timeout(300)
def test_good_entries_run_on_time_beside_ones_that_may_not_be_written(field: Field) -> None:
    """Each of those is sent once, logged in one line, and set aside, also across a restart."""
    names = [f"ro-{number}" for number in range(20)]
    store_bad(field, {name: {"definition": json.dumps(definition("bad"))} for name in names})
    rights = ["resetkeys", "%R~redbeat:ro-*", "~redbeat:entry-*", "~redbeat::*"]
    if field.schedule.info("server")["redis_version"].startswith("6."):
        # It has no right to read alone.
        rights.remove("%R~redbeat:ro-*")
    client: Any = field.schedule
    client.execute_command("ACL", "SETUSER", "default", *rights)
    logs = []
    for _ in range(2):
        beat = field.start_beat()
        run_good_ones(field)
        assert beat.terminate() == 0
        logs.append(beat.log)
    for name in names:
        assert field.runs.sent()[name] <= 1
        assert len(re.findall(rf"ERROR.*Set aside {PREFIX}{name}\b", logs[0])) == 1
        assert name not in logs[1]
        assert field.schedule.zscore(SCHEDULE_KEY, f"{PREFIX}{name}") == -2
