"""The commands ``export`` and ``import``."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

import click

from ..store.escaping import one_line
from ..tools import backup
from .session import Command, Session, named, with_session, writable
from .terminal import Console

#: How to open a file that must not exist yet.
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@click.command(cls=Command)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    metavar="FILE",
    help="Write to this file; it is replaced once everything is written.",
)
@with_session
def export(session: Session, output: str) -> None:
    """Write all entries as JSON Lines.

    There is one entry per line, sorted by name. Each entry comes with what is known of its runs.
    Entries that cannot be read are listed on standard error; the exit code is 1 then.
    """
    unreadable = []
    with _replacing(output) as file:
        for listing in map(writable, session.timetable.listings_by_name()):
            if listing.entry is None:
                unreadable.append(listing)
                continue
            for line in backup.dump([(listing.name, listing.entry)]):
                click.echo(line, file=file, nl=False)
    for each in unreadable:
        click.echo(f"Left out {one_line(each.name)}: {one_line(each.reason)}", err=True)
    if unreadable:
        raise click.exceptions.Exit(1)


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[IO[str]]:
    """A file that replaces the one at ``path`` if the block succeeds.

    ``-``, standard output, and anything that is not a regular file are written directly.
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
        descriptor = os.open(part, NEW_FILE, 0o600)
    except OSError as exc:
        raise click.FileError(path, exc.strerror) from exc
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except OSError as exc:
        raise click.FileError(path, exc.strerror) from exc
    finally:
        part.unlink(missing_ok=True)


@click.command("import", cls=Command)
@click.argument("file", type=click.File(encoding="utf-8-sig"))
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--prune", is_flag=True, help="Remove entries that are not in the file.")
@with_session
def import_(session: Session, file: TextIO, dry_run: bool, prune: bool) -> None:
    """Store the entries of a file written by `export`.

    The file - is standard input. All or nothing: if one entry is bad, nothing changes. Entries that
    already exist keep what is known of their runs.
    """
    try:
        with session.progress(file, _count_lines(file), "Reading") as lines:
            plan = backup.plan_import(lines, session.timetable)
    except UnicodeError as exc:
        raise click.ClickException(one_line(f"{file.name} is not UTF-8: {exc}")) from exc
    removed = backup.find_others(plan.names, session.timetable) if prune else []
    if dry_run:
        _show(session.console, plan, removed)
    else:
        session.timetable.replace(plan.written, deleted=removed)
        if statics := sorted({*plan.changed, *removed} & session.timetable.statics()):
            session.console.say(
                f"In beat_schedule: {named(statics)}. Beat restores them when it next starts. "
                "Change them in the code."
            )
    session.console.say(
        f"{len(plan.added)} added, {len(plan.changed)} changed, {len(removed)} removed, "
        f"{plan.unchanged} unchanged"
    )


def _count_lines(file: TextIO) -> int | None:
    """The number of lines, for the progress bar; ``None`` for a pipe."""
    if not file.seekable():
        return None
    start = file.tell()
    count = sum(1 for _ in file)
    file.seek(start)
    return count


def _show(console: Console, plan: backup.Plan, removed: list[str]) -> None:
    for name in plan.added:
        console.say(f"+ {name}", fg="green")
    for name, differences in plan.differences.items():
        console.say(f"~ {name}", fg="yellow")
        for field, (old, new) in differences.items():
            console.say(f"    {field}: {old} -> {new}")
    for name in removed:
        console.say(f"- {name}", fg="red")
