"""When a schedule is due: pure functions of a schedule, its last run and the clock's reading.

Our own schedules calculate this themselves (``Calendar``); Celery's crontab and interval are
calculated here; a schedule of any other class is asked through Celery's methods.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any, TypeVar

from celery.schedules import BaseSchedule, crontab, schedstate
from celery.schedules import schedule as interval
from celery.utils.time import remaining

from .crontabs import CrontabCalendar
from .instants import CALENDAR_END, EPOCH, HOUR, LATEST, NOTHING, as_utc, later, seconds_until
from .slots import Calendar

Made = TypeVar("Made", bound=type)

#: The schedules that are calculated here, with their methods as they were made. Where somebody has
#: patched these, as tests do, the schedule is asked instead.
_CALCULATED: dict[type, tuple[Any, Any]] = {}


def calculated(made: Made) -> Made:
    """Calculate schedules of just this class, rather than ask them by Celery's methods."""
    _CALCULATED[made] = _methods(made)
    return made


def _methods(type_: Any) -> tuple[Any, Any]:
    return type_.is_due, type_.remaining_estimate


calculated(interval)
calculated(crontab)


def next_due(schedule: Any, last_run_at: datetime | None, now: datetime) -> datetime | None:
    """The instant at which ``schedule`` is next due after ``last_run_at``.

    Args:
        schedule: any Celery schedule. One with methods of its own is asked through them.
        last_run_at: in any zone; naive means UTC; ``None`` means that it never ran.
        now: the clock's reading, aware.

    Returns:
        An aware instant in UTC, in the past if the schedule is overdue; ``None`` when nothing is
        left.
    """
    return _rule_of(schedule).due_after(last_run_at, own_now(schedule, now))


def due_by_last_run(schedule: Any, last_run_at: datetime) -> datetime | None:
    """The instant (UTC) at which ``schedule`` is due after ``last_run_at``, whenever that is asked.

    ``None`` if nothing is left; and if a schedule with methods of its own gives another instant
    when its clock reads another time: then the last run alone does not tell.
    """
    if not answers_for_itself(schedule):
        return next_due(schedule, last_run_at, EPOCH)
    try:
        reading = as_utc(_acceptable_last_run(schedule, last_run_at, EPOCH))
        due, again = (
            _Asked(_stopped(schedule, each)).due_after(last_run_at, each)
            for each in (reading, later(reading, -HOUR))
        )
    except Exception:
        # It cannot do with a copy or a clock like this.
        return None
    return due if due == again else None


def interval_due_at(schedule: interval, last_run_at: datetime, now: datetime) -> datetime | None:
    """When an interval is due, ``now`` if it is overdue.

    It is the clock plus what remains, so that the time since ``now`` was read is not counted twice.
    """
    due = next_due(schedule, last_run_at, now)
    if due is None:
        return None
    if due <= now:
        return now
    try:
        remains: timedelta = schedule.remaining_estimate(last_run_at)
        return now + remains
    except OverflowError:
        return due


def due_state(schedule: Any, last_run_at: datetime | None, now: datetime) -> schedstate:
    """What the schedule's ``is_due`` says at ``now``: ``(is_due, seconds until the next check)``.

    Takes the arguments of ``next_due``. ``next`` is ``None`` when nothing is left. An overdue
    crontab that missed Celery's ``beat_cron_starting_deadline`` is not due, and waits for its next
    slot.
    """
    return _rule_of(schedule).state(last_run_at, own_now(schedule, now))


def answers_for_itself(schedule: Any) -> bool:
    """Whether ``schedule`` is asked through methods of its own, and so by its own clock."""
    methods = _CALCULATED.get(type(schedule))
    return methods is None or methods != _methods(type(schedule))


def follows_calendar(schedule: Any) -> bool:
    """Whether the slots of ``schedule`` are calculated here, from a calendar and a time zone."""
    return isinstance(_rule_of(schedule), Calendar)


def is_our_calendar(schedule: Any) -> bool:
    """Whether it is one of our own calendar schedules, and of no subclass."""
    return isinstance(schedule, Calendar) and type(schedule) in _CALCULATED


def is_plain_interval(schedule: Any) -> bool:
    """Whether ``schedule`` is an interval as Celery makes it, which needs no clock."""
    return type(schedule) is interval and not answers_for_itself(schedule)


def own_now(schedule: Any, now: datetime) -> datetime:
    """``now`` (aware), unless the schedule has its own clock: then what that reads, in UTC."""
    if not isinstance(schedule, BaseSchedule):
        return now
    has_clock = (
        getattr(schedule, "nowfun", None) is not None or type(schedule).now is not BaseSchedule.now
    )
    return as_utc(schedule.now()) if has_clock else now


def _rule_of(schedule: Any) -> Calendar | _Interval | _Asked:
    if answers_for_itself(schedule):
        return _Asked(schedule)
    if type(schedule) is interval:
        return _Interval(schedule)
    calendar: Calendar = CrontabCalendar(schedule) if type(schedule) is crontab else schedule
    return calendar


class _Interval:
    """An interval: its end is counted from the last run.

    One that is relative ends at the beginning of a day, hour, minute or second in the schedule's
    zone, as in Celery; where that would be at once, it has its full length.
    """

    def __init__(self, schedule: interval) -> None:
        self.schedule = schedule

    def due_after(self, last_run_at: datetime | None, now: datetime) -> datetime | None:
        return now if last_run_at is None else self._end(last_run_at)

    def state(self, last_run_at: datetime | None, now: datetime) -> schedstate:
        if last_run_at is not None:
            left = (self._end(last_run_at) - now).total_seconds()
            if left > 0:
                return schedstate(False, left)
        if not self.schedule.relative:
            return schedstate(True, self.schedule.seconds)
        return schedstate(True, (self._end(now) - now).total_seconds())

    def _end(self, last_run_at: datetime) -> datetime:
        run_every = self.schedule.run_every
        if not self.schedule.relative:
            return later(as_utc(last_run_at), run_every)
        start = _acceptable_last_run(self.schedule, last_run_at, EPOCH)
        try:
            length = max(remaining(start, run_every, start, relative=True), NOTHING)
        except OverflowError:
            return LATEST
        return later(as_utc(start), length or run_every)


class _Asked:
    """A schedule that is asked through its own methods."""

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule

    def due_after(self, last_run_at: datetime | None, now: datetime) -> datetime | None:
        schedule = self.schedule
        try:
            left = schedule.remaining_estimate(_acceptable_last_run(schedule, last_run_at, now))
        except OverflowError:
            if not isinstance(schedule, interval):
                raise
            return LATEST
        if left is None:
            return None
        # What is left is counted from its clock's reading just now. With an earlier one the slot
        # would seem to come a moment too early, and to come again after its run.
        due = later(as_utc(schedule.now()) if isinstance(schedule, BaseSchedule) else now, left)
        return max(due, now) if last_run_at is None else due

    def state(self, last_run_at: datetime | None, now: datetime) -> schedstate:
        schedule = self.schedule
        try:
            return schedstate(*schedule.is_due(_acceptable_last_run(schedule, last_run_at, now)))
        except OverflowError:
            # Of an interval, Celery adds up the last run and a time that no date can hold.
            if not isinstance(schedule, interval):
                raise
            return schedstate(False, seconds_until(LATEST, now))


def _stopped(schedule: Any, reading: datetime) -> Any:
    """A copy of ``schedule`` whose clock stands still at ``reading``."""
    stopped = object.__new__(type(schedule))
    vars(stopped).update(vars(schedule), now=lambda: reading)
    return stopped


def _acceptable_last_run(schedule: Any, last_run_at: datetime | None, now: datetime) -> datetime:
    """A last run that Celery's own methods can calculate with, in the schedule's zone.

    A schedule that never ran counts from long ago if it is an interval, so that it is due, and else
    from now, so that it waits for its slot.
    """
    if last_run_at is None:
        last_run_at = EPOCH if isinstance(schedule, interval) else now
    moment = min(max(as_utc(last_run_at), EPOCH), CALENDAR_END)
    zone = getattr(schedule, "tz", None)
    return moment.astimezone(zone) if isinstance(zone, tzinfo) else moment
