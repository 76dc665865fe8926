"""Instants in UTC, and the ends of the time that a ``datetime`` can hold."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)

TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOTHING = timedelta(0)

#: Wall clocks are read between these, so that no zone's offset leaves the range of ``datetime``.
CALENDAR_START = datetime(1, 1, 4, tzinfo=UTC)
CALENDAR_END = datetime(9999, 12, 28, tzinfo=UTC)


def as_utc(moment: datetime) -> datetime:
    """``moment`` as an aware UTC datetime: naive means UTC; what UTC cannot hold is clamped."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return EARLIEST if moment.year == 1 else LATEST


def later(moment: datetime, delta: timedelta) -> datetime:
    """``moment`` plus ``delta``, clamped to the ends of time."""
    try:
        return moment + delta
    except OverflowError:
        return LATEST if delta > NOTHING else EARLIEST


def seconds_until(due: datetime | None, now: datetime) -> float | None:
    """The seconds from ``now`` to ``due``; ``None`` if nothing is due."""
    return None if due is None else (due - now).total_seconds()
