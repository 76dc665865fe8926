"""An export and an import hold one page of entries at a time, and the names of all."""

import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry, Timetable
from redbeat.errors import EntryError
from redbeat.timetable.listings import PAGE
from redbeat.tools import backup
from support.apps import MakeApp
from support.wire import Proxy

SCHEDULE = "redbeat::schedule"

#: Characters in the argument of each entry: a page of them outweighs the names of all.
SIZE = 2000

SMALL_PAGE = 100

#: Entries of more than one small page: while one is read, the one before it is still held.
SOME = 2 * SMALL_PAGE


def make(app: Celery, number: int) -> RedBeatSchedulerEntry:
    text = f"{number:0{SIZE}}"
    return RedBeatSchedulerEntry(f"e{number:05}", "tasks.add", schedule(60), args=[text], app=app)


def fill(app: Celery, count: int) -> None:
    for start in range(0, count, PAGE):
        page = [make(app, number) for number in range(start, min(start + PAGE, count))]
        Timetable(app).replace(page)


def export(timetable: Timetable) -> Iterator[str]:
    listings = timetable.listings_by_name()
    return backup.dump((each.name, each.entry) for each in listings if each.entry is not None)


def write_lines(entries: dict[str, Any]) -> str:
    named = (
        {"name": name, **fields} if isinstance(fields, dict) else fields
        for name, fields in entries.items()
    )
    return "".join(f"{json.dumps(each)}\n" for each in named)


def peak_of(act: Callable[[], Any]) -> int:
    """The most memory, in bytes, that Python held at once for it."""
    act()
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def exhaust(items: Iterator[Any]) -> None:
    for _ in items:
        pass


@pytest.fixture
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of few entries: to trace all memory takes long."""
    monkeypatch.setattr("redbeat.timetable.listings.PAGE", SMALL_PAGE)


@pytest.mark.usefixtures("_small_pages")
def test_an_export_of_four_times_as_many_entries_takes_no_more_memory(app: Celery) -> None:
    """Names are held, but they take few bytes each."""
    timetable = Timetable(app)
    fill(app, SOME)
    some = peak_of(lambda: exhaust(export(timetable)))
    fill(app, 4 * SOME)
    assert len(timetable) == 4 * SOME
    assert peak_of(lambda: exhaust(export(timetable))) < 1.5 * some


@pytest.mark.usefixtures("_small_pages")
def test_comparing_four_times_as_many_entries_takes_no_more_memory(
    app: Celery, tmp_path: Path
) -> None:
    """Only the names of unchanged entries are kept."""
    timetable, path = Timetable(app), tmp_path / "schedule.jsonl"
    fill(app, SOME)
    path.write_text("".join(export(timetable)))
    some = peak_of(lambda: compare(path, timetable))
    fill(app, 4 * SOME)
    path.write_text("".join(export(timetable)))
    assert peak_of(lambda: compare(path, timetable)) < 1.5 * some


def compare(path: Path, timetable: Timetable) -> None:
    with path.open() as file:
        plan = backup.plan_import(file, timetable)
    assert plan.unchanged == len(plan.names)


def test_the_first_entry_is_written_before_the_second_page_is_read(
    make_app_with: MakeApp, proxy: Proxy
) -> None:
    """In the order of names, which are read first; four round trips a page."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    fill(app, 2 * PAGE - 1)
    with proxy.counting() as traffic:
        lines = export(Timetable(app))
        assert json.loads(next(lines))["name"] == "e00000"
        assert traffic.names.count("HMGET") == PAGE
        exhaust(lines)
    assert traffic.names.count("HMGET") == 2 * PAGE - 1
    # The first page of names takes one round trip, and there is one more for finished entries.
    assert traffic.round_trips == (1 + 2) + 1 + 2 * 2


def test_an_entry_removed_during_an_export_is_left_out(
    client_app: Celery, client: redis.Redis
) -> None:
    """One that has lost its definition is listed, as unreadable."""
    timetable = Timetable(client_app)
    fill(client_app, PAGE + 2)
    client.zadd(SCHEDULE, {"redbeat:e99999": 4e9})
    listings = timetable.listings_by_name()
    first = next(listings)
    del timetable[f"e{PAGE + 1:05}"]
    rest = [first, *listings]
    assert [each.name for each in rest] == [*(f"e{n:05}" for n in range(PAGE + 1)), "e99999"]
    assert [each.name for each in rest if each.entry is None] == ["e99999"]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({"task": "t"}, r"'bad'.*\(1 more cannot be stored\)"),
        ({"task": "t", "schedule": {"__type__": "crontab", "hour": "25"}}, ".*25"),
    ],
)
@pytest.mark.parametrize(("write", "place"), [(write_lines, "Line 1001: "), (json.dumps, "Entry ")])
def test_a_whole_file_is_checked_before_anything_is_stored(
    app: Celery, bad: dict[str, Any], expected: str, write: Callable[[Any], str], place: str
) -> None:
    """The bad entry comes after several pages of good ones, in the new form and the old one."""
    timetable = Timetable(app)
    good = {f"e{number}": {"task": "t", "schedule": 60} for number in range(2 * PAGE)}
    text = write({**good, "bad": bad, "worse": 3})
    with pytest.raises(EntryError, match=f"^{place}.*{expected}"):
        backup.plan_import(io.StringIO(text), timetable)
    assert not timetable


def test_a_name_that_no_key_can_hold_is_found_before_anything_is_stored(app: Celery) -> None:
    """Half a character stands for no byte."""
    text = write_lines(
        {"good": {"task": "t", "schedule": 60}, "\ud800": {"task": "t", "schedule": 3}}
    )
    with pytest.raises(EntryError, match=r"Line 2: Entry '\\ud800'"):
        backup.plan_import(io.StringIO(text), Timetable(app))


def test_a_file_of_the_old_form_can_still_be_imported(app: Celery) -> None:
    """One JSON object, with the fields of each entry under its name."""
    timetable = Timetable(app)
    fill(app, 3)
    lines = list(export(timetable))
    old = {fields.pop("name"): fields for fields in map(json.loads, lines)}
    for text in (json.dumps(old), json.dumps(old, indent=2)):
        timetable.clear()
        timetable.replace(backup.plan_import(io.StringIO(text), timetable).written)
        assert list(export(timetable)) == lines


def test_an_import_costs_what_it_says(make_app_with: MakeApp, proxy: Proxy) -> None:
    """Two round trips a page."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    fill(app, 2 * PAGE)
    timetable = Timetable(app)
    text = "".join(export(timetable))
    with proxy.counting() as traffic:
        plan = backup.plan_import(io.StringIO(text), timetable)
    assert len(plan.names) == 2 * PAGE
    assert traffic.round_trips == 2 * 2
