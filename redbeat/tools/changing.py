"""The commands that change entries or run them: ``add``, ``pause``, ``delete`` and so on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

import click
from celery.beat import SchedulingError
from celery.bin.base import JSON_ARRAY, JSON_OBJECT
from celery.schedules import schedule as interval

from ..errors import EntryError
from ..schedules import once
from ..store.escaping import one_line
from .arguments import Duration, Moment, Zone, read_cron, read_rrule, require_json
from .session import Command, Session, name_argument, names_argument, with_session
from .terminal import counted, in_words, local, rule


@click.command(cls=Command)
@name_argument
@click.argument("task")
@click.option("--every", type=Duration(), metavar="DURATION", help="Repeat: 30s, 1h30m.")
@click.option("--cron", metavar="TEXT", help="Five fields: '*/5 9-17 * * mon-fri'.")
@click.option(
    "--rrule",
    metavar="TEXT",
    help="RFC 5545: 'FREQ=DAILY;BYHOUR=9;BYMINUTE=0;BYSECOND=0', or with DTSTART.",
)
@click.option("--at", type=Moment(), metavar="TIME", help="Once: 2030-12-24T18:00, or 10m.")
@click.option("--tz", type=Zone(), metavar="ZONE", help="Time zone of the times: Europe/Berlin.")
@click.option(
    "--args", type=JSON_ARRAY, callback=require_json, metavar="JSON", help="Arguments: '[1, 2]'."
)
@click.option(
    "--kwargs",
    type=JSON_OBJECT,
    callback=require_json,
    metavar="JSON",
    help="Keyword arguments: '{\"x\": 1}'.",
)
@click.option(
    "--options",
    type=JSON_OBJECT,
    callback=require_json,
    metavar="JSON",
    help='Message options: \'{"queue": "slow"}\'.',
)
@click.option(
    "--paused/--active",
    default=None,
    help="Whether the entry is paused. By default, a new one is active and a replaced one stays "
    "as it was.",
)
@click.option("--replace", is_flag=True, help="Replace an existing entry of this name.")
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
    """Add an entry.

    Exactly one of --every, --cron, --rrule and --at says when it runs. Times without an offset, and
    rules, are in the time zone of --tz, by default that of the application. A rule without DTSTART
    begins now; a list of dates begins with the first of them.
    """
    if not name:
        raise click.BadParameter("the name is empty", param_hint="NAME")
    given = {"--every": every, "--cron": cron, "--rrule": rrule, "--at": at}
    schedule = _read_schedule(given, tz, session.app.timezone)
    timetable = session.timetable
    stays_paused = replace and paused is None and _is_paused(session, name)
    entry = timetable.build(
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
        done = "Replaced" if name in timetable else done
        timetable[name] = entry
    elif not timetable.add(name, entry):
        raise click.ClickException(f"Entry {name!r} already exists; use --replace")
    if stays_paused:
        when = "still paused; use `resume` to run it"
    elif paused:
        when = "paused"
    else:
        when = f"next run {local(timetable.listing(name).due_at, datetime.now(timezone.utc))}"
    session.console.say(f"{done} {name}: {rule(schedule)}, {when}")
    if name in timetable.statics():
        session.console.say(
            f"{name} is in beat_schedule: beat restores that version when it next starts. "
            "Change it in the code."
        )


def _is_paused(session: Session, name: str) -> bool:
    """Whether the entry exists, can be read and is paused."""
    try:
        return not session.timetable[name].enabled
    except (KeyError, EntryError):
        return False


def _read_schedule(given: dict[str, Any], zone: tzinfo | None, app_zone: tzinfo) -> Any:
    """The schedule that the one given option describes."""
    chosen = [(option, value) for option, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise click.UsageError("Use exactly one of --every, --cron, --rrule and --at.")
    ((option, value),) = chosen
    try:
        if option == "--cron":
            return read_cron(value, zone)
        if option == "--rrule":
            return read_rrule(value, zone)
        if option == "--at":
            return _read_once(value if value.tzinfo else value.replace(tzinfo=zone or app_zone))
        if zone is not None:
            raise ValueError("an interval has no time zone; omit --tz")
        return interval(value)
    except (ValueError, OverflowError) as exc:
        raise click.BadParameter(one_line(str(exc)), param_hint=option) from exc


def _read_once(at: datetime) -> once:
    lateness = (datetime.now(timezone.utc) - at).total_seconds()
    # A moment may have passed since a short duration was added to the time of its reading.
    if lateness >= 1:
        raise ValueError(
            f"{at.isoformat(sep=' ', timespec='seconds')} is in the past ({in_words(-lateness)}): "
            "the task would run at once. Use a later time, or a duration from now such as 10m or 1s"
        )
    return once(at)


@click.command(cls=Command)
@names_argument
@with_session
def pause(session: Session, names: Sequence[str]) -> None:
    """Pause entries.

    They are kept, but do not run.
    """
    with session.known_names():
        session.timetable.pause(*names)
    for name in names:
        session.console.say(f"Paused {name}")


@click.command(cls=Command)
@names_argument
@with_session
def resume(session: Session, names: Sequence[str]) -> None:
    """Resume paused entries.

    An entry that missed runs while it was paused runs once, at once; any other waits for its next
    slot.
    """
    with session.known_names():
        session.timetable.resume(*names)
    for name in names:
        session.console.say(f"Resumed {name}")


@click.command(cls=Command)
@name_argument
@with_session
def run(session: Session, name: str) -> None:
    """Send an entry's task now.

    Its schedule does not change.
    """
    with session.known_names():
        session.timetable[name]
    try:
        result = session.timetable.run(name)
    except SchedulingError as exc:
        message = one_line(f"The message could not be sent to the broker: {exc}")
        raise click.ClickException(message) from exc
    session.console.say(f"Sent {name} as {result.id}")


@click.command(cls=Command)
@names_argument
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@with_session
def delete(session: Session, names: Sequence[str], yes: bool) -> None:
    """Remove entries."""
    with session.known_names():
        for name in names:
            session.timetable.listing(name)
    if not yes:
        click.confirm(f"Remove {', '.join(map(one_line, names))}?", abort=True)
    session.timetable.replace([], deleted=names)
    statics = session.timetable.statics()
    returns = (
        ". It is in beat_schedule: beat stores it again when it next starts. Remove it from the "
        "code, or pause it instead."
    )
    for name in names:
        session.console.say(f"Removed {name}{returns if name in statics else ''}")


@click.command(cls=Command)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
@with_session
def prune(session: Session, yes: bool, dry_run: bool) -> None:
    """Remove entries that will never run again.

    These are finished entries, and places in the schedule without a definition. Entries of
    beat_schedule are kept: beat would store them again, and run them again.
    """
    useless = list(session.timetable.prunable())
    if dry_run:
        session.console.table(("Name", "State"), ((each.name, each.state) for each in useless))
        return
    if useless and not yes:
        click.confirm(f"Remove {counted(len(useless), 'entry', 'entries')}?", abort=True)
    with session.progress(useless, len(useless), "Removing") as watched:
        removed = session.timetable.discard(watched)
    session.console.say(f"Removed {counted(len(removed), 'entry', 'entries')}")
