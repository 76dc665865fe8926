"""Reads what is typed on the command line: times, durations, time zones and schedules."""

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


def require_json(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse numbers that JSON does not have, which Python reads and other programs do not."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise click.BadParameter("JSON has no NaN and no Infinity", ctx, param) from None
    return value


class Duration(click.ParamType):  # type: ignore[type-arg]  # older ones are not generic
    """``30s``, ``1h30m``, ``1.5d``, or a number of seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read a duration above zero."""
        duration = value if isinstance(value, timedelta) else read_duration(value)
        if duration is None or duration <= timedelta(0):
            self.fail(f"{value!r} is not a duration. Use a value such as 30s, 15m, 1h30m or 2d.")
        return duration


def read_duration(text: str) -> timedelta | None:
    """The duration written as ``30s``, ``1h30m`` or ``90``; ``None`` if it is not one."""
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
    """A time in ISO 8601, naive if it has no offset; or a duration from now, aware."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read a time."""
        if isinstance(value, datetime):
            return value
        # ISO 8601 reads a number alone as a year or a date, not as seconds.
        duration = None if NUMBER.fullmatch(value.strip()) else read_duration(value)
        try:
            return isoparse(value) if duration is None else datetime.now(timezone.utc) + duration
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time. Use a value such as 2030-12-24T18:00, "
                "2030-12-24T18:00+01:00, or 90m for ninety minutes from now."
            )


class Zone(click.ParamType):  # type: ignore[type-arg]  # older ones are not generic
    """A time zone by its IANA name."""

    name = "zone"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tzinfo:
        """Read a time zone."""
        try:
            return named_zone(value)
        except ValueError as exc:
            self.fail(f"{exc}. Use a name such as Europe/Berlin.")


def read_cron(text: str, zone: tzinfo | None) -> celery_crontab:
    """The crontab of five fields; raises ``ValueError``, which names the field that is invalid."""
    given = text.split()
    if len(given) != len(CRON_FIELDS):
        raise ValueError(
            f"{text!r} has {counted(len(given), 'field', 'fields')} instead of five: minute, hour, "
            "day of month, month, day of week"
        )
    fields = dict(zip(CRON_FIELDS, given, strict=True))
    for name, value in fields.items():
        try:
            celery_crontab(**{name: value})
        except Exception as exc:
            is_weekday = name == "day_of_week"
            # Celery takes any word in any field for the name of a weekday.
            reason = f": {exc}" if is_weekday or "weekday" not in str(exc) else ""
            hint = " Sunday is 0." if is_weekday else ""
            label = name.replace("_", " ")
            raise ValueError(f"the {label} {value!r} is not valid{reason}{hint}") from exc
    return celery_crontab(**fields) if zone is None else crontab(**fields, tz=zone)


def read_rrule(text: str, zone: tzinfo | None) -> Any:
    r"""The rule or set of rules in RFC 5545 text, with lines separated by ``\n``.

    Without a time zone, here or in the text, it follows that of the application. Raises
    ``ValueError``.
    """
    lines = text.replace("\\n", "\n")
    if not re.search(r"^(DTSTART|RRULE|RDATE|EXDATE|EXRULE)", lines, re.IGNORECASE | re.MULTILINE):
        lines = f"RRULE:{lines}"
    if zone is not None:
        found = Lines(lines, zone, datetime.now(timezone.utc))
        if "DTSTART" in found.names and not found.is_floating:
            raise ValueError("its DTSTART already has a time zone; omit --tz")
        lines = found.text
    return rrule.from_string(lines)
