"""The commands that show entries and their next runs: ``list``, ``show`` and ``upcoming``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, get_args

import click

from ..schedulers import RedBeatSchedulerEntry, encode_json
from ..timetable import Timetable
from ..timetable.agenda import Run
from ..timetable.listings import Listing, State
from .arguments import Moment
from .session import Command, Session, as_json, name_argument, with_session, writable
from .terminal import Console, isoformat, local, rule, to_json

#: How many runs an agenda shows by default.
AGENDA = 20

#: The widest bar of a histogram.
BAR = 50

EMPTY: dict[str, Any] = {"args": [], "kwargs": {}, "options": {}}


@click.command("list", cls=Command)
@click.option("--task", metavar="PATTERN", help="Only these tasks; * matches anything.")
@click.option(
    "--match", metavar="PATTERN", default="*", help="Only these names; * matches anything."
)
@click.option("--state", type=click.Choice(get_args(State)), help="Only entries in this state.")
@click.option("--limit", type=click.IntRange(min=1), help="Show at most this many entries.")
@as_json
@with_session
def list_(
    session: Session,
    task: str | None,
    match: str,
    state: State | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List entries, the next one due first.

    In a pipe, the fields are separated by tabs: name, task, schedule, last run, next run, number of
    runs and state. A narrow terminal shows relative times only; `show` prints them in full.
    """
    found = (
        listing
        for listing in map(writable, _candidates(session.timetable, state, match, task))
        if state in (None, listing.state) and (task is None or listing.has_task(task))
    )
    listings = islice(found, limit)
    if as_json:
        session.console.json(map(_listing_record, listings))
        return
    headings = ("Name", "Task", "Schedule", "Last run", "Next run", "Runs", "State")
    session.console.table(headings, (_listing_row(each, session.console) for each in listings))


def _candidates(
    timetable: Timetable, state: State | None, match: str, task: str | None
) -> Iterator[Listing]:
    """Entries with matching names that may be in this state, without loading all if possible."""
    ranges: dict[str, Callable[[], Iterator[Listing]]] = {
        "overdue": timetable.overdue,
        "finished": timetable.finished,
        "set aside": timetable.set_aside,
    }
    if state not in ranges:
        return timetable.listings(match, task)
    return (listing for listing in ranges[state]() if fnmatchcase(listing.name, match))


def _listing_row(listing: Listing, console: Console) -> tuple[str, ...]:
    now, entry = datetime.now(timezone.utc), listing.entry
    if entry is None:
        return (listing.name, "-", listing.reason, "-", "-", "-", listing.state)
    return (
        listing.name,
        str(entry.task),
        rule(entry.schedule),
        console.moment(_last_run(entry), now),
        console.moment(_next_run(listing), now),
        str(entry.total_run_count),
        listing.state,
    )


def _next_run(listing: Listing) -> datetime | None:
    """When it runs next; ``None`` if it is paused or cannot be read."""
    return None if listing.entry is None or listing.state == "paused" else listing.due_at


def _last_run(entry: RedBeatSchedulerEntry) -> datetime | None:
    """When it last ran; ``None`` for a new entry, whose ``last_run_at`` is when it was made."""
    return entry.last_run_at if entry.total_run_count else None


def _listing_record(listing: Listing) -> dict[str, Any]:
    entry = listing.entry
    record: dict[str, Any] = {
        "name": listing.name,
        "state": listing.state,
        "due_at": isoformat(listing.due_at),
    }
    if listing.reason:
        record["reason"] = listing.reason
    if entry is not None:
        record |= json.loads(entry.encode_definition())
        if entry.encode_zones():
            record["schedule"] = json.loads(encode_json(entry.schedule))
        record |= {
            "last_run_at": isoformat(_last_run(entry)),
            "total_run_count": entry.total_run_count,
        }
    return record


@click.command(cls=Command)
@name_argument
@as_json
@with_session
def show(session: Session, name: str, as_json: bool) -> None:
    """Show everything about one entry."""
    with session.known_names():
        listing = writable(session.timetable.listing(name))
    if as_json:
        click.echo(to_json(_listing_record(listing), indent=2))
        return
    for heading, value in _details(listing):
        session.console.field(heading, value)


def _details(listing: Listing) -> Iterator[tuple[str, str]]:
    now, entry = datetime.now(timezone.utc), listing.entry
    yield "Name", listing.name
    yield "State", listing.state
    if listing.reason:
        yield "Reason", listing.reason
    if entry is not None:
        definition = json.loads(entry.encode_definition())
        yield "Task", str(entry.task)
        for field, empty in EMPTY.items():
            yield field.capitalize(), json.dumps(definition[field] or empty)
        yield "Schedule", rule(entry.schedule)
        yield "Last run", local(_last_run(entry), now)
        yield "Runs", str(entry.total_run_count)
    yield "Next run", local(_next_run(listing), now)
    yield "Key", listing.key


@click.command(cls=Command)
@click.option(
    "--limit", type=click.IntRange(min=1), help=f"Show at most this many runs.  [default: {AGENDA}]"
)
@click.option("--until", type=Moment(), metavar="TIME", help="A time, or a duration such as 2h.")
@click.option(
    "--histogram", is_flag=True, help="Count the runs of each minute, for an hour or --until."
)
@as_json
@with_session
def upcoming(
    session: Session, limit: int | None, until: datetime | None, histogram: bool, as_json: bool
) -> None:
    """Show the next runs in order.

    Lists them, or counts them per minute with --histogram. Paused entries are left out, and nothing
    is written. A time without an offset is in the application's time zone.
    """
    timetable, console = session.timetable, session.console
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=session.app.timezone)
    if histogram and limit is not None:
        raise click.UsageError("--histogram counts every run; omit --limit.")
    if histogram:
        end = until or datetime.now(timezone.utc) + timedelta(hours=1)
        _show_histogram(console, timetable.upcoming(until=end), as_json)
        return
    runs = timetable.upcoming(limit or AGENDA, until)
    if as_json:
        console.json(
            {"due_at": isoformat(run.due_at), "name": run.name, "task": run.entry.task}
            for run in runs
        )
        return
    now = datetime.now(timezone.utc)
    rows = ((local(run.due_at, now), run.name, str(run.entry.task)) for run in runs)
    console.table(("Due", "Name", "Task"), rows)


def _show_histogram(console: Console, runs: Iterable[Run], as_json: bool) -> None:
    counts = Counter(run.due_at.replace(second=0, microsecond=0) for run in runs)
    if as_json:
        console.json(
            {"minute": isoformat(minute), "runs": count} for minute, count in sorted(counts.items())
        )
        return
    most = max(counts.values(), default=1)
    for minute, count in sorted(counts.items()):
        bar = f"  {'█' * max(round(count / most * BAR), 1)}" if console.is_terminal else ""
        separator = "  " if console.is_terminal else "\t"
        click.echo(f"{minute.astimezone():%Y-%m-%d %H:%M %Z}{separator}{count:>6}{bar}".rstrip())
