"""`celery -A proj redbeat`: the timetable on the command line.

Exit codes: 0, all is well; 1, it is not so (no such entry, nothing leads, something is overdue); 2,
the command was not understood; 3, Redis cannot be reached, or refuses to serve.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace as changed
from datetime import datetime, timedelta, timezone, tzinfo
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property, update_wrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any, TextIO, get_args

import click
from celery.app.utils import find_app
from celery.beat import SchedulingError
from celery.bin.base import CeleryCommand, handle_preload_options
from celery.schedules import schedule as interval
from click.shell_completion import CompletionItem

from ..beat.holder import Holder
from ..beat.reports import DELAY_MINUTES, REPORT_INTERVAL, Report
from ..beat.settings import application_name
from ..errors import EntryError, SettingError
from ..schedulers import (
    REDBEAT_REDIS_KEY,
    RedBeatSchedulerEntry,
    encode_json,
    ensure_conf,
    get_redis,
    get_storage,
    require_known_options,
)
from ..schedules import once
from ..store.escaping import one_line
from ..store.retrying import direct
from ..store.storage import REDIS_ERRORS
from ..store.urls import sanitized
from ..timetable import Listing, Run, State, Timetable, is_too_late
from ..tools import backup
from .arguments import Duration, Json, Moment, Zone, read_cron, read_rrule
from .backup import Difference
from .terminal import (
    Console,
    counted,
    distance,
    duration,
    in_words,
    local,
    rule,
    to_json,
)

#: Names that are searched for one that is near to what was typed.
NEAR_NAMES = 10_000

#: Names that a shell is offered for completion.
COMPLETIONS = 50

#: Entries that `check` looks at to find those that cannot run, and how many it names.
LOOKED_AT = 500
NAMED = 3

#: Runs that an agenda shows by itself.
AGENDA = 20

#: The widest bar of a histogram.
BAR = 50

STATES = get_args(State)

ARRAY = Json(list, "'[1, 2]'")
OBJECT = Json(dict, "'{\"x\": 1}'")

EMPTY: dict[str, Any] = {"args": [], "kwargs": {}, "options": {}}


class UnreachableError(click.ClickException):
    """Redis cannot be reached, or refuses to serve."""

    exit_code = 3


class BadSettingError(click.ClickException):
    """The application's settings do not let the schedule be found."""

    exit_code = 2


def _unreachable(app: Any, exc: Exception) -> UnreachableError:
    return UnreachableError(
        one_line(f"Redis at {sanitized(ensure_conf(app).redis_url)} does not serve: {exc}")
    )


def _hint_at_application(ctx: click.Context) -> str:
    """What to say first if a setting is wrong and no application was named."""
    is_named = ctx.find_root().params.get("app") is not None
    return "" if is_named else "No application is named (celery -A proj redbeat ...). "


class Command(CeleryCommand):  # type: ignore[misc]  # Celery has no types
    """A command whose errors are told in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except REDIS_ERRORS as exc:
            raise _unreachable(ctx.obj.app, exc) from exc
        except SettingError as exc:
            raise BadSettingError(_hint_at_application(ctx) + exc.message) from exc
        except EntryError as exc:
            raise click.ClickException(one_line(str(exc))) from exc
        except click.UsageError as exc:
            if exc.message.isprintable():
                raise
            raise click.UsageError(one_line(exc.format_message()), exc.ctx) from exc
        except click.ClickException as exc:
            if exc.message.isprintable() or isinstance(exc, UnreachableError):
                raise
            raise click.ClickException(one_line(exc.message)) from exc
        except OSError as exc:
            # Others, as that of a reader who has seen enough, click knows how to end with.
            if exc.errno != errno.ENOSPC:
                raise
            _forget_output()
            raise click.ClickException(f"The output is cut off: {exc.strerror}") from exc


def _forget_output() -> None:
    """Let Python write what it still holds to nowhere when it ends, for it would fail again.

    The way of https://docs.python.org/3/library/signal.html#note-on-sigpipe.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class Session:
    """What every command has: the application's timetable and a console."""

    def __init__(self, ctx: click.Context) -> None:
        self.app = ctx.obj.app
        self.console = Console(ctx.obj.no_color)
        self.timetable = Timetable(_without_retries(self.app))
        require_known_options(self.app)

    @cached_property
    def next_listings(self) -> list[Listing]:
        """The entries that are due next: a probe must not read a whole schedule."""
        return list(islice(self.timetable.listings(), LOOKED_AT))

    @contextlib.contextmanager
    def known_names(self) -> Iterator[None]:
        """A name in this block that no entry has ends the command, with near ones."""
        try:
            yield
        except KeyError as exc:
            raise self.unknown(exc.args[0]) from None

    def unknown(self, name: str) -> click.ClickException:
        """That there is no such entry, and which there are."""
        if not name:
            return click.ClickException("An entry has a name, and this one is empty.")
        near = get_close_matches(name, islice(self.timetable, NEAR_NAMES), n=3)
        if name in near:
            return click.ClickException(
                f"Of the entry {name} only the place in the schedule is left: its hash "
                "is gone. `delete` removes the rest."
            )
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        return click.ClickException(f"There is no entry {name}.{hint}")


def _without_retries(app: Any) -> Any:
    """The application, with a client that tells of an outage at once."""
    setattr(app, REDBEAT_REDIS_KEY, direct(get_redis(app)))
    return app


def _complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names in the schedule that begin so; none if it cannot be read."""
    try:
        timetable = Timetable(_without_retries(find_app(ctx.find_root().params["app"])))
        # A shell takes them line by line.
        printable = filter(str.isprintable, timetable)
        names = (name for name in printable if name.startswith(incomplete))
        return [CompletionItem(name) for name in islice(names, COMPLETIONS)]
    except Exception:
        # A shell that waits for words has no use for an error.
        return []


def _name_argument(**attributes: Any) -> Callable[..., Any]:
    return click.argument("name", metavar="NAME", shell_complete=_complete_name, **attributes)


def _names_argument() -> Callable[..., Any]:
    return click.argument(
        "names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete_name
    )


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
@click.pass_context
@handle_preload_options  # type: ignore[untyped-decorator]  # Celery has no types
def redbeat(ctx: click.Context, **kwargs: Any) -> None:
    """See and steer the schedule that redbeat keeps in Redis.

    Needs no running beat. Exit codes: 0 all is well, 1 it is not so, 2 the command was not
    understood, 3 Redis cannot be reached, or refuses to serve.
    """


def with_session(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a command its session."""

    @click.pass_context
    def call(ctx: click.Context, /, **parameters: Any) -> Any:
        return function(Session(ctx), **parameters)

    return update_wrapper(call, function)


# Looking


@redbeat.command("list", cls=Command)
@click.option("--task", metavar="PATTERN", help="Only these tasks; * stands for anything.")
@click.option(
    "--match", metavar="PATTERN", default="*", help="Only these names; * stands for anything."
)
@click.option("--state", type=click.Choice(STATES), help="Only entries in this state.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many entries.")
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
    """List the entries, the next one due first.

    In a pipe: name, task, schedule, last run, next run, runs and state, separated by tabs. On a
    narrow terminal, times are in words only: `show` tells them in full.
    """
    found = (
        listing
        for listing in map(_writable, _candidates(session.timetable, state, match, task))
        if _matches(listing, task, state)
    )
    listings = islice(found, limit)
    if as_json:
        session.console.json(map(_listing_record, listings))
        return
    headings = ("Name", "Task", "Schedule", "Last run", "Next run", "Runs", "State")
    rows = (_listing_row(listing, session.console.moment) for listing in listings)
    session.console.table(headings, rows)


def _candidates(
    timetable: Timetable, state: State | None, match: str, task: str | None
) -> Iterator[Listing]:
    """The entries of such names that may be in this state; others are loaded only if need be."""
    ranges: dict[str, Callable[[], Iterator[Listing]]] = {
        "overdue": timetable.overdue,
        "finished": timetable.finished,
        "set aside": timetable.set_aside,
    }
    if state not in ranges:
        return timetable.listings(match, task)
    return (listing for listing in ranges[state]() if fnmatchcase(listing.name, match))


def _writable(listing: Listing) -> Listing:
    """The listing; as one that cannot be read if it cannot be written in its turn."""
    reason = "" if listing.entry is None else backup.why_unwritable(listing.entry)
    return changed(listing, state="broken", entry=None, reason=reason) if reason else listing


def _matches(listing: Listing, task: str | None, state: State | None) -> bool:
    return (state is None or listing.state == state) and (
        task is None or (listing.entry is not None and fnmatchcase(str(listing.entry.task), task))
    )


def _listing_row(listing: Listing, tell: Callable[..., str]) -> tuple[str, ...]:
    now = datetime.now(timezone.utc)
    entry = listing.entry
    if entry is None:
        return (listing.name, "-", listing.reason, "-", "-", "-", listing.state)
    return (
        listing.name,
        str(entry.task),
        rule(entry.schedule),
        tell(_ran_at(entry), now),
        tell(_next_run(listing), now),
        str(entry.total_run_count),
        listing.state,
    )


def _next_run(listing: Listing) -> datetime | None:
    """When it runs next; what is paused, or cannot be read, does not."""
    return None if listing.entry is None or listing.state == "paused" else listing.due_at


def _ran_at(entry: RedBeatSchedulerEntry) -> datetime | None:
    """The last run; a new entry bears the time at which it was made in its place."""
    return entry.last_run_at if entry.total_run_count else None


def _listing_record(listing: Listing) -> dict[str, Any]:
    entry = listing.entry
    record: dict[str, Any] = {
        "name": listing.name,
        "state": listing.state,
        "due_at": _iso(listing.due_at),
    }
    if listing.reason:
        record["reason"] = listing.reason
    if entry is not None:
        record |= json.loads(entry.encode_definition())
        if entry.encode_zones():
            record["schedule"] = json.loads(encode_json(entry.schedule))
        record |= {
            "last_run_at": _iso(_ran_at(entry)),
            "total_run_count": entry.total_run_count,
        }
    return record


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


@redbeat.command(cls=Command)
@_name_argument()
@as_json
@with_session
def show(session: Session, name: str, as_json: bool) -> None:
    """Show one entry, readable or not."""
    with session.known_names():
        listing = _writable(session.timetable.listing(name))
    if as_json:
        click.echo(to_json(_listing_record(listing), indent=2))
        return
    for heading, value in _details(listing):
        session.console.field(heading, value)


def _details(listing: Listing) -> Iterator[tuple[str, str]]:
    now = datetime.now(timezone.utc)
    yield "Name", listing.name
    yield "State", listing.state
    if listing.reason:
        yield "Reason", listing.reason
    entry = listing.entry
    if entry is not None:
        definition = json.loads(entry.encode_definition())
        yield "Task", str(entry.task)
        for field in ("args", "kwargs", "options"):
            yield field.capitalize(), json.dumps(definition[field] or EMPTY[field])
        yield "Schedule", rule(entry.schedule)
        yield "Last run", local(_ran_at(entry), now)
        yield "Runs", str(entry.total_run_count)
    yield "Next run", local(_next_run(listing), now)
    yield "Key", listing.key


@redbeat.command(cls=Command)
@click.option("--limit", type=click.IntRange(min=1), help=f"So many runs.  [default: {AGENDA}]")
@click.option("--until", type=Moment(), metavar="TIME", help="A time, or a duration like 2h.")
@click.option(
    "--histogram", is_flag=True, help="Count the runs of each minute, for an hour or --until."
)
@as_json
@with_session
def upcoming(
    session: Session, limit: int | None, until: datetime | None, histogram: bool, as_json: bool
) -> None:
    """Show the runs to come, in order.

    An agenda, or with --histogram how many runs there are each minute. A preview; nothing is
    written. Paused entries are left out. A time without an offset is in the application's zone.
    """
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=session.app.timezone)
    if histogram and limit is not None:
        raise click.UsageError("A histogram counts all runs: leave --limit out.")
    if histogram:
        end = until or datetime.now(timezone.utc) + timedelta(hours=1)
        _show_histogram(session.console, session.timetable.upcoming(until=end), as_json)
        return
    runs = session.timetable.upcoming(limit or AGENDA, until)
    if as_json:
        session.console.json(map(_run_record, runs))
        return
    session.console.table(("Due", "Name", "Task"), map(_run_row, runs))


def _run_row(run: Run) -> tuple[str, ...]:
    return local(run.due_at, datetime.now(timezone.utc)), run.name, str(run.entry.task)


def _run_record(run: Run) -> dict[str, Any]:
    return {"due_at": _iso(run.due_at), "name": run.name, "task": run.entry.task}


def _show_histogram(console: Console, runs: Iterable[Run], as_json: bool) -> None:
    counts = Counter(run.due_at.replace(second=0, microsecond=0) for run in runs)
    if as_json:
        console.json({"minute": _iso(minute), "runs": counts[minute]} for minute in sorted(counts))
        return
    most = max(counts.values(), default=1)
    for minute in sorted(counts):
        count = counts[minute]
        bar = f"  {'█' * max(round(count / most * BAR), 1)}" if console.is_terminal else ""
        separator = "  " if console.is_terminal else "\t"
        click.echo(f"{minute.astimezone():%Y-%m-%d %H:%M %Z}{separator}{count:>6}{bar}".rstrip())


# Changing


@redbeat.command(cls=Command)
@_name_argument()
@click.argument("task")
@click.option("--every", type=Duration(), metavar="DURATION", help="Again and again: 30s, 1h30m.")
@click.option("--cron", metavar="TEXT", help="Five fields: '*/5 9-17 * * mon-fri'.")
@click.option(
    "--rrule",
    metavar="TEXT",
    help="RFC 5545: 'FREQ=DAILY;BYHOUR=9;BYMINUTE=0;BYSECOND=0', or with DTSTART.",
)
@click.option("--at", type=Moment(), metavar="TIME", help="Once: 2030-12-24T18:00, or 10m.")
@click.option("--tz", type=Zone(), metavar="ZONE", help="The zone of the times: Europe/Berlin.")
@click.option("--args", type=ARRAY, metavar="JSON", help="Arguments: '[1, 2]'.")
@click.option("--kwargs", type=OBJECT, metavar="JSON", help="Keywords: '{\"x\": 1}'.")
@click.option(
    "--options", type=OBJECT, metavar="JSON", help='Of the message: \'{"queue": "slow"}\'.'
)
@click.option(
    "--paused/--active",
    default=None,
    help="Store it paused, or not. By default a new entry is not, a replaced one stays as it was.",
)
@click.option("--replace", is_flag=True, help="Take the place of an entry of this name.")
@with_session
def add(
    session: Session,
    name: str,
    task: str,
    every: timedelta | None,
    cron: str | None,
    rrule: str | None,
    at: datetime | None,
    tz: tzinfo | None,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    options: dict[str, Any] | None,
    paused: bool | None,
    replace: bool,
) -> None:
    """Add an entry: one of --every, --cron, --rrule and --at says when.

    A time without an offset is in --tz, else in the application's zone. So is a rule, which begins
    now if it has no DTSTART; dates without a rule begin with the first of them.
    """
    if not name:
        raise click.BadParameter("an entry needs a name, and this one is empty", param_hint="NAME")
    given = {"--every": every, "--cron": cron, "--rrule": rrule, "--at": at}
    schedule = _read_schedule(given, tz, session.app.timezone)
    stays_paused = replace and paused is None and _is_paused(session.timetable, name)
    entry = session.timetable.build(
        name,
        {
            "task": task,
            "schedule": schedule,
            "args": args,
            "kwargs": kwargs,
            "options": options,
            "enabled": not (paused or stays_paused),
        },
    )
    done = "Added"
    if replace:
        done = "Replaced" if name in session.timetable else done
        session.timetable[name] = entry
    elif not session.timetable.add(name, entry):
        raise click.ClickException(f"There is an entry {name} already. --replace takes its place.")
    due_at = session.timetable.listing(name).due_at
    now = datetime.now(timezone.utc)
    when = "paused" if paused else f"next run {local(due_at, now)}"
    if stays_paused:
        when = "still paused; `resume` lets it run"
    session.console.say(f"{done} {name}: {rule(schedule)}, {when}")
    if name in session.timetable.statics():
        session.console.say(
            f"{name} is in beat_schedule: when beat next starts, it takes the entry from "
            "there again. Change it in the code."
        )


def _is_paused(timetable: Timetable, name: str) -> bool:
    """Whether there is such an entry, and it is paused; one that cannot be read is not."""
    try:
        return not timetable[name].enabled
    except (KeyError, EntryError):
        return False


def _read_schedule(given: dict[str, Any], zone: tzinfo | None, app_zone: tzinfo) -> Any:
    chosen = [(option, value) for option, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise click.UsageError("Give exactly one of --every, --cron, --rrule and --at.")
    ((option, value),) = chosen
    try:
        return _SCHEDULES[option](value, zone, app_zone)
    except (ValueError, OverflowError) as exc:
        raise click.BadParameter(str(exc), param_hint=option) from exc


def _every(value: timedelta, zone: tzinfo | None, app_zone: tzinfo) -> Any:
    if zone is not None:
        raise ValueError("an interval has no zone; leave --tz out")
    return interval(value)


def _at(value: datetime, zone: tzinfo | None, app_zone: tzinfo) -> Any:
    at = value if value.tzinfo else value.replace(tzinfo=zone or app_zone)
    lateness = (datetime.now(timezone.utc) - at).total_seconds()
    # As long may pass since a duration was counted from now on.
    if lateness >= 1:
        raise ValueError(
            f"{at.isoformat(sep=' ', timespec='seconds')} has passed, {in_words(-lateness)}: the "
            "task would run at once. Give a time to come, or a duration from now on: 10m, or 1s"
        )
    return once(at)


_SCHEDULES: dict[str, Callable[[Any, tzinfo | None, tzinfo], Any]] = {
    "--every": _every,
    "--cron": lambda value, zone, app_zone: read_cron(value, zone),
    "--rrule": lambda value, zone, app_zone: read_rrule(value, zone),
    "--at": _at,
}


@redbeat.command(cls=Command)
@_names_argument()
@with_session
def pause(session: Session, names: Sequence[str]) -> None:
    """Pause entries: they stay, and do not run."""
    with session.known_names():
        session.timetable.pause(*names)
    for name in names:
        session.console.say(f"Paused {name}")


@redbeat.command(cls=Command)
@_names_argument()
@with_session
def resume(session: Session, names: Sequence[str]) -> None:
    """Resume paused entries.

    One that missed a run while it was paused makes it up, once and at once; any other runs at its
    next slot.
    """
    with session.known_names():
        session.timetable.resume(*names)
    for name in names:
        session.console.say(f"Resumed {name}")


@redbeat.command(cls=Command)
@_name_argument()
@with_session
def run(session: Session, name: str) -> None:
    """Send an entry's task now.

    Out of turn: its timetable stays as it is.
    """
    with session.known_names():
        session.timetable[name]
    try:
        result = session.timetable.run(name)
    except SchedulingError as exc:
        raise click.ClickException(f"The message was not sent to the broker: {exc}") from exc
    session.console.say(f"Sent {name} as {result.id}")


@redbeat.command(cls=Command)
@_names_argument()
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def delete(session: Session, names: Sequence[str], yes: bool) -> None:
    """Remove entries for good."""
    with session.known_names():
        for name in names:
            session.timetable.listing(name)
    if not yes:
        shown = ", ".join(map(one_line, names))
        click.confirm(f"Remove {shown}?", abort=True)
    session.timetable.replace([], deleted=names)
    statics = session.timetable.statics()
    returns = (
        ": it is in beat_schedule, and beat stores it again when it next starts. Take it out of "
        "the code, or pause it instead"
    )
    for name in names:
        session.console.say(f"Removed {name}{returns if name in statics else ''}")


@redbeat.command(cls=Command)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only print what would go.")
@with_session
def prune(session: Session, yes: bool, dry_run: bool) -> None:
    """Remove entries with nothing left to run.

    And what has no definition any more. Entries of beat_schedule stay: beat would store them anew,
    and run them again.
    """
    useless = list(session.timetable.prunable())
    if dry_run:
        session.console.table(("Name", "State"), ((each.name, each.state) for each in useless))
        return
    if useless and not yes:
        click.confirm(f"Remove {counted(len(useless), 'entry', 'entries')}?", abort=True)
    with _progress(session, useless, len(useless), "Removing") as watched:
        removed = session.timetable.discard(watched)
    session.console.say(f"Removed {counted(len(removed), 'entry', 'entries')}")


def _progress(session: Session, items: Iterable[Any], length: int | None, label: str) -> Any:
    """A progress bar, on a terminal only."""
    if not session.console.is_terminal:
        return contextlib.nullcontext(items)
    return click.progressbar(items, length=length, label=label)


# Backing up


@redbeat.command(cls=Command)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    metavar="FILE",
    help="Write to this file; what it held goes when all is written.",
)
@with_session
def export(session: Session, output: str) -> None:
    """Write all entries as JSON.

    In the order of names, with what is known of their runs. Entries that cannot be read are named
    on the error output; the exit code is 1 then.
    """
    unreadable: list[Listing] = []
    with _written_whole(output) as file:
        for text in backup.dump(_readable(session.timetable.listings_by_name(), unreadable)):
            click.echo(text, file=file, nl=False)
    for each in unreadable:
        click.echo(f"Left out {one_line(each.name)}: {one_line(each.reason)}", err=True)
    if unreadable:
        raise click.exceptions.Exit(1)


def _readable(
    listings: Iterable[Listing], unreadable: list[Listing]
) -> Iterator[tuple[str, RedBeatSchedulerEntry]]:
    """Names and entries; what cannot be read is put aside."""
    for listing in map(_writable, listings):
        if listing.entry is None:
            unreadable.append(listing)
        else:
            yield listing.name, listing.entry


#: How a file is opened that must not be there.
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@contextlib.contextmanager
def _written_whole(path: str) -> Iterator[IO[str]]:
    """A file that takes the place of the one at ``path`` if this block ends well.

    ``-`` is the standard output, which is written as it comes; so is what is no regular file.
    """
    given = Path(path)
    if path == "-" or (given.exists() and not given.is_file()):
        with click.open_file(path, "w", encoding="utf-8") as stream:
            yield stream
        return
    target = given.resolve()
    part = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        # Arguments of tasks may be secret.
        with os.fdopen(os.open(part, NEW_FILE, 0o600), "w", encoding="utf-8") as file:
            yield file
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except OSError as exc:
        raise click.FileError(path, exc.strerror) from exc
    finally:
        part.unlink(missing_ok=True)


@redbeat.command("import", cls=Command)
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--dry-run", is_flag=True, help="Print the difference, and change nothing.")
@click.option("--prune", is_flag=True, help="Remove the entries that the file lacks.")
@with_session
def import_(session: Session, file: TextIO, dry_run: bool, prune: bool) -> None:
    """Store the entries of a file.

    It is one that `export` wrote; - is the standard input. All or nothing: with one bad entry,
    nothing changes. Entries that are stored keep what is known of their runs.
    """
    try:
        names, differences = _read(session, file)
    except UnicodeError as exc:
        raise click.ClickException(f"{file.name} is no UTF-8: {exc}") from exc
    removed = backup.find_others(names, session.timetable) if prune else []
    if dry_run:
        for difference in [*differences, Difference(removed=removed)]:
            _show(session.console, difference)
    else:
        written = [entry for difference in differences for entry in difference.written]
        session.timetable.replace(written, deleted=removed)
        _warn_of_statics(session, differences, removed)
    counts = sum((difference.counts for difference in differences), Counter[str]())
    session.console.say(
        f"{counts['added']} added, {counts['changed']} changed, {len(removed)} removed, "
        f"{counts['same']} as they were"
    )


def _warn_of_statics(
    session: Session, differences: Iterable[Difference], removed: Iterable[str]
) -> None:
    """Say which changes will not last."""
    touched = {name for difference in differences for name in difference.changed} | {*removed}
    if statics := sorted(touched & session.timetable.statics()):
        session.console.say(
            f"In beat_schedule: {_named(statics)}. When beat next starts, it takes them from there "
            "again. Change them in the code."
        )


def _read(session: Session, file: TextIO) -> tuple[set[str], list[Difference]]:
    """The names in a file, and what storing its entries would change."""
    pieces = backup.read_pieces(file)
    with _progress(session, pieces, _count_pieces(file), "Reading") as watched:
        incoming = backup.Import(watched, session.timetable)
        differences = list(incoming.differences())
    return incoming.names, differences


def _count_pieces(file: TextIO) -> int | None:
    """How many there are at the most; nobody knows what comes through a pipe."""
    if not file.seekable():
        return None
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size // backup.PIECE + 1


def _show(console: Console, difference: Difference) -> None:
    for name in difference.added:
        console.say(f"+ {name}", fg="green")
    for name, (_, fields) in difference.changed.items():
        console.say(f"~ {name}", fg="yellow")
        for field, (old, new) in fields.items():
            console.say(f"    {field}: {old} -> {new}")
    for name in difference.removed:
        console.say(f"- {name}", fg="red")


# Health


@redbeat.command(cls=Command)
@click.option("--watch", is_flag=True, help="Print it again and again, until Ctrl-C.")
@click.option(
    "--interval", type=Duration(), default="2s", show_default=True, help="Pause of --watch."
)
@as_json
@with_session
def status(session: Session, watch: bool, interval: timedelta, as_json: bool) -> None:
    """Show who leads, and how late entries run."""
    if not watch:
        _show_status(session, as_json)
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            _watch_once(session, as_json)
            time.sleep(interval.total_seconds())


def _watch_once(session: Session, as_json: bool) -> None:
    """An outage is told like the rest: who watches waits for its end."""
    if session.console.is_terminal:
        click.clear()
    try:
        _show_status(session, as_json)
    except REDIS_ERRORS as exc:
        _unreachable(session.app, exc).show()


def _show_status(session: Session, as_json: bool) -> None:
    record = _status_record(session)
    if as_json:
        click.echo(to_json(record))
        return
    console = session.console
    for heading, value in _status_lines(record):
        console.field(heading, value)


def _status_record(session: Session) -> dict[str, Any]:
    conf, timetable = ensure_conf(session.app), session.timetable
    leader = timetable.leader()
    overdue = timetable.longest_overdue()
    counts: dict[str, int] = {"total": len(timetable)} | dict(timetable.counts())
    return {
        "redis": sanitized(conf.redis_url),
        "lock": conf.lock_key,
        "leader": _leader_record(leader),
        "application": application_name(session.app) or None,
        "entries": counts,
        "failing": [listing.name for listing in timetable.failing()],
        "overdue_for": max(time.time() - overdue.score, 0.0) if overdue else 0.0,
        "beats": {
            name: {
                "version": report.version,
                "runs": report.runs,
                "failures": report.failures,
                "worst_delay": report.worst_delay,
                "since": _iso(datetime.fromtimestamp(report.since, timezone.utc)),
                "at": _iso(datetime.fromtimestamp(report.at, timezone.utc)),
            }
            for name, report in _reports(session).items()
        },
    }


def _reports(session: Session) -> dict[str, Report]:
    """What beats report; says on the error output if they may not be read."""
    reports = session.timetable.reports()
    if _lacks_reports(session):
        click.echo(
            "The reports of beats are left out: this user of Redis may not run HGETALL. Allow it "
            "in the ACL.",
            err=True,
        )
    return reports


def _lacks_reports(session: Session) -> bool:
    return "HGETALL" in get_storage(session.app).refused


def _leader_record(leader: Holder | None) -> dict[str, Any] | None:
    if leader is None:
        return None
    return {
        "host": leader.host or None,
        "pid": leader.pid or None,
        "since": _iso(leader.since),
        "silence": leader.silence,
        "is_alive": leader.is_alive,
        "application": leader.application or None,
    }


def _status_lines(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Redis", record["redis"]
    yield "Leader", _leader_line(record)
    counts = record["entries"]
    yield (
        "Entries",
        f"{counts['total']} ({counts['waiting']} waiting or paused, {counts['overdue']} overdue, "
        f"{counts['finished']} finished, {counts['set aside']} set aside)",
    )
    yield "Overdue", _overdue_line(record)
    if record["failing"]:
        yield "Failing", _named(record["failing"])
    for name, beat in record["beats"].items():
        yield (
            "Beat",
            f"{name}, version {beat['version']}, {counted(beat['runs'], 'run', 'runs')}, "
            f"{counted(beat['failures'], 'failure', 'failures')}, "
            f"worst delay {duration(beat['worst_delay'])} in {DELAY_MINUTES} minutes, "
            f"as told {distance(datetime.fromisoformat(beat['at']), datetime.now(timezone.utc))}",
        )


def _overdue_line(record: dict[str, Any]) -> str:
    if record["overdue_for"]:
        return f"for {duration(record['overdue_for'])}"
    return "what is to run at once" if record["entries"]["overdue"] else "nothing"


def _leader_line(record: dict[str, Any]) -> str:
    leader = record["leader"]
    if record["lock"] is None:
        return "none, beats share the work (redbeat_lock_key is None)"
    if leader is None:
        return "none; a beat that stands by leads within a second or two, if there is one"
    if leader["host"] is None or leader["since"] is None:
        return "a beat that does not say who it is, as celery-redbeat 2.x"
    now = datetime.now(timezone.utc)
    since = local(datetime.fromisoformat(leader["since"]), now)
    names = {name for name in (leader["application"], record["application"]) if name}
    if len(names) > 1:
        since += f", of another application, {leader['application']!r}"
    if leader["silence"] is None:
        return f"{leader['host']} (pid {leader['pid']}), since {since}"
    sign = f"last sign of life {duration(leader['silence'])} ago"
    dead = "" if leader["is_alive"] else "; a beat that stands by takes over, if there is one"
    return f"{leader['host']} (pid {leader['pid']}), since {since}, {sign}{dead}"


#: What `check` looks for, by the names under which it can be ignored.
TROUBLES: dict[str, Callable[[Session, float], str]] = {
    "leader": lambda session, max_delay: _leaderless(session),
    "application": lambda session, max_delay: _led_by_another(session),
    "lost": lambda session, max_delay: _lost(session),
    "overdue": lambda session, max_delay: _overdue(session, max_delay),
    "failing": lambda session, max_delay: _failing(session),
    "set-aside": lambda session, max_delay: _set_aside(session),
    "broken": lambda session, max_delay: _broken(session),
    "late": lambda session, max_delay: _late(session, max_delay),
}


@redbeat.command(cls=Command)
@click.option(
    "--max-delay",
    type=Duration(),
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="How late an entry may be.",
)
@click.option(
    "--ignore",
    "ignored",
    type=click.Choice(list(TROUBLES)),
    multiple=True,
    help="Do not look for this; may be given several times.",
)
@with_session
def check(session: Session, max_delay: timedelta, ignored: Sequence[str]) -> None:
    """Tell by the exit code whether all is well.

    For probes: 0, or 1 with the reasons in one line. A leader must be alive and of this
    application, the schedule not lost in the last five minutes, nothing overdue by more than
    --max-delay, no entry set aside, none whose last run failed, and none of the next 500
    unreadable, or due later than its schedule allows by more than --max-delay. Paused entries do
    not count. Needs no beat on this host.
    """
    seconds = max_delay.total_seconds()
    found = (look(session, seconds) for name, look in TROUBLES.items() if name not in ignored)
    if troubles := [trouble for trouble in found if trouble]:
        raise click.ClickException("; ".join(troubles))
    delays = [report.worst_delay for report in _reports(session).values()]
    worst = duration(max(delays)) if delays else "not known before a beat has told of its runs"
    session.console.say(f"All is well; worst delay in {DELAY_MINUTES} minutes: {worst}")


def _overdue(session: Session, max_delay: float) -> str:
    overdue = session.timetable.longest_overdue()
    delay = time.time() - overdue.score if overdue else 0.0
    if overdue is not None and delay > max_delay:
        return f"{overdue.key} is overdue by {duration(delay)}"
    return ""


def _lost(session: Session) -> str:
    lost_at = session.timetable.lost_at()
    if lost_at is None:
        return ""
    ago = duration(max(time.time() - lost_at.timestamp(), 0.0))
    return f"Redis lost the schedule {ago} ago: save the entries of your programs again"


def _failing(session: Session) -> str:
    names = [listing.name for listing in session.timetable.failing()]
    return f"the last run failed of {_named(names)}" if names else ""


def _set_aside(session: Session) -> str:
    """Looks at a page of them, and counts the others."""
    found = list(islice(session.timetable.set_aside(), LOOKED_AT))
    names = [each.name for each in found if each.entry is None or each.entry.enabled]
    others = session.timetable.counts()["set aside"] - LOOKED_AT if len(found) == LOOKED_AT else 0
    return f"set aside, since they cannot run: {_named(names, others)}" if names else ""


def _broken(session: Session) -> str:
    names = [each.name for each in session.next_listings if each.state == "broken"]
    return f"cannot be read: {_named(names)}" if names else ""


def _late(session: Session, max_delay: float) -> str:
    """As those that ran while the clock of a host was ahead, and are silent until that time."""
    slack = timedelta(seconds=max_delay)
    names = [each.name for each in session.next_listings if is_too_late(each, slack)]
    return f"due later than their schedules allow: {_named(names)}" if names else ""


def _named(names: Sequence[str], others: int = 0) -> str:
    """The first names, and how many more there are beside the ``others``."""
    more = len(names) - NAMED + others
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _led_by_another(session: Session) -> str:
    leader, own = session.timetable.leader(), application_name(session.app)
    if leader is None or not leader.is_of_other(own):
        return ""
    return (
        f"the application {leader.application!r} leads, at {leader.name}, and not {own!r}, whose "
        "beat_schedule does not run: give each a redbeat_key_prefix of its own"
    )


def _leaderless(session: Session) -> str:
    conf = ensure_conf(session.app)
    if conf.lock_key is None:
        now, patience = time.time(), REPORT_INTERVAL + conf.failover_timeout
        reports = session.timetable.reports().values()
        if any(report.is_fresh(now, patience) for report in reports):
            return ""
        if _lacks_reports(session):
            return (
                "whether a beat lives is not known: this user of Redis may not run HGETALL. Allow "
                "it in the ACL"
            )
        return f"no beat gave a sign of life in the last {duration(patience)}"
    leader = session.timetable.leader()
    if leader is None:
        return "no beat leads"
    if not leader.is_alive:
        assert leader.silence is not None
        return f"the leader {leader.name} gave no sign of life for {duration(leader.silence)}"
    return ""
