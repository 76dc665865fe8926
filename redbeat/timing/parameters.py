"""The parameters of a recurrence rule: what each may hold, checked when a rule is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from dateutil import rrule as dateutil_rrule

FREQUENCIES = dateutil_rrule.FREQNAMES
YEARLY, MONTHLY, WEEKLY, DAILY, HOURLY, MINUTELY, SECONDLY = range(7)

#: One step of the frequencies below a day.
UNITS = {HOURLY: timedelta(hours=1), MINUTELY: timedelta(minutes=1), SECONDLY: timedelta(seconds=1)}

#: What each part may hold: lowest and highest value, and whether zero is one of them.
#: From RFC 5545, section 3.3.10; a leap second (60) has no place in a datetime.
PARTS: dict[str, tuple[int, int, bool]] = {
    "bysetpos": (-366, 366, False),
    "bymonth": (1, 12, False),
    "bymonthday": (-31, 31, False),
    "byyearday": (-366, 366, False),
    "byeaster": (-366, 366, True),
    "byweekno": (-53, 53, False),
    "byweekday": (0, 6, True),
    "byhour": (0, 23, True),
    "byminute": (0, 59, True),
    "bysecond": (0, 59, True),
}

RULE_PARAMETERS = ("freq", "dtstart", "interval", "wkst", "count", "until", *PARTS)

#: Values in one part of a rule: ``byyearday`` and ``bysetpos`` have 732 different ones.
LONGEST_PART = 1_000


def frequency(given: Any) -> int:
    """The number of a frequency, which may be given by its name in any case."""
    if isinstance(given, str) and given.upper() in FREQUENCIES:
        return FREQUENCIES.index(given.upper())
    if _is_whole(given) and 0 <= given < len(FREQUENCIES):
        return int(given)
    names = ", ".join(FREQUENCIES)
    raise ValueError(f"freq must be one of {names}, or its number, got {shown(given)}")


def positive(name: str, number: Any) -> int:
    """``number``, if it is a whole number above 0."""
    if not _is_whole(number) or number < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more, got {shown(number)}")
    return int(number)


def week_start(day: Any) -> Any:
    """``day``, if it is a weekday or ``None``."""
    if day is None or isinstance(day, dateutil_rrule.weekday) or (_is_whole(day) and 0 <= day <= 6):
        return day
    raise ValueError(f"wkst must be a weekday or 0 to 6, got {shown(day)}")


def part(name: str, given: Any) -> Any:
    """``given``, if the part ``name`` can hold it."""
    low, high, takes_zero = PARTS[name]
    values = part_values(given)
    if len(values) > LONGEST_PART:
        raise ValueError(f"{name} may hold {LONGEST_PART} values, got {len(values)}")
    for value in map(weekday_number, values) if name == "byweekday" else values:
        if not _is_whole(value) or not low <= value <= high or (value == 0 and not takes_zero):
            bounds = f"{low} to {high}" if takes_zero or low > 0 else f"{low} to {high} without 0"
            raise ValueError(f"{name} must be one or more of {bounds}, got {shown(value)}")
    return given


def part_values(given: Any) -> list[Any]:
    """The values of a part of a rule, which may be none, one, or several."""
    if given is None:
        return []
    many = isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping))
    return list(given) if many else [given]


def weekday_number(day: Any) -> Any:
    """0 (Monday) to 6 for a dateutil weekday; any other value unchanged."""
    return day.weekday if isinstance(day, dateutil_rrule.weekday) else day


def shown(value: Any) -> str:
    """The value as an error message shows it, cut to 100 characters."""
    try:
        return repr(value)[:100]
    except Exception:  # whatever the `repr` of somebody's type raises
        return f"a {type(value).__name__}"


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
