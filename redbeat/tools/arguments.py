"""What is typed on the command line, read into Python: times, durations, zones and schedules."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

import click
from celery.schedules import crontab as celery_crontab
from dateutil.parser import isoparse

from ..schedules import CRON_FIELDS, crontab, rrule
from ..timing.rfc5545 import Lines
from ..timing.zones import named_zone
from .terminal import counted

UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}

NUMBER = re.compile(r"\d+(\.\d+)?")
AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


class Duration(click.ParamType):  # type: ignore[type-arg]  # older ones are not generic
    """`30s`, `1h30m`, `1.5d`, or a number of seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read a duration that is longer than nothing."""
        duration = value if isinstance(value, timedelta) else read_duration(value)
        if duration is None or duration <= timedelta(0):
            self.fail(f"{value!r} is no duration. Write one like 30s, 15m, 1h30m or 2d.")
        return duration


def read_duration(text: str) -> timedelta | None:
    """The duration that is written as `30s`, `1h30m` or `90`; `None` if it is none."""
    text = text.strip().lower()
    try:
        if NUMBER.fullmatch(text):
            return timedelta(seconds=float(text))
        if re.fullmatch(f"({AMOUNT.pattern})+", text):
            amounts = AMOUNT.findall(text)
            return sum((float(amount) * UNITS[unit] for amount, unit in amounts), timedelta(0))
    except OverflowError:
        pass
    return None


class Moment(click.ParamType):  # type: ignore[type-arg]  # older ones are not generic
    """A time as ISO 8601 writes it, naive without an offset; or a duration from now on, aware."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read a time."""
        if isinstance(value, datetime):
            return value
        # A number alone is a year or a date to those who type it, and no seconds.
        duration = None if NUMBER.fullmatch(value.strip()) else read_duration(value)
        try:
            return isoparse(value) if duration is None else datetime.now(timezone.utc) + duration
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time. Write one like 2030-12-24T18:00, 2030-12-24T18:00+01:00, "
                "or 90m for ninety minutes from now."
            )


class Zone(click.ParamType):  # type: ignore[type-arg]  # older ones are not generic
    """A time zone by its IANA name."""

    name = "zone"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tzinfo:
        """Read a zone."""
        try:
            return named_zone(value)
        except ValueError as exc:
            self.fail(f"{exc}. Write a name like Europe/Berlin.")


class Json(click.ParamType):  # type: ignore[type-arg]  # older ones are not generic
    """JSON text of one kind: an array or an object, in numbers that JSON knows."""

    name = "json"

    def __init__(self, kind: type, example: str) -> None:
        self.kind = kind
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read an array into a list, an object into a dict."""
        if isinstance(value, self.kind):
            return value
        try:
            read = json.loads(value, parse_constant=_refuse_constant)
        except json.JSONDecodeError as exc:
            self.fail(
                f"{value!r} is no JSON: line {exc.lineno}, column {exc.colno}: {exc.msg}. "
                f"Write it like {self.example}."
            )
        except (ValueError, RecursionError) as exc:
            self.fail(f"{value!r} is no JSON: {exc}. Write it like {self.example}.")
        if not isinstance(read, self.kind):
            self.fail(f"{value!r} is of another kind. Write it like {self.example}.")
        return read


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def read_cron(text: str, zone: tzinfo | None) -> celery_crontab:
    """The crontab of five fields; raises `ValueError`, which names the field that is wrong."""
    given = text.split()
    if len(given) != len(CRON_FIELDS):
        raise ValueError(
            f"{text!r} has {counted(len(given), 'field', 'fields')}; five are expected: minute, "
            "hour, day of month, month, day of week"
        )
    fields = dict(zip(CRON_FIELDS, given, strict=True))
    for name, value in fields.items():
        _require_cron_field(name, value)
    return celery_crontab(**fields) if zone is None else crontab(**fields, tz=zone)


def _require_cron_field(name: str, value: str) -> None:
    try:
        celery_crontab(**{name: value})
    except Exception as exc:
        # Celery takes any word for the name of a weekday.
        reason = f": {exc}" if name == "day_of_week" or "weekday" not in str(exc) else ""
        hint = " Sunday is 0." if name == "day_of_week" else ""
        raise ValueError(f"the {name.replace('_', ' ')} {value!r} is wrong{reason}{hint}") from exc


def read_rrule(text: str, zone: tzinfo | None) -> Any:
    r"""The rule or set of rules of RFC 5545 text, lines separated by `\n`; raises `ValueError`.

    Without a zone, here or in the text, it follows the app that it is bound to.
    """
    lines = text.replace("\\n", "\n")
    if not re.search(r"^(DTSTART|RRULE|RDATE|EXDATE|EXRULE)", lines, re.IGNORECASE | re.MULTILINE):
        lines = f"RRULE:{lines}"
    if zone is not None:
        found = Lines(lines, zone, datetime.now(timezone.utc))
        _require_no_zone(found)
        lines = found.text
    return rrule.from_string(lines)


def _require_no_zone(lines: Lines) -> None:
    if "DTSTART" in lines.names and not lines.is_floating:
        raise ValueError("its DTSTART says in which zone it is; leave --tz out")
