"""The wall times that a recurrence rule names (RFC 5545, section 3.3.10), as dateutil has them.

Each part of a rule limits a set: of the days, of the hours, of the seconds in an hour. So does
``interval``, which leaves every n-th year, month, week, day or unit since the start. A wall time is
found by looking at the days after a given one, never by counting from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from functools import cached_property, lru_cache, partial
from itertools import groupby, islice
from math import gcd
from typing import Any, NamedTuple

from .days import CALENDAR_CYCLE, RuleDays
from .instants import DAY, SECOND
from .parameters import DAILY, HOURLY, MONTHLY, PARTS, UNITS, WEEKLY, YEARLY, part_values
from .times import TimesOfDay, at_positions
from .zones import LAST_SECOND

#: The years, months, weeks and days of 400 years.
PERIODS_IN_CYCLE = {YEARLY: 400, MONTHLY: 4_800, WEEKLY: 20_871, DAILY: CALENDAR_CYCLE}

#: Days in the longest of these periods.
LONGEST_PERIOD = {YEARLY: 366, MONTHLY: 31, WEEKLY: 7, DAILY: 1}

#: How often a rule below a day looks for a time of day that its interval meets. A rule whose
#: interval and parts meet more seldom than that counts as one that never fires.
PHASE_LIMIT = 20_000

#: How many rules with a ``count`` are remembered.
COUNTDOWNS = 2_000


def rule_walls(rule: Mapping[str, Any], start: datetime) -> RuleWalls:
    """The wall times of a rule.

    Args:
        rule: the parameters of ``dateutil.rrule.rrule`` by name; ``dtstart`` and ``until`` aside.
        start: the wall time of its ``dtstart``, whole seconds.
    """
    if rule["freq"] >= HOURLY:
        return UnitWalls(rule, start)
    return PeriodWalls(rule, start) if part_values(rule["bysetpos"]) else RuleWalls(rule, start)


class RuleWalls:
    """The wall times of a rule whose parts name whole days and times of day.

    Args:
        rule, start: as for ``rule_walls``.
    """

    #: Whether a time that the clock shows twice is meant both times.
    runs_through_hours = False

    def __init__(self, rule: Mapping[str, Any], start: datetime) -> None:
        self.rule = rule
        self.start = start
        self.freq: int = rule["freq"]
        self.interval: int = rule["interval"]
        self.count: int | None = rule["count"]
        self.days = RuleDays(rule, start.date())
        self.times = TimesOfDay.of(rule, start)

    @cached_property
    def first(self) -> datetime | None:
        """The first wall time of the rule."""
        return self.first_from(self.start)

    def after(self, wall: datetime) -> datetime | None:
        """The first wall time of the rule after ``wall``."""
        if wall < self.start:
            found = self.first
        else:
            second = min(wall.replace(microsecond=0), LAST_SECOND - SECOND)
            found = self.first_from(second + SECOND)
        if found is None or self.count is None:
            return found
        # Counting is only needed once every time of every day since the start would be enough.
        most = ((found.date() - self.start.date()).days + 1) * len(self.times)
        is_over = most >= self.count and countdown_of(self).is_over_at(found)
        return None if is_over else found

    def first_from(self, wall: datetime) -> datetime | None:
        """The first wall time from the full second ``wall`` on, whatever ``count`` is."""
        for day in self.days.since(wall.date()):
            found = self.times.first_from(wall.time() if day == wall.date() else time())
            if found is not None:
                return datetime.combine(day, found)
        return None

    def stretches_from(self, first: date) -> Iterator[Stretch]:
        """The rule's times in stretches, from the one that begins with ``first`` on."""
        # How many times a day has follows from where in the interval it begins.
        numbers: dict[int, int] = {}
        for day in self.days.since(first):
            phase = -1 if day == self.start.date() else self.phase_of(day)
            if phase not in numbers:
                numbers[phase] = len(self.times_on(day))
            yield Stretch(day + DAY, numbers[phase], partial(self._nth_on, day))

    def phase_of(self, day: date) -> int:
        """Where in the interval the day begins; days in the same phase have the same times."""
        return 0

    def times_on(self, day: date) -> Sequence[time] | TimesOfDay:
        """The times on one of the days that the rule names, from its start on."""
        if day > self.start.date():
            return self.times
        return [time for time in self.times if time >= self.start.time()]

    def _nth_on(self, day: date, number: int) -> datetime:
        return datetime.combine(day, self.times_on(day)[number])

    @cached_property
    def _identity(self) -> tuple[Any, ...]:
        given = (self.rule[part] for part in PARTS)
        parts = (None if values is None else tuple(part_values(values)) for values in given)
        return (self.start, self.freq, self.interval, self.count, self.days.week_start, *parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleWalls) and other._identity == self._identity

    def __hash__(self) -> int:
        return hash(self._identity)


class UnitWalls(RuleWalls):
    """The wall times of a rule below a day: those that are whole intervals from the start."""

    runs_through_hours = True

    def __init__(self, rule: Mapping[str, Any], start: datetime) -> None:
        super().__init__(rule, start)
        self.unit = UNITS[self.freq]
        #: Units are numbered from here.
        self.midnight = datetime.combine(start, time())
        self.start_unit = self._unit_at(start)

    def first_from(self, wall: datetime) -> datetime | None:
        """The first wall time from the full second ``wall`` on, whatever ``count`` is."""
        if not self._meets_phase_on_some_day:
            return None
        for _ in range(PHASE_LIMIT):
            found = super().first_from(wall)
            if found is None:
                return None
            number = self._unit_at(found)
            ahead = (self.start_unit - number) % self.interval
            if ahead == 0:
                return found
            try:
                wall = self.midnight + (number + ahead) * self.unit
            except OverflowError:
                return None
        return None

    def phase_of(self, day: date) -> int:
        """The first unit of the day that the interval leaves."""
        return (self.start_unit - self._unit_at(datetime.combine(day, time()))) % self.interval

    def times_on(self, day: date) -> Sequence[time] | TimesOfDay:
        """The times on one of the days that the rule names, from its start on."""
        if self.interval == 1:
            return super().times_on(day)
        units = range(self.phase_of(day), DAY // self.unit, self.interval)
        unit = self.unit // SECOND
        times = [time for number in units for time in self.times.within(number * unit, unit)]
        if day > self.start.date():
            return times
        return [time for time in times if time >= self.start.time()]

    def _unit_at(self, wall: datetime) -> int:
        return (wall - self.midnight) // self.unit

    @cached_property
    def _meets_phase_on_some_day(self) -> bool:
        step = gcd(self.interval, DAY // self.unit)
        units = (self._unit_at(datetime.combine(self.start, time)) for time in self.times)
        return any((number - self.start_unit) % step == 0 for number in units)


class PeriodWalls(RuleWalls):
    """The wall times that ``bysetpos`` selects from each year, month, week or day."""

    def __init__(self, rule: Mapping[str, Any], start: datetime) -> None:
        super().__init__(rule, start)
        self.positions = frozenset(part_values(rule["bysetpos"]))

    def first_from(self, wall: datetime) -> datetime | None:
        """The first wall time from the full second ``wall`` on, whatever ``count`` is."""
        # What no period of a whole cycle has, none ever will.
        periods = islice(self._periods_from(wall.date()), PERIODS_IN_CYCLE[self.freq] + 2)
        selected = (found for days in periods for found in self._selected(days))
        return next((found for found in selected if found >= wall), None)

    def stretches_from(self, first: date) -> Iterator[Stretch]:
        """The rule's times in stretches, from the one that begins with ``first`` on."""
        for days in self._periods_from(first):
            selected = self._selected(days)
            in_next = self.days.period_of(days[0]) + LONGEST_PERIOD[self.freq] * DAY
            yield Stretch(self.days.period_of(in_next), len(selected), selected.__getitem__)

    def _periods_from(self, first: date) -> Iterator[list[date]]:
        """The days that the rule names, in one list for each of its periods."""
        days = self.days.since(self.days.period_of(first))
        return (list(period) for _, period in groupby(days, self.days.period_of))

    def _selected(self, days: list[date]) -> list[datetime]:
        per_day = len(self.times)
        numbers = at_positions(range(len(days) * per_day), self.positions)
        chosen = (divmod(number, per_day) for number in numbers)
        found = [datetime.combine(days[day], self.times[number]) for day, number in chosen]
        return [moment for moment in found if moment >= self.start]


class Stretch(NamedTuple):
    """Some of a rule's times that are counted together."""

    #: The first day after them.
    end: date
    number: int
    #: The time of that number, from 0.
    nth: Callable[[int], datetime]


class Countdown:
    """Finds the last time of a rule that its ``count`` allows: counted once, as time goes on.

    Several threads may ask it: what they share is replaced, and never changed.
    """

    def __init__(self, walls: RuleWalls) -> None:
        self._walls = walls
        self._count = walls.count or 0
        #: How many times the rule has on the days before this one.
        self._counted: tuple[date, int] = (walls.start.date(), 0)
        self._last: datetime | None = None

    def is_over_at(self, wall: datetime) -> bool:
        """Whether ``wall``, one of the rule's times, comes after the last of them."""
        if self._last is None and wall.date() >= self._counted[0]:
            self._count_to(wall.date())
        return self._last is not None and wall > self._last

    def _count_to(self, day: date) -> None:
        first, number = self._counted
        for stretch in self._walls.stretches_from(first):
            left = self._count - number
            if stretch.number >= left:
                self._last = stretch.nth(left - 1)
                return
            number += stretch.number
            if stretch.end > day:
                self._counted = (stretch.end, number)
                return


#: The countdown of a rule. Entries are read at every tick, and must not be counted from the start
#: each time.
countdown_of = lru_cache(maxsize=COUNTDOWNS)(Countdown)
