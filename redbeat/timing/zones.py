"""Time zones: by name, as text, and what their clocks show.

A zone is only ever asked for the wall time of a UTC instant: that is the direction in which pytz,
dateutil and zoneinfo agree.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from celery.utils.time import LocalTimezone
from dateutil.tz import tzlocal

from .instants import DAY, NOTHING, SECOND, UTC

LAST_SECOND = datetime.max.replace(microsecond=0)


# Zones and their names


def named_zone(zone: str | tzinfo) -> tzinfo:
    """The zone of an IANA name; a pytz or dateutil zone by its name; any other tzinfo unchanged.

    Celery's ``LocalTimezone`` becomes dateutil's.

    Raises:
        ValueError: there is no zone of that name.
    """
    if isinstance(zone, str):
        return _zone_called(zone)
    if not isinstance(zone, tzinfo):
        raise ValueError(f"a time zone must be a name or a tzinfo, got {zone!r}")
    if isinstance(zone, LocalTimezone):
        # Celery's own, for `enable_utc = False`, is an hour off in the hours after a transition.
        return tzlocal()
    name = None if isinstance(zone, ZoneInfo) else zone_name(zone)
    return zone if name is None else _zone_called(name)


def zone_name(zone: tzinfo | None) -> str | None:
    """The IANA name of a zoneinfo, pytz or dateutil zone; ``None`` if it has none."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    # The path that a dateutil zone was read from is the only place where its name is.
    path = getattr(zone, "zone", None) or getattr(zone, "_filename", None)
    name = str(path).rpartition("zoneinfo/")[2]
    return name if path is not None and _is_zone_name(name) else None


def has_one_offset(zone: tzinfo | None) -> bool:
    """Whether the zone's offset never changes, so that a number describes the zone completely."""
    return zone is None or zone.utcoffset(None) is not None


def zone_text(zone: tzinfo) -> str:
    """A text that identifies the zone: its offset in seconds if that is fixed, else its name.

    For a zone without a name, such as the machine's, it is the offsets in winter and in summer.
    """
    zone = named_zone(zone)
    if has_one_offset(zone):
        return str((zone.utcoffset(None) or NOTHING).total_seconds())
    halves = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 7))
    offsets = "/".join(str(offset_at(half, zone).total_seconds()) for half in halves)
    return zone_name(zone) or offsets


def zone_from_text(text: str) -> tzinfo | None:
    """The zone that ``zone_text`` identified; ``None`` if there is no such name."""
    try:
        return timezone(timedelta(seconds=float(text)))
    except (OverflowError, ValueError):
        return named_zone(text) if _is_zone_name(text) else None


def _is_zone_name(name: str) -> bool:
    try:
        return bool(_zone_called(name))
    except ValueError:
        return False


def _zone_called(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError) as error:
        raise ValueError(f"there is no time zone {name[:100]!r}") from error


# What a clock shows


def wall_at(moment: datetime, zone: tzinfo) -> datetime:
    """The naive wall time in ``zone`` at a UTC instant, clamped to the range of ``datetime``."""
    try:
        return moment.astimezone(zone).replace(tzinfo=None, fold=0)
    except OverflowError:
        return datetime.min if moment.year == 1 else LAST_SECOND


def offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    """The zone's offset from UTC at an instant."""
    return moment.astimezone(zone).utcoffset() or NOTHING


def instants_of(wall: datetime, zone: tzinfo) -> tuple[datetime, ...]:
    """The one or two instants at which the clock shows ``wall``; the gap's end if it is skipped."""
    reading = wall.replace(tzinfo=UTC)
    # A zone of any other class may answer with an offset although it has several.
    fixed = zone.utcoffset(None) if isinstance(zone, (timezone, ZoneInfo)) else None
    if fixed is not None:
        return (reading - fixed,)
    before, after = offset_at(reading - DAY, zone), offset_at(reading + DAY, zone)
    if before == after:
        return (reading - before,)
    shown = tuple(
        reading - offset
        for offset in (before, after)
        if offset_at(reading - offset, zone) == offset
    )
    return shown or (transition_between(reading - after, reading - before, zone),)


def transition_between(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The instant, to the second, at which the offset of ``low`` ends; ``high`` lies after it."""
    low, offset = low.replace(microsecond=0), offset_at(low, zone)
    high = high.replace(microsecond=0) + SECOND
    while high - low > SECOND:
        middle = low + (high - low) // 2 // SECOND * SECOND
        low, high = (middle, high) if offset_at(middle, zone) == offset else (low, middle)
    return low + SECOND
