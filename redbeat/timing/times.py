"""The times of day that a recurrence rule names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, time
from functools import lru_cache
from typing import Any

from .parameters import HOURLY, MINUTELY, SECONDLY, part_values

HOUR_SECONDS = 3600


class TimesOfDay:
    """The times of day that a rule names: its hours, and the seconds within each of them.

    Args:
        hours: 0 to 23.
        seconds: seconds since the full hour, ascending.
    """

    def __init__(self, hours: Iterable[int], seconds: Sequence[int]) -> None:
        self.hours = sorted(set(hours))
        self.seconds = seconds

    @classmethod
    def of(cls, rule: Mapping[str, Any], start: datetime) -> TimesOfDay:
        """The times of a rule that starts at ``start``; below a day, those of ``bysetpos``."""
        freq, positions = rule["freq"], frozenset(part_values(rule["bysetpos"]))

        def named(part: str, at_start: int, number: int, unit: int) -> tuple[int, ...]:
            values = part_values(rule[part]) or (range(number) if freq >= unit else [at_start])
            return tuple(sorted(set(values)))

        hours = named("byhour", start.hour, 24, HOURLY)
        minutes = named("byminute", start.minute, 60, MINUTELY)
        seconds: Sequence[int] = named("bysecond", start.second, 60, SECONDLY)
        if freq == SECONDLY and not at_positions([0], positions):
            seconds = ()
        if freq == MINUTELY:
            seconds = at_positions(seconds, positions)
        of_hour = _seconds_of_hour(minutes, tuple(seconds))
        return cls(hours, at_positions(of_hour, positions) if freq == HOURLY else of_hour)

    def __len__(self) -> int:
        return len(self.hours) * len(self.seconds)

    def __getitem__(self, number: int) -> time:
        hour, second = divmod(number, len(self.seconds))
        return self._time(self.hours[hour], self.seconds[second])

    def __iter__(self) -> Iterator[time]:
        return (self[number] for number in range(len(self)))

    def first_from(self, earliest: time) -> time | None:
        """The first of the times that is not before ``earliest``."""
        hour, within = bisect_left(self.hours, earliest.hour), 0
        if hour < len(self.hours) and self.hours[hour] == earliest.hour:
            within = bisect_left(self.seconds, earliest.minute * 60 + earliest.second)
            hour, within = (hour, within) if within < len(self.seconds) else (hour + 1, 0)
        if hour == len(self.hours) or not self.seconds:
            return None
        return self._time(self.hours[hour], self.seconds[within])

    def within(self, start: int, length: int) -> list[time]:
        """The times from ``start`` on, for ``length`` seconds: a part of one hour."""
        hour, begin = divmod(start, HOUR_SECONDS)
        if hour not in self.hours:
            return []
        first, last = bisect_left(self.seconds, begin), bisect_left(self.seconds, begin + length)
        return [self._time(hour, second) for second in self.seconds[first:last]]

    @staticmethod
    def _time(hour: int, second: int) -> time:
        return time(hour, *divmod(second, 60))


def at_positions(found: Sequence[int], positions: frozenset[int]) -> Sequence[int]:
    """Those of ``found`` that ``bysetpos`` selects: 1 is the first, -1 the last; all if empty."""
    if not positions:
        return found
    total = len(found)
    numbers = {position - 1 if position > 0 else total + position for position in positions}
    return [found[number] for number in sorted(numbers) if 0 <= number < total]


@lru_cache(maxsize=256)
def _seconds_of_hour(minutes: tuple[int, ...], seconds: tuple[int, ...]) -> Sequence[int]:
    return tuple(minute * 60 + second for minute in minutes for second in seconds)
