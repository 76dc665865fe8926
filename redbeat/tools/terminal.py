"""What the command line prints: words for times and schedules, tables, JSON.

A terminal gets columns and colours; a pipe gets one record a line, its fields separated by tabs.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import chain, islice
from typing import Any

import celery.schedules
import click

from ..schedules import CRON_FIELDS, once, rrule, rruleset
from ..store.escaping import one_line, printable_json

#: Rows from which the widths of a table's columns are taken: the first page must not wait.
SAMPLE = 200

#: The widest column, unless it is the last one.
WIDEST = 40

#: Columns that are cut for a table to fit, and the narrowest that they become.
FREE_TEXT = ("Name", "Task", "Schedule")
NARROWEST = 8

#: Columns of a terminal in which a table has room for dates beside words.
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


def in_words(seconds: float) -> str:
    """How far away a moment is: `in 5 minutes`, `3 days ago`, `now`."""
    amount = abs(seconds)
    if amount < 1:
        return "now"
    unit, length = next((step for step in STEPS if amount >= step[1]), ("second", 1))
    count = round(amount / length)
    words = counted(count, unit, f"{unit}s")
    return f"in {words}" if seconds > 0 else f"{words} ago"


def local(moment: datetime | None, now: datetime) -> str:
    """A moment in local time and in words; naive: UTC."""
    if moment is None:
        return "-"
    shown = _aware(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return f"{shown} ({distance(moment, now)})"


def distance(moment: datetime | None, now: datetime) -> str:
    """How far away a moment is, in words; naive: UTC."""
    return "-" if moment is None else in_words((_aware(moment) - now).total_seconds())


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


UNITS = {"d": 86400, "h": 3600, "min": 60}


def duration(seconds: float) -> str:
    """About how long something takes: `30 s`, `1.5 h`."""
    for unit, length in UNITS.items():
        if seconds >= length:
            return f"{round(seconds / length, 1):g} {unit}"
    return f"{round(seconds, 3):g} s"


def interval(seconds: float) -> str:
    """A length of time as it is: 90 s are `1.5 min`, and 100 s are `100 s`."""
    for unit, length in UNITS.items():
        count = round(seconds / length, 1)
        if count >= 1 and math.isclose(count * length, seconds, rel_tol=1e-12):
            return f"{count:g} {unit}"
    return f"{f'{seconds:.6f}'.rstrip('0').rstrip('.')} s"


def rule(schedule: Any) -> str:
    """A schedule in a few words."""
    if isinstance(schedule, celery.schedules.crontab):
        return _cron(schedule)
    if isinstance(schedule, celery.schedules.schedule):
        return f"every {interval(schedule.run_every.total_seconds())}"
    if isinstance(schedule, once):
        return f"once at {schedule.at.isoformat(sep=' ', timespec='seconds')}"
    if isinstance(schedule, rruleset):
        return schedule.text.replace("\n", " ")
    if isinstance(schedule, rrule):
        return f"{schedule.rrule} {_zone_name(schedule.dtstart)}".replace("\n", " ").rstrip()
    return repr(schedule)


def _zone_name(moment: datetime) -> str:
    """The zone of an aware time; empty for UTC, which needs no word."""
    zone = str(moment.tzinfo)
    return "" if zone == "UTC" else zone


def _cron(schedule: celery.schedules.crontab) -> str:
    text = " ".join(_cron_field(getattr(schedule, f"_orig_{field}")) for field in CRON_FIELDS)
    zone = getattr(schedule, "zone", None)
    return text if zone is None else f"{text} {zone}"


def _cron_field(value: Any) -> str:
    """A field of a crontab, which may be a text, a number or several of them."""
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=lambda part: (isinstance(part, str), part))
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def counted(count: int, noun: str, nouns: str) -> str:
    """A number of things: `1 entry`, `2 entries`."""
    return f"{count} {noun if count == 1 else nouns}"


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON that can be written as UTF-8, whatever was stored.

    A number that JSON does not know is written as a string: `"NaN"`.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError:
        return to_json(json.loads(json.dumps(value), parse_constant=str), indent)
    return printable_json(text)


class Console:
    """Where the command line prints to."""

    def __init__(self, no_color: bool = False) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._colors = self.is_terminal and not no_color

    def say(self, text: str = "", **style: Any) -> None:
        """Print a line, whatever stands in the text."""
        click.echo(self.style(one_line(text), **style), color=self._colors)

    def field(self, heading: str, value: str) -> None:
        """Print a line with a heading."""
        styled = self.style(f"{heading}:".ljust(11), bold=True)
        click.echo(f"{styled} {one_line(value)}", color=self._colors)

    def style(self, text: str, **style: Any) -> str:
        """Text in colour, if there are colours."""
        return click.style(text, **style) if self._colors else text

    def state(self, state: str) -> str:
        """The name of a state in its colour."""
        return self.style(state, fg=COLORS.get(state))

    def moment(self, moment: datetime | None, now: datetime) -> str:
        """A moment in a table: where there is no room for its date, in words only."""
        is_narrow = self.is_terminal and _width() < ROOMY
        return distance(moment, now) if is_narrow else local(moment, now)

    def json(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Print records as one JSON array, one a line, as they come."""
        opening = "["
        for record in records:
            click.echo(f"{opening}{to_json(record)}", nl=False)
            opening = ",\n"
        click.echo("]" if opening != "[" else "[]")

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows as they come: in columns on a terminal, else separated by tabs."""
        lines = (tuple(map(one_line, row)) for row in rows)
        if not self.is_terminal:
            for line in lines:
                click.echo("\t".join(line))
            return
        for text in self._columns(tuple(headings), lines):
            click.echo(text)

    def _columns(
        self, headings: tuple[str, ...], lines: Iterator[tuple[str, ...]]
    ) -> Iterator[str]:
        sample = list(islice(lines, SAMPLE))
        widths = _fitted(headings, _widths([headings, *sample]), _width())
        yield self.style(_row(headings, widths), bold=True)
        yield self.style("─" * min(sum(widths) + 2 * len(widths), _width()), dim=True)
        for line in chain(sample, lines):
            yield self._colored(_row(line, widths), line)

    def _colored(self, text: str, line: tuple[str, ...]) -> str:
        color = next((COLORS[cell] for cell in line if cell in COLORS), None)
        return text if color in (None, "green") else self.style(text, fg=color)


def _width() -> int:
    return shutil.get_terminal_size().columns


def _widths(lines: Sequence[tuple[str, ...]]) -> list[int]:
    return [min(max(map(len, column)), WIDEST) for column in zip(*lines, strict=True)]


def _fitted(headings: Sequence[str], widths: Sequence[int], room: int) -> list[int]:
    """The widths that fit side by side, of the columns of free text the widest cut first."""
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
