"""Days of the calendar, and those that a recurrence rule names.

Days are found by looking at those after a given one, so the age of a rule costs nothing. The search
ends once a whole cycle of the Gregorian calendar has had none.
"""

from __future__ import annotations

from calendar import isleap, monthrange
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from dateutil.easter import easter

from .instants import CALENDAR_END, DAY
from .parameters import DAILY, MONTHLY, WEEKLY, YEARLY, part_values, weekday_number

#: The Gregorian calendar, weekdays included, repeats after this many days (400 years).
CALENDAR_CYCLE = 146_097


def months_from(start: date) -> Iterator[tuple[int, int]]:
    """Each year and month from that of ``start`` on."""
    for number in range(start.year * 12 + start.month - 1, CALENDAR_END.year * 12):
        yield number // 12, number % 12 + 1


def days_of_month(year: int, month: int, start: date) -> Iterator[date]:
    """The days of a month, from ``start`` on if that lies in it."""
    first = start.day if (year, month) == (start.year, start.month) else 1
    for number in range(first, monthrange(year, month)[1] + 1):
        yield date(year, month, number)


class RuleDays:
    """The days that a recurrence rule names (RFC 5545, section 3.3.10), as dateutil has them.

    Args:
        rule: the parameters of ``dateutil.rrule.rrule`` by name.
        start: the day of its ``dtstart`` by the wall clock.
    """

    def __init__(self, rule: Mapping[str, Any], start: date) -> None:
        self.start = start
        self.freq: int = rule["freq"]
        self.interval: int = rule["interval"]
        self.week_start = weekday_number(rule["wkst"] or 0)
        self.months = frozenset(part_values(rule["bymonth"]))
        month_days = frozenset(part_values(rule["bymonthday"]))
        year_days = frozenset(part_values(rule["byyearday"]))
        easter_days = frozenset(part_values(rule["byeaster"]))
        self.weeks = frozenset(part_values(rule["byweekno"]))
        named = part_values(rule["byweekday"])
        # The number of a weekday, as in the second Monday, counts in months and years only.
        numbered = [day for day in named if self.freq <= MONTHLY and getattr(day, "n", None)]
        plain = [day for day in named if not getattr(day, "n", None)] if numbered else named
        self.numbered_weekdays = {(day.weekday, day.n) for day in numbered}
        weekdays = {weekday_number(day) for day in plain}
        if (
            not (self.weeks or year_days or month_days or rule["byweekday"] is not None)
            and rule["byeaster"] is None
        ):
            # A rule that names no day of its period means that of its start.
            if self.freq == YEARLY and not self.months:
                self.months = frozenset({start.month})
            if self.freq <= MONTHLY:
                month_days = frozenset({start.day})
            if self.freq == WEEKLY:
                weekdays = {start.weekday()}
        tests = (
            (self.months, lambda day: day.month in self.months),
            (weekdays, lambda day: day.weekday() in weekdays),
            (month_days, lambda day: _counts_among(month_days, *_month_day(day))),
            (year_days, lambda day: _counts_among(year_days, *_year_day(day))),
            (self.numbered_weekdays, self._is_numbered_weekday),
            (self.weeks, self._is_in_numbered_week),
            (easter_days, lambda day: (day - easter(day.year)).days in easter_days),
        )
        self._tests = [is_named for values, is_named in tests if values]

    def since(self, first: date) -> Iterator[date]:
        """The days from ``first`` on that the rule names; ends when it is proven that none is left.

        A pattern of days that does not come up in one cycle of the calendar never will.
        """
        cycle = CALENDAR_CYCLE * (self.interval if self.freq <= DAILY else 1)
        last = first.toordinal()
        for day in self._in_phase(first):
            if all(is_named(day) for is_named in self._tests):
                last = day.toordinal()
                yield day
            elif day.toordinal() - last > cycle:
                return

    def week_of(self, day: date) -> date:
        """The first day of the week of ``day``."""
        number = day.toordinal() - (day.weekday() - self.week_start) % 7
        return date.fromordinal(max(number, 1))

    def period_of(self, day: date) -> date:
        """The first day of the year, month, week or day from which ``bysetpos`` selects."""
        if self.freq == YEARLY:
            return day.replace(month=1, day=1)
        if self.freq == MONTHLY:
            return day.replace(day=1)
        if self.freq == WEEKLY:
            # In dateutil, the first week of a rule begins with its start.
            return max(self.week_of(day), self.start)
        return day

    def _in_phase(self, first: date) -> Iterator[date]:
        """The days from ``first`` on that lie whole intervals after the start."""
        begin, end = first.toordinal(), CALENDAR_END.toordinal()
        if self.freq == DAILY:
            begin += (self.start.toordinal() - begin) % self.interval
            yield from map(date.fromordinal, range(begin, end, self.interval))
        elif self.freq == WEEKLY:
            week, stride = self.week_of(first).toordinal(), 7 * self.interval
            week += (self.week_of(self.start).toordinal() - week) % stride
            for start in range(week, end - 7, stride):
                yield from map(date.fromordinal, range(max(start, begin), start + 7))
        else:
            for year, month in months_from(first):
                if self._has_month_in_phase(year, month):
                    yield from days_of_month(year, month, first)

    def _has_month_in_phase(self, year: int, month: int) -> bool:
        if self.months and month not in self.months:
            return False
        years, months = year - self.start.year, month - self.start.month
        if self.freq == YEARLY:
            return years % self.interval == 0
        return self.freq != MONTHLY or (years * 12 + months) % self.interval == 0

    def _is_numbered_weekday(self, day: date) -> bool:
        """Whether it is a named weekday such as the second or the last of its month or year."""
        by_month = self.freq == MONTHLY or bool(self.months)
        number, last = _month_day(day) if by_month else _year_day(day)
        from_the_front, from_the_back = (number - 1) // 7 + 1, -((last - number) // 7 + 1)
        return any(
            (day.weekday(), n) in self.numbered_weekdays for n in (from_the_front, from_the_back)
        )

    def _is_in_numbered_week(self, day: date) -> bool:
        """Whether the number of its week is named; a week belongs to the year of most of its days.

        Of weeks counted from the end, one that reaches into another year is only ever the last, as
        in dateutil.
        """
        week = self.week_of(day)
        year = (week + 3 * DAY).year
        first, last = self.week_of(date(year, 1, 4)), self.week_of(date(year, 12, 28))
        if (week - first).days // 7 + 1 in self.weeks:
            return True
        from_the_end = (week - last).days // 7 - 1
        return from_the_end in self.weeks and (year == day.year or from_the_end == -1)


def _month_day(day: date) -> tuple[int, int]:
    return day.day, monthrange(day.year, day.month)[1]


def _year_day(day: date) -> tuple[int, int]:
    return day.timetuple().tm_yday, 366 if isleap(day.year) else 365


def _counts_among(named: frozenset[int], number: int, last: int) -> bool:
    """Whether a day is named by its number from the front, or from the back (-1 the last)."""
    return number in named or number - last - 1 in named
