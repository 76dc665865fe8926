"""Celery's crontab as a calendar."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime, time, timedelta
from itertools import islice

from celery.schedules import crontab

from .days import days_of_month, months_from
from .instants import CALENDAR_END, DAY, MINUTE
from .slots import Calendar
from .walls import first_instant_after
from .zones import named_zone

#: The longest wait between two occurrences of a date on a weekday: 29 February on a Sunday,
#: across a century without a leap year.
HORIZON_YEARS = 41


class CrontabCalendar(Calendar):
    """The full minutes that all five fields of a Celery crontab allow, in the crontab's zone.

    Fields are only asked whether they hold a number. An entry is read at every look, so sorting
    them would cost more than it saves.
    """

    def __init__(self, schedule: crontab) -> None:
        self.schedule = schedule

    def following(self, moment: datetime) -> datetime | None:
        """The first slot after the UTC instant ``moment``."""
        return first_instant_after(moment, named_zone(self.schedule.tz), self)

    def deadline(self) -> timedelta | None:
        """Celery's ``beat_cron_starting_deadline``."""
        seconds = self.schedule.app.conf.beat_cron_starting_deadline
        return None if seconds is None else timedelta(seconds=seconds)

    @property
    def runs_through_hours(self) -> bool:
        """Whether the hour field says ``*``, a range or a step, rather than naming hours."""
        field = self.schedule._orig_hour  # noqa: SLF001  # `hour` holds the numbers alone
        return isinstance(field, str) and any(mark in field for mark in "*-/")

    def after(self, wall: datetime) -> datetime | None:
        """The first full minute after the wall time ``wall`` that the crontab allows."""
        start = wall.replace(second=0, microsecond=0) + MINUTE
        if start.year < CALENDAR_END.year and self._allows(start.date()):
            found = self._first_time(start.hour, start.minute)
            if found is not None:
                return datetime.combine(start, found)
        day, found = self._first_day(start.date() + DAY), self._first_time(0, 0)
        return None if day is None or found is None else datetime.combine(day, found)

    def _allows(self, day: date) -> bool:
        schedule = self.schedule
        return (
            day.day in schedule.day_of_month
            and day.month in schedule.month_of_year
            and day.isoweekday() % 7 in schedule.day_of_week
        )

    def _first_day(self, start: date) -> date | None:
        months = islice(months_from(start), HORIZON_YEARS * 12)
        named = (month for month in months if month[1] in self.schedule.month_of_year)
        days = (day for month in named for day in days_of_month(*month, start))
        return next(filter(self._allows, days), None)

    def _first_time(self, hour: int, minute: int) -> time | None:
        """The first time of day from ``hour`` and ``minute`` on."""
        hours, minutes = self.schedule.hour, self.schedule.minute
        if hour in hours:
            found = _first_in(minutes, minute, 60)
            if found is not None:
                return time(hour, found)
        later_hour, first_minute = _first_in(hours, hour + 1, 24), _first_in(minutes, 0, 60)
        if later_hour is None or first_minute is None:
            return None
        return time(later_hour, first_minute)


def _first_in(named: Collection[int], start: int, end: int) -> int | None:
    return next((number for number in range(start, end) if number in named), None)
