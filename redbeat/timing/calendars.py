"""Which wall times a calendar rule names, and which instants those are in a time zone.

A rule is first a set of wall times, found by a calendar of its own (`CrontabWalls`,
`RuleWalls`): naive datetimes, without zone or transition. `first_instant_after` then maps them to
instants, by the rule that `redbeat.schedules` states: what the clock skips stands for the end of
the gap, what it shows twice for its first instant, or for both if the calendar runs through the
hours.

A calendar finds its next wall time by looking at the days after a given one, so that the age of
a rule costs nothing, and gives up when a whole cycle of the Gregorian calendar has none.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import isleap, monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from functools import cached_property, lru_cache, partial
from itertools import islice
from math import gcd
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from celery.schedules import crontab
from celery.utils.time import LocalTimezone
from dateutil import rrule as recurrence
from dateutil.easter import easter
from dateutil.tz import tzlocal

UTC = timezone.utc
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
NOTHING = timedelta(0)

#: Wall clocks are read between these, so that no zone's offset leaves datetime's range.
CALENDAR_START = datetime(1, 1, 4, tzinfo=UTC)
CALENDAR_END = datetime(9999, 12, 28, tzinfo=UTC)
LAST_SECOND = datetime.max.replace(microsecond=0)

#: The Gregorian calendar, weekdays included, repeats after this many days (400 years).
CALENDAR_CYCLE = 146_097


def shown(value: Any) -> str:
    """The value as an error message shows it, however long it is."""
    try:
        return repr(value)[:100]
    except Exception:  # whatever the `repr` of somebody's type raises
        return f"a {type(value).__name__}"


def as_utc(moment: datetime) -> datetime:
    """`moment` as an aware UTC datetime: naive means UTC, and what UTC cannot hold is clamped."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return EARLIEST if moment.year == 1 else LATEST


# Wall clocks


def first_instant_after(moment: datetime, zone: tzinfo, walls: Walls) -> datetime | None:
    """The first instant after `moment` whose wall time in `zone` is one of `walls`.

    Args:
        moment: a UTC instant.
        zone: whose clock shows the wall times.
        walls: a calendar without zone.
    """
    moment = min(max(moment, CALENDAR_START), CALENDAR_END)
    wall = wall_at(moment, zone)
    if not walls.runs_through_hours:
        return _first_of_each(moment, zone, walls, wall)
    ahead = _first_instant_of(walls.after(wall), zone, moment)
    passes = _instants_of(wall, zone)
    if len(passes) == 1 or moment == passes[-1]:
        return ahead
    return _earlier(ahead, _first_in_second_pass(passes, zone, walls))


def _first_of_each(moment: datetime, zone: tzinfo, walls: Walls, wall: datetime) -> datetime | None:
    named = walls.after(wall)
    while named is not None:
        instant = _instants_of(named, zone)[0]
        if instant > moment:
            return instant
        named = walls.after(named)
    return None


def _first_in_second_pass(
    passes: tuple[datetime, ...], zone: tzinfo, walls: Walls
) -> datetime | None:
    seam = _transition_between(passes[0], passes[-1], zone)
    return _first_instant_of(walls.after(wall_at(seam, zone) - TICK), zone, seam - TICK)


def _first_instant_of(wall: datetime | None, zone: tzinfo, after: datetime) -> datetime | None:
    if wall is None:
        return None
    return next((instant for instant in _instants_of(wall, zone) if instant > after), None)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((instant for instant in (one, other) if instant is not None), default=None)


def wall_at(moment: datetime, zone: tzinfo) -> datetime:
    """What the clock in `zone` shows at the UTC instant `moment`, naive, clamped to what it can."""
    try:
        return moment.astimezone(zone).replace(tzinfo=None, fold=0)
    except OverflowError:
        return datetime.min if moment.year == 1 else LAST_SECOND


def _offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    # Only the way from UTC to a wall clock is asked of a zone: it is the one that pytz, dateutil
    # and zoneinfo agree on.
    return moment.astimezone(zone).utcoffset() or NOTHING


def _instants_of(wall: datetime, zone: tzinfo) -> tuple[datetime, ...]:
    """The one or two instants at which the clock shows `wall`; the end of the gap that skips it."""
    reading = wall.replace(tzinfo=UTC)
    before, after = _offset_at(reading - DAY, zone), _offset_at(reading + DAY, zone)
    if before == after:
        return (reading - before,)
    shown = tuple(reading - offset for offset in (before, after) if _shows(reading, offset, zone))
    return shown or (_transition_between(reading - after, reading - before, zone),)


def _shows(reading: datetime, offset: timedelta, zone: tzinfo) -> bool:
    return _offset_at(reading - offset, zone) == offset


def _transition_between(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The instant, to the second, at which the offset of `low` ends; `high` lies after it."""
    low, offset = low.replace(microsecond=0), _offset_at(low, zone)
    high = high.replace(microsecond=0) + SECOND
    while high - low > SECOND:
        middle = low + (high - low) // 2 // SECOND * SECOND
        low, high = (middle, high) if _offset_at(middle, zone) == offset else (low, middle)
    return low + SECOND


# Wall times of a day


HOUR_SECONDS = 3600


def wall_seconds(moment: time) -> int:
    """The seconds that a clock shows since midnight."""
    return moment.hour * HOUR_SECONDS + moment.minute * 60 + moment.second


class TimesOfDay:
    """The times of day that a rule names: its hours, and the seconds within each of them.

    Args:
        hours: 0 to 23.
        seconds: seconds since the full hour, ascending.
    """

    def __init__(self, hours: Iterable[int], seconds: Sequence[int]) -> None:
        self.hours = sorted(set(hours))
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self.hours) * len(self.seconds)

    def __getitem__(self, number: int) -> time:
        hour, second = divmod(number, len(self.seconds))
        return self._time(self.hours[hour], self.seconds[second])

    def __iter__(self) -> Iterator[time]:
        return (self[number] for number in range(len(self)))

    def first_from(self, earliest: time) -> time | None:
        """The first of the times that is not before `earliest`."""
        second = earliest.minute * 60 + earliest.second
        hour, within = bisect_left(self.hours, earliest.hour), 0
        if hour < len(self.hours) and self.hours[hour] == earliest.hour:
            within = bisect_left(self.seconds, second)
            hour, within = (hour, within) if within < len(self.seconds) else (hour + 1, 0)
        if hour == len(self.hours) or not self.seconds:
            return None
        return self._time(self.hours[hour], self.seconds[within])

    def within(self, start: int, length: int) -> list[time]:
        """The times from `start` on, for `length` seconds: a part of one hour."""
        hour, begin = divmod(start, HOUR_SECONDS)
        if hour not in self.hours:
            return []
        first, last = bisect_left(self.seconds, begin), bisect_left(self.seconds, begin + length)
        return [self._time(hour, second) for second in self.seconds[first:last]]

    def _time(self, hour: int, second: int) -> time:
        return time(hour, *divmod(second, 60))


class Walls(Protocol):
    """A set of wall times."""

    @property
    def runs_through_hours(self) -> bool:
        """Whether a time that the clock shows twice is meant both times."""

    def after(self, wall: datetime) -> datetime | None:
        """The first of the wall times after `wall`."""


def _first_wall(wall: datetime, days: Iterator[date], times: TimesOfDay) -> datetime | None:
    """The first of the times on one of the days, from `wall` on; `days` begin with its day."""
    for day in days:
        found = times.first_from(wall.time() if day == wall.date() else time())
        if found is not None:
            return datetime.combine(day, found)
    return None


def _next_second(wall: datetime) -> datetime:
    return min(wall.replace(microsecond=0), LAST_SECOND - SECOND) + SECOND


# Crontabs


#: The longest wait between two occurrences of a date on a weekday: 29 February on a Sunday,
#: across a century without a leap year.
CRONTAB_HORIZON_YEARS = 41


class CrontabWalls:
    """The full minutes that all five fields of a Celery crontab allow."""

    def __init__(self, schedule: crontab) -> None:
        self.schedule = schedule

    @property
    def runs_through_hours(self) -> bool:
        """Whether the hour field says `*`, a range or a step, rather than naming hours."""
        field = self.schedule._orig_hour
        return isinstance(field, str) and any(mark in field for mark in "*-/")

    def after(self, wall: datetime) -> datetime | None:
        """The first full minute after `wall` that the crontab allows."""
        start = _next_second(wall)
        seconds = [minute * 60 for minute in sorted(self.schedule.minute)]
        return _first_wall(start, self._days(start.date()), TimesOfDay(self.schedule.hour, seconds))

    def _days(self, start: date) -> Iterator[date]:
        months = islice(_months_from(start), CRONTAB_HORIZON_YEARS * 12)
        for year, month in months:
            if month in self.schedule.month_of_year:
                yield from filter(self._allows, _days_of_month(year, month, start))

    def _allows(self, day: date) -> bool:
        schedule = self.schedule
        return day.day in schedule.day_of_month and day.isoweekday() % 7 in schedule.day_of_week


def _months_from(start: date) -> Iterator[tuple[int, int]]:
    for number in range(start.year * 12 + start.month - 1, CALENDAR_END.year * 12):
        yield number // 12, number % 12 + 1


def _days_of_month(year: int, month: int, start: date) -> Iterator[date]:
    first = start.day if (year, month) == (start.year, start.month) else 1
    for number in range(first, monthrange(year, month)[1] + 1):
        yield date(year, month, number)


# Recurrence rules


#: What each parameter may hold: lowest and highest value, and whether zero is one of them.
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

YEARLY, MONTHLY, WEEKLY, DAILY, HOURLY, MINUTELY, SECONDLY = range(7)

#: Seconds in one step of the frequencies below a day.
STEP_SECONDS = {HOURLY: HOUR_SECONDS, MINUTELY: 60, SECONDLY: 1}

#: The years, months, weeks and days of 400 years.
PERIODS_IN_CYCLE = {YEARLY: 400, MONTHLY: 4_800, WEEKLY: 20_871, DAILY: CALENDAR_CYCLE}

#: Days in the longest of these periods.
LONGEST_PERIOD = {YEARLY: 366, MONTHLY: 31, WEEKLY: 7, DAILY: 1}

#: How often a rule below a day looks for a time of day that its interval meets. A rule whose
#: interval and parts meet more seldom than that counts as one that never fires.
PHASE_LIMIT = 20_000


class RuleWalls:
    """The wall times of a recurrence rule (RFC 5545, section 3.3.10), as dateutil has them.

    Every part of a rule limits a set: of the days, of the hours, of the seconds in an hour. So
    does `interval`, which leaves every so-many-th year, month, week, day or unit since `start`.
    A wall time is found by looking at the days after a given one, not at all since `start`.

    Args:
        rule: the parameters of `dateutil.rrule.rrule` by name; `dtstart` and `until` aside.
        start: the wall time of its `dtstart`, whole seconds.
    """

    def __init__(self, rule: Mapping[str, Any], start: datetime) -> None:
        self.start = start
        self.freq: int = rule["freq"]
        self.interval: int = rule["interval"]
        self.count: int | None = rule["count"]
        self.week_start = weekday_number(rule["wkst"] or 0)
        self.positions = frozenset(part_values(rule["bysetpos"]))
        self._read_days(rule)
        self._read_times(rule)
        parts = (None if rule[part] is None else tuple(part_values(rule[part])) for part in PARTS)
        self._identity = (start, self.freq, self.interval, self.count, self.week_start, *parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleWalls) and other._identity == self._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def runs_through_hours(self) -> bool:
        """Whether the frequency is below a day."""
        return self.freq >= HOURLY

    @cached_property
    def first(self) -> datetime | None:
        """The first wall time of the rule."""
        return self._from(self.start)

    def after(self, wall: datetime) -> datetime | None:
        """The first wall time of the rule after `wall`."""
        found = self._from(self.start) if wall < self.start else self._from(_next_second(wall))
        return None if found is None or self._is_past_count(found) else found

    def _read_days(self, rule: Mapping[str, Any]) -> None:
        self.months = frozenset(part_values(rule["bymonth"]))
        self.month_days = frozenset(part_values(rule["bymonthday"]))
        self.year_days = frozenset(part_values(rule["byyearday"]))
        self.weeks = frozenset(part_values(rule["byweekno"]))
        self.easter_days = frozenset(part_values(rule["byeaster"]))
        self._read_weekdays(part_values(rule["byweekday"]))
        if not (self.weeks or self.year_days or self.month_days) and all(
            rule[part] is None for part in ("byweekday", "byeaster")
        ):
            self._take_day_of_start()
        self._read_day_tests()

    def _read_weekdays(self, days: list[Any]) -> None:
        counts = self.freq <= MONTHLY
        numbered = [day for day in days if counts and getattr(day, "n", None)]
        plain = days if not numbered else [day for day in days if not getattr(day, "n", None)]
        self.weekdays = frozenset(weekday_number(day) for day in plain)
        self.numbered_weekdays = frozenset((day.weekday, day.n) for day in numbered)

    def _take_day_of_start(self) -> None:
        if self.freq == YEARLY and not self.months:
            self.months = frozenset({self.start.month})
        if self.freq in (YEARLY, MONTHLY):
            self.month_days = frozenset({self.start.day})
        if self.freq == WEEKLY:
            self.weekdays = frozenset({self.start.weekday()})

    def _read_times(self, rule: Mapping[str, Any]) -> None:
        start = self.start
        hours = part_values(rule["byhour"]) or _all_or(start.hour, 24, self.freq >= HOURLY)
        minutes = part_values(rule["byminute"]) or _all_or(start.minute, 60, self.freq >= MINUTELY)
        seconds = part_values(rule["bysecond"]) or _all_or(start.second, 60, self.freq >= SECONDLY)
        self.times = TimesOfDay(hours, self._seconds_of_hour(minutes, sorted(set(seconds))))

    def _seconds_of_hour(self, minutes: Iterable[int], seconds: list[int]) -> Sequence[int]:
        if self.freq == SECONDLY and not _at_positions([0], self.positions):
            return ()
        seconds = _at_positions(seconds, self.positions) if self.freq == MINUTELY else seconds
        found = _products(tuple(sorted(set(minutes))), tuple(seconds))
        return _at_positions(found, self.positions) if self.freq == HOURLY else found

    def _from(self, wall: datetime) -> datetime | None:
        """The first wall time from the full second `wall` on, however many came before it."""
        if not len(self.times):
            return None
        if self.freq >= HOURLY:
            return self._in_phase_from(wall)
        if self.positions:
            return next((found for found in self._selected_from(wall) if found >= wall), None)
        return _first_wall(wall, self._days_from(wall.date()), self.times)

    # Below a day: times of day that are whole intervals from the start.

    def _in_phase_from(self, wall: datetime) -> datetime | None:
        if not self._meets_phase_on_some_day:
            return None
        for _ in range(PHASE_LIMIT):
            found = _first_wall(wall, self._days_from(wall.date()), self.times)
            units = 0 if found is None else self._distance_to_phase(found)
            if found is None or units == 0:
                return found
            wall = _unit_after(found, units, STEP_SECONDS[self.freq])
        return None

    @cached_property
    def _meets_phase_on_some_day(self) -> bool:
        unit = STEP_SECONDS[self.freq]
        step = gcd(self.interval, DAY // SECOND // unit)
        start = wall_seconds(self.start.time()) // unit
        return any((wall_seconds(time) // unit - start) % step == 0 for time in self.times)

    def _distance_to_phase(self, wall: datetime) -> int:
        """How many units after that of `wall` the next one comes that `interval` leaves."""
        unit = STEP_SECONDS[self.freq]
        since = (wall - self.start.replace(minute=0, second=0)) // SECOND // unit
        first = (self.start - self.start.replace(minute=0, second=0)) // SECOND // unit
        return (first - since) % self.interval

    # Days

    def _days_from(self, first: date) -> Iterator[date]:
        """The days from `first` on that the rule names; ends when it is proven that none is left.

        A pattern of days that has not come up in one cycle of the calendar never will.
        """
        cycle = CALENDAR_CYCLE * (self.interval if self.freq <= DAILY else 1)
        last = first.toordinal()
        for day in self._days_in_phase(first):
            if self._names(day):
                last = day.toordinal()
                yield day
            elif day.toordinal() - last > cycle:
                return

    def _days_in_phase(self, first: date) -> Iterator[date]:
        if self.freq == DAILY:
            return self._every_nth_day(first)
        return self._every_nth_week(first) if self.freq == WEEKLY else self._days_in_months(first)

    def _every_nth_week(self, first: date) -> Iterator[date]:
        week, stride = self._week_of(first).toordinal(), 7 * self.interval
        begin = week + (self._week_of(self.start).toordinal() - week) % stride
        for start in range(begin, CALENDAR_END.toordinal() - 7, stride):
            for number in range(max(start, first.toordinal()), start + 7):
                yield date.fromordinal(number)

    def _every_nth_day(self, first: date) -> Iterator[date]:
        start = self.start.toordinal()
        begin = first.toordinal() + (start - first.toordinal()) % self.interval
        for number in range(begin, CALENDAR_END.toordinal(), self.interval):
            yield date.fromordinal(number)

    def _days_in_months(self, first: date) -> Iterator[date]:
        for year, month in _months_from(first):
            if self._names_month(year, month):
                yield from _days_of_month(year, month, first)

    def _names_month(self, year: int, month: int) -> bool:
        if self.months and month not in self.months:
            return False
        if self.freq == YEARLY:
            return (year - self.start.year) % self.interval == 0
        months = (year - self.start.year) * 12 + month - self.start.month
        return self.freq != MONTHLY or months % self.interval == 0

    def _week_of(self, day: date) -> date:
        number = day.toordinal() - (day.weekday() - self.week_start) % 7
        return date.fromordinal(max(number, 1))

    def _names(self, day: date) -> bool:
        return all(is_named(day) for is_named in self._day_tests)

    def _read_day_tests(self) -> None:
        tests = (
            (self.months, lambda day: day.month in self.months),
            (self.weekdays, lambda day: day.weekday() in self.weekdays),
            (self.month_days, lambda day: _counts_among(self.month_days, *_month_day(day))),
            (self.year_days, lambda day: _counts_among(self.year_days, *_year_day(day))),
            (self.numbered_weekdays, self._names_numbered_weekday),
            (self.weeks, self._names_week_of),
            (self.easter_days, lambda day: (day - easter(day.year)).days in self.easter_days),
        )
        self._day_tests = [is_named for named, is_named in tests if named]

    def _names_numbered_weekday(self, day: date) -> bool:
        """Whether `day` is a weekday such as the second or the last of its month (or year)."""
        by_month = self.freq == MONTHLY or bool(self.months)
        number, last = _month_day(day) if by_month else _year_day(day)
        from_the_front, from_the_back = (number - 1) // 7 + 1, -((last - number) // 7 + 1)
        return any(
            (day.weekday(), n) in self.numbered_weekdays for n in (from_the_front, from_the_back)
        )

    def _names_week_of(self, day: date) -> bool:
        """Whether the number of the week is named, the week being of the year of most of its days.

        Of weeks counted from the end, a week that reaches into another year is only the last one:
        so dateutil has it.
        """
        week = self._week_of(day)
        year = (week + 3 * DAY).year
        first, last = self._week_of(date(year, 1, 4)), self._week_of(date(year, 12, 28))
        if (week - first).days // 7 + 1 in self.weeks:
            return True
        from_the_end = (week - last).days // 7 - 1
        return from_the_end in self.weeks and (year == day.year or from_the_end == -1)

    # `bysetpos`: some of the times of each year, month, week or day.

    def _selected_from(self, wall: datetime) -> Iterator[datetime]:
        # What no period of a whole cycle has, none ever will.
        for days in islice(self._periods_from(wall.date()), PERIODS_IN_CYCLE[self.freq] + 2):
            yield from self._selected(days)

    def _selected(self, days: list[date]) -> list[datetime]:
        total, per_day = len(days) * len(self.times), len(self.times)
        numbers = {
            position - 1 if position > 0 else total + position
            for position in self.positions
            if abs(position) <= total
        }
        chosen = [divmod(number, per_day) for number in sorted(numbers)]
        found = [datetime.combine(days[day], self.times[number]) for day, number in chosen]
        return [moment for moment in found if moment >= self.start]

    def _periods_from(self, first: date) -> Iterator[list[date]]:
        """The days that the rule names, in one list for each of its periods."""
        days: list[date] = []
        for day in self._days_from(self._period_start(first)):
            if days and self._period_start(day) != self._period_start(days[0]):
                yield days
                days = []
            days.append(day)
        if days:
            yield days

    def _period_start(self, day: date) -> date:
        if self.freq == YEARLY:
            return day.replace(month=1, day=1)
        if self.freq == MONTHLY:
            return day.replace(day=1)
        if self.freq == WEEKLY:
            # In dateutil, the first week of a rule begins with its start.
            return max(self._week_of(day), self.start.date())
        return day

    # `count`

    def _is_past_count(self, wall: datetime) -> bool:
        """Whether `wall`, one of the rule's times, comes after the last that `count` allows."""
        if self.count is None or self.count > self._most_until(wall):
            return False
        return _countdown_of(self).is_over_at(wall)

    def _most_until(self, wall: datetime) -> int:
        return ((wall.date() - self.start.date()).days + 1) * len(self.times)

    def stretches_from(self, first: date) -> Iterator[Stretch]:
        """The rule's times in stretches, from the one that begins with `first` on."""
        if self.positions and self.freq <= DAILY:
            return self._periods_to_count(first)
        return self._days_to_count(first)

    def _periods_to_count(self, first: date) -> Iterator[Stretch]:
        for days in self._periods_from(first):
            selected = self._selected(days)
            yield Stretch(self._period_end(days[0]), len(selected), selected.__getitem__)

    def _period_end(self, day: date) -> date:
        """The first day after the period of `day`."""
        return self._period_start(self._period_start(day) + LONGEST_PERIOD[self.freq] * DAY)

    def _days_to_count(self, first: date) -> Iterator[Stretch]:
        # How many times a day has follows from where in the interval it begins.
        numbers: dict[int, int] = {}
        for day in self._days_from(first):
            phase = -1 if day == self.start.date() else self._first_unit_of(day)
            if phase not in numbers:
                numbers[phase] = len(self._times_on(day))
            yield Stretch(day + DAY, numbers[phase], partial(self._nth_on, day))

    def _nth_on(self, day: date, number: int) -> datetime:
        return datetime.combine(day, self._times_on(day)[number])

    def _times_on(self, day: date) -> Sequence[time] | TimesOfDay:
        """The rule's times on one of the days that it names, from its start on."""
        times: Sequence[time] | TimesOfDay = self.times
        if self.freq >= HOURLY and self.interval > 1:
            unit = STEP_SECONDS[self.freq]
            units = range(self._first_unit_of(day), DAY // SECOND // unit, self.interval)
            times = [time for number in units for time in self.times.within(number * unit, unit)]
        if day > self.start.date():
            return times
        return [time for time in times if time >= self.start.time()]

    def _first_unit_of(self, day: date) -> int:
        """The first hour, minute or second since midnight that `interval` leaves."""
        if self.freq < HOURLY:
            return 0
        unit = STEP_SECONDS[self.freq]
        units_between = (day - self.start.date()) // SECOND // unit
        return (wall_seconds(self.start.time()) // unit - units_between) % self.interval


class Stretch(NamedTuple):
    """Some of a rule's times that are counted together."""

    #: The first day after them.
    end: date
    number: int
    #: The time of that number, from 0.
    nth: Callable[[int], datetime]


class Countdown:
    """Where the last time of a rule is that its `count` allows: counted once, as time goes on.

    It may be asked by several threads: what they share is replaced, and never changed.
    """

    def __init__(self, walls: RuleWalls, count: int) -> None:
        self._walls = walls
        self._count = count
        #: How many times the rule has on the days before this one.
        self._counted: tuple[date, int] = (walls.start.date(), 0)
        self._last: datetime | None = None

    def is_over_at(self, wall: datetime) -> bool:
        """Whether `wall`, one of the rule's times, comes after the last of them."""
        if self._last is None and wall.date() >= self._counted[0]:
            self._count_on_to(wall.date())
        return self._last is not None and wall > self._last

    def _count_on_to(self, day: date) -> None:
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


#: How many rules are remembered that `count` may have ended.
COUNTDOWNS = 2_000


@lru_cache(maxsize=COUNTDOWNS)
def _countdown_of(walls: RuleWalls) -> Countdown:
    # Entries are read anew at each tick, and beat must not count from the start each time.
    return Countdown(walls, walls.count or 0)


def part_values(given: Any) -> list[Any]:
    """The values of a part of a rule, which may be none, one, or several."""
    if given is None:
        return []
    many = isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping))
    return list(given) if many else [given]


def weekday_number(day: Any) -> Any:
    """0 (Monday) to 6 of a dateutil weekday; any other value as it is."""
    return day.weekday if isinstance(day, recurrence.weekday) else day


def _all_or(one: int, count: int, all_of_them: bool) -> Iterable[int]:
    return range(count) if all_of_them else [one]


@lru_cache(maxsize=256)
def _products(minutes: tuple[int, ...], seconds: tuple[int, ...]) -> Sequence[int]:
    return tuple(minute * 60 + second for minute in minutes for second in seconds)


def _at_positions(found: Sequence[int], positions: frozenset[int]) -> list[int]:
    if not positions:
        return list(found)
    count = len(found)
    return [
        value
        for number, value in enumerate(found)
        if number + 1 in positions or number - count in positions
    ]


def _unit_after(wall: datetime, units: int, seconds: int) -> datetime:
    """The beginning of the unit (an hour, a minute or a second) that is `units` after wall's."""
    minute = 0 if seconds == HOUR_SECONDS else wall.minute
    second = wall.second if seconds == 1 else 0
    try:
        return wall.replace(minute=minute, second=second) + units * timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max


def _month_day(day: date) -> tuple[int, int]:
    return day.day, monthrange(day.year, day.month)[1]


def _year_day(day: date) -> tuple[int, int]:
    return day.timetuple().tm_yday, 366 if isleap(day.year) else 365


def _counts_among(named: frozenset[int], number: int, last: int) -> bool:
    """Whether a day is named by its number from the front, or from the back (-1 the last)."""
    return not named or number in named or number - last - 1 in named


# Zones


def named_zone(zone: str | tzinfo) -> tzinfo:
    """The zone of an IANA name; a pytz or dateutil zone by its name; any other tzinfo as it is.

    Celery's `LocalTimezone` becomes dateutil's.

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
    """The IANA name of a zoneinfo, pytz or dateutil zone; None when it has none."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    # dateutil gives a zone's name nowhere but in the path that it was read from.
    path = getattr(zone, "zone", None) or getattr(zone, "_filename", None)
    name = str(path).rpartition("zoneinfo/")[2]
    return name if path is not None and _is_zone_name(name) else None


def has_one_offset(zone: tzinfo | None) -> bool:
    """Whether the zone's offset never changes, so that a number says all about it."""
    return zone is None or zone.utcoffset(None) is not None


def zone_text(zone: tzinfo) -> str:
    """What tells the zone from others: its offset in seconds if it has only one, else its name.

    Of one without a name, such as that of the machine, its offsets in winter and in summer.
    """
    zone = named_zone(zone)
    if has_one_offset(zone):
        return str((zone.utcoffset(None) or NOTHING).total_seconds())
    halves = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 7))
    offsets = "/".join(str(_offset_at(half, zone).total_seconds()) for half in halves)
    return zone_name(zone) or offsets


def zone_from_text(text: str) -> tzinfo | None:
    """The zone that `zone_text` told; `None` if it has no name, or there is none of that name."""
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
