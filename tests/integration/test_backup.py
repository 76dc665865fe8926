"""Export and import hold a page of entries at a time, and names."""

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
from redbeat.timetable import PAGE
from redbeat.tools import backup
from support.apps import MakeApp
from support.wire import Proxy

SCHEDULE = "redbeat::schedule"

#: Characters in the argument of each entry: a page of them outweighs the names of all.
SIZE = 2000

#: Entries of more than one page: while one is read, the one before it is still held.
SOME = 2 * PAGE


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


def read_pieces(text: str) -> Iterator[str]:
    return backup.read_pieces(io.StringIO(text))


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


def test_an_export_of_four_times_as_many_entries_takes_no_more_memory(app: Celery) -> None:
    """Names are held, and they are few bytes each."""
    timetable = Timetable(app)
    fill(app, SOME)
    some = peak_of(lambda: exhaust(export(timetable)))
    fill(app, 4 * SOME)
    assert len(timetable) == 4 * SOME
    assert peak_of(lambda: exhaust(export(timetable))) < 1.5 * some


def test_comparing_four_times_as_many_entries_takes_no_more_memory(
    app: Celery, tmp_path: Path
) -> None:
    """Those that are the same are forgotten, but for their names."""
    timetable, path = Timetable(app), tmp_path / "schedule.json"
    fill(app, SOME)
    path.write_text("".join(export(timetable)))
    some = peak_of(lambda: compare(path, timetable))
    fill(app, 4 * SOME)
    path.write_text("".join(export(timetable)))
    assert peak_of(lambda: compare(path, timetable)) < 1.5 * some


def compare(path: Path, timetable: Timetable) -> None:
    with path.open() as file:
        incoming = backup.Import(backup.read_pieces(file), timetable)
        found = sum(difference.same for difference in incoming.differences())
    assert found == len(incoming.names)


def test_the_first_entry_is_written_before_the_second_page_is_read(
    make_app_with: MakeApp, proxy: Proxy
) -> None:
    """In the order of names, which are read before; four round trips a page."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    fill(app, 2 * PAGE - 1)
    with proxy.counting() as traffic:
        lines = export(Timetable(app))
        assert json.loads(f"{next(lines)}}}").keys() == {"e00000"}
        assert traffic.names.count("HMGET") == PAGE
        exhaust(lines)
    assert traffic.names.count("HMGET") == 2 * PAGE - 1
    # The first page is found at once, and what is in no time is asked for besides.
    assert traffic.round_trips == (1 + 2) + 1 + 2 * 2


def test_what_is_removed_while_it_is_exported_is_left_out(
    client_app: Celery, client: redis.Redis
) -> None:
    """Unlike what has lost its definition: that is told."""
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
        ({"task": "t"}, r"'bad'.*\(1 more are wrong\)"),
        ({"task": "t", "schedule": {"__type__": "crontab", "hour": "25"}}, "'bad'.*25"),
    ],
)
def test_all_of_a_file_is_looked_at_before_anything_is_stored(
    app: Celery, bad: dict[str, Any], expected: str
) -> None:
    """The bad entry is behind several pages of good ones."""
    timetable = Timetable(app)
    good = {f"e{number}": {"task": "t", "schedule": 60} for number in range(2 * PAGE)}
    text = json.dumps({**good, "bad": bad, "worse": 3})
    with pytest.raises(EntryError, match=expected):
        exhaust(backup.Import(read_pieces(text), timetable).differences())
    assert not timetable


def test_a_name_that_no_key_can_hold_is_found_before_anything_is_stored(app: Celery) -> None:
    """Half of a character stands for no byte."""
    text = json.dumps(
        {"good": {"task": "t", "schedule": 60}, "\ud800": {"task": "t", "schedule": 3}}
    )
    with pytest.raises(EntryError, match=r"Entry '\\ud800'"):
        exhaust(backup.Import(read_pieces(text), Timetable(app)).differences())


def test_an_import_costs_what_it_says(make_app_with: MakeApp, proxy: Proxy) -> None:
    """Two round trips a page."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    fill(app, 2 * PAGE)
    timetable = Timetable(app)
    text = "".join(export(timetable))
    with proxy.counting() as traffic:
        incoming = backup.Import(read_pieces(text), timetable)
        assert len(list(incoming.differences())) == 2
    assert len(incoming.names) == 2 * PAGE
    assert traffic.round_trips == 2 * 2
