"""What the command line prints: words for times and schedules, tables, JSON.

A terminal gets columns and colours; a pipe gets one record a line, its fields separated by tabs.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any

import celery.schedules
import click

from ..schedules import CRON_FIELDS, once, rrule, rruleset
from ..store.escaping import one_line, printable_json
from ..timing.instants import as_utc

#: How many rows determine the widths of a table's columns: the first page must not wait.
SAMPLE = 200

#: The widest column, unless it is the last one.
WIDEST = 40

#: Columns that are cut so that a table fits, and the narrowest that they become.
FREE_TEXT = ("Name", "Task", "Schedule")
NARROWEST = 8

#: How wide a terminal must be for dates beside relative times.
ROOMY = 160

COLORS = {
    "waiting": "green",
    "overdue": "yellow",
    "paused": "cyan",
    "finished": "bright_black",
    "set aside": "red",
    "broken": "red",
    "gone": "red",
}

STEPS = (("day", 86400), ("hour", 3600), ("minute", 60))
UNITS = {"d": 86400, "h": 3600, "min": 60}


def counted(count: int, noun: str, nouns: str) -> str:
    """A number of things: ``1 entry``, ``2 entries``."""
    return f"{count} {noun if count == 1 else nouns}"


def in_words(seconds: float) -> str:
    """A relative time: ``in 5 minutes``, ``3 days ago``, ``now``."""
    amount = abs(seconds)
    if amount < 1:
        return "now"
    unit, length = next((step for step in STEPS if amount >= step[1]), ("second", 1))
    words = counted(round(amount / length), unit, f"{unit}s")
    return f"in {words}" if seconds > 0 else f"{words} ago"


def distance(moment: datetime | None, now: datetime) -> str:
    """A moment as a relative time; naive: UTC."""
    return "-" if moment is None else in_words((as_utc(moment) - now).total_seconds())


def local(moment: datetime | None, now: datetime) -> str:
    """A moment in local time, and as a relative time; naive: UTC."""
    if moment is None:
        return "-"
    shown = as_utc(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return f"{shown} ({distance(moment, now)})"


def isoformat(moment: datetime | None) -> str | None:
    """A moment for JSON."""
    return None if moment is None else moment.isoformat()


def duration(seconds: float) -> str:
    """About how long something takes: ``30 s``, ``1.5 h``."""
    for unit, length in UNITS.items():
        if seconds >= length:
            return f"{round(seconds / length, 1):g} {unit}"
    return f"{round(seconds, 3):g} s"


def interval(seconds: float) -> str:
    """An exact length of time: 90 s is ``1.5 min``, but 100 s is ``100 s``."""
    for unit, length in UNITS.items():
        count = round(seconds / length, 1)
        if count >= 1 and math.isclose(count * length, seconds, rel_tol=1e-12):
            return f"{count:g} {unit}"
    return f"{f'{seconds:.6f}'.rstrip('0').rstrip('.')} s"


def rule(schedule: Any) -> str:
    """A schedule in a few words."""
    if isinstance(schedule, celery.schedules.crontab):
        fields = [_cron_field(getattr(schedule, f"_orig_{field}")) for field in CRON_FIELDS]
        zone = getattr(schedule, "zone", None)
        return " ".join(fields if zone is None else [*fields, str(zone)])
    if isinstance(schedule, celery.schedules.schedule):
        return f"every {interval(schedule.run_every.total_seconds())}"
    if isinstance(schedule, once):
        return f"once at {schedule.at.isoformat(sep=' ', timespec='seconds')}"
    if isinstance(schedule, rruleset):
        return schedule.text.replace("\n", " ")
    if isinstance(schedule, rrule):
        zone = str(schedule.dtstart.tzinfo)
        return f"{schedule.rrule} {'' if zone == 'UTC' else zone}".replace("\n", " ").rstrip()
    return repr(schedule)


def _cron_field(value: Any) -> str:
    """A field of a crontab, which may be text, a number or several of them."""
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=lambda part: (isinstance(part, str), part))
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON that can be encoded as UTF-8, whatever was stored.

    A number that JSON does not have is written as a string: ``"NaN"``.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError:
        return to_json(json.loads(json.dumps(value), parse_constant=str), indent)
    return printable_json(text)


class Console:
    """The standard output, which may be a terminal."""

    def __init__(self, no_color: bool = False) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._colors = self.is_terminal and not no_color

    def say(self, text: str = "", **style: Any) -> None:
        """Print one line, whatever the text contains."""
        click.echo(self._style(one_line(text), **style), color=self._colors)

    def field(self, heading: str, value: str) -> None:
        """Print a line with a heading."""
        styled = self._style(f"{heading}:".ljust(11), bold=True)
        click.echo(f"{styled} {one_line(value)}", color=self._colors)

    def _style(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self._colors else text

    def moment(self, moment: datetime | None, now: datetime) -> str:
        """A moment for a table, without its date on a narrow terminal."""
        is_narrow = self.is_terminal and _width() < ROOMY
        return distance(moment, now) if is_narrow else local(moment, now)

    def json(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Print records as a JSON array, one per line, as they come."""
        opening = "["
        for record in records:
            click.echo(f"{opening}{to_json(record)}", nl=False)
            opening = ",\n"
        click.echo("]" if opening != "[" else "[]")

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows as they come: in columns on a terminal, else separated by tabs."""
        lines = (tuple(map(one_line, row)) for row in rows)
        if self.is_terminal:
            self._columns(headings, lines)
            return
        for line in lines:
            click.echo("\t".join(line))

    def _columns(self, headings: Sequence[str], lines: Iterator[tuple[str, ...]]) -> None:
        sample = list(islice(lines, SAMPLE))
        columns = zip(headings, *sample, strict=True)
        widest = [min(max(map(len, column)), WIDEST) for column in columns]
        widths = _fitted(headings, widest, _width())
        click.echo(self._style(_row(headings, widths), bold=True))
        click.echo(self._style("─" * min(sum(widths) + 2 * len(widths), _width()), dim=True))
        for line in chain(sample, lines):
            color = next((COLORS[cell] for cell in line if cell in COLORS), "green")
            text = _row(line, widths)
            click.echo(text if color == "green" else self._style(text, fg=color))


def _width() -> int:
    return shutil.get_terminal_size().columns


def _fitted(headings: Sequence[str], widths: Sequence[int], room: int) -> list[int]:
    """The widths of columns that fit side by side, with the widest free text cut first."""
    fitted = list(widths)
    texts = [index for index, heading in enumerate(headings) if heading in FREE_TEXT]
    while sum(fitted) + 2 * (len(fitted) - 1) > room:
        widest = max(texts, key=fitted.__getitem__, default=None)
        if widest is None or fitted[widest] <= NARROWEST:
            break
        fitted[widest] -= 1
    return fitted


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    *most, last = (
        (cell if len(cell) <= width else f"{cell[: width - 1]}…").ljust(width)
        for cell, width in zip(cells, widths, strict=True)
    )
    return "  ".join([*most, last.rstrip()])
