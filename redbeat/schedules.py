"""When a schedule is due: pure functions of a schedule, its last run and the clock's reading.

All arithmetic is on UTC instants. A wall clock appears only where a calendar rule (a crontab,
an rrule) names its times by one, and there this rule holds:

* A wall time that the clock skips (spring) runs at the first instant after the gap. Several
  skipped times make one run.
* A wall time that occurs twice (autumn) runs once, the first time, when the schedule names its
  hours: a crontab whose hour field is a value or a list of values, an rrule of DAILY or longer.
  It runs both times when the schedule runs through the hours: a crontab whose hour field holds
  ``*``, a range or a step, an rrule of HOURLY or shorter with a ``by...`` part.
* An rrule of HOURLY or shorter without any ``by...`` part names no wall time at all. It counts
  elapsed time from its start, so its runs are one interval apart through every transition.

So no slot is lost, none runs before its time, and the same slot never runs twice. What the rule
does not promise: a wall clock that is put back by half an hour (Australia/Lord_Howe) has no full
hour for 90 minutes, and a crontab that asks for full hours then waits 90 minutes. A zone with
two transitions within 48 hours is read as if it had the one that is in force a day before and a
day after. Instants are as right as the zone database of the machine.

A schedule that never ran is due at once if it is an interval, and at its next slot if it follows
a calendar; stored with the time of a slot as its score, it awaits that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from datetime import datetime, timedelta, tzinfo
from functools import cached_property, partial
from typing import Any, ClassVar

from celery.schedules import BaseSchedule, maybe_schedule, schedstate
from celery.schedules import crontab as celery_crontab
from celery.schedules import schedule as interval
from celery.utils.time import remaining
from dateutil import rrule as recurrence

from .timing.calendars import (
    CALENDAR_END,
    EARLIEST,
    HOURLY,
    LATEST,
    NOTHING,
    PARTS,
    RULE_PARAMETERS,
    STEP_SECONDS,
    TICK,
    UTC,
    CrontabWalls,
    RuleWalls,
    as_utc,
    first_instant_after,
    named_zone,
    part_values,
    shown,
    wall_at,
    weekday_number,
)
from .timing.rfc5545 import Lines

__all__ = (
    "answers_for_itself",
    "awaited_before",
    "awaited_from",
    "bound",
    "crontab",
    "due_state",
    "follows_calendar",
    "is_plain_interval",
    "last_run_of_new",
    "next_due",
    "once",
    "own_now",
    "rrule",
    "rruleset",
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: A never-run rule still takes the occurrence at its `dtstart` when that is this recently past:
#: a rule that starts now is a moment old by the time it has been stored.
START_GRACE = timedelta(seconds=10)

#: How many looks back for a slot, each four times as far: the last one is of some four years.
FARTHEST_LOOK_BACK = 12

#: What a score leaves out of a due time: scores are rounded down to whole seconds.
SCORE_STEP = timedelta(seconds=1)


def next_due(schedule: Any, last_run_at: datetime | None, now: datetime) -> datetime | None:
    """The instant at which `schedule` is next due after `last_run_at`.

    Args:
        schedule: any Celery schedule. One with methods of its own is asked through them.
        last_run_at: in any zone; naive means UTC; None means that it never ran.
        now: the clock's reading, aware.

    Returns:
        An aware instant in UTC, in the past if the schedule is overdue; None when nothing is left.
    """
    now = own_now(schedule, now)
    if is_plain_interval(schedule):
        return now if last_run_at is None else _interval_end(schedule, last_run_at)
    calendar = _calendar_of(schedule)
    if calendar is None:
        return _asked_next_due(schedule, last_run_at, now)
    return calendar.due_after(last_run_at, now)


def run_to_count_from(
    schedule: Any, last_run_at: datetime | None, total_run_count: int
) -> datetime | None:
    """The last run as `next_due` and `due_state` want it.

    A new entry bears the time at which it was made as its last run. That must not hide the first
    occurrence of a rule that starts now, nor the one of `once`. An occurrence at that very time is
    one that ran.
    """
    if last_run_at is None or total_run_count or type(schedule) not in OUR_CALENDARS:
        return last_run_at
    before: datetime = schedule.before_first_run(as_utc(last_run_at))
    return before if _later(before, TICK) < as_utc(last_run_at) else last_run_at


def last_run_of_new(schedule: Any, made_at: datetime) -> datetime:
    """What an entry that is made at `made_at` (aware) bears as its last run.

    A moment less, if a rule has an occurrence at that very time: it would count as one that ran.
    """
    # Rules are to the second, and are looked at only where it matters.
    if made_at.microsecond or type(schedule) not in OUR_CALENDARS:
        return made_at
    before = _later(as_utc(made_at), -TICK)
    takes_it = schedule.before_first_run(as_utc(made_at)) <= before
    takes_place = takes_it and schedule.following(before) == as_utc(made_at)
    return made_at - TICK if takes_place else made_at


def awaited_from(schedule: Any, score: float, now: datetime) -> datetime | None:
    """The last run as `next_due` wants it, of a calendar that never ran and was due at `score`.

    Who writes an entry without a history gives its first slot as its score, in whole seconds: that
    slot is to run, however late beat comes to it. None if `score` is no slot, such as the zero that
    says *look at it now*; then the schedule counts from when it is looked at.
    """
    if isinstance(schedule, interval) or score <= 0:
        return None
    moment = _later(EPOCH, timedelta(seconds=score))
    before = _later(moment, -TICK)
    slot = next_due(schedule, before, now)
    return before if slot is not None and slot < _later(moment, SCORE_STEP) else None


def awaited_before(schedule: Any, score: float, now: datetime) -> datetime | None:
    """The last run as `next_due` wants it, of a calendar that never ran and awaits a slot.

    The slot is one up to `score`, in seconds since the epoch: nobody knows which its writer meant.
    None for an interval, and if there is none in four years.
    """
    if isinstance(schedule, interval):
        return None
    latest = _later(EPOCH, timedelta(seconds=score))
    for power in range(FARTHEST_LOOK_BACK):
        slot = next_due(schedule, _later(latest, -timedelta(minutes=4**power)), now)
        if slot is not None and slot <= latest:
            return _later(slot, -TICK)
    return None


def due_state(schedule: Any, last_run_at: datetime | None, now: datetime) -> schedstate:
    """What the schedule's `is_due` says at `now`: `(is_due, seconds until the next check)`.

    Takes the arguments of `next_due`. `next` is None when nothing is left. An overdue crontab
    that missed Celery's `beat_cron_starting_deadline` is not due, and waits for its next slot.
    """
    now = own_now(schedule, now)
    if is_plain_interval(schedule):
        return _interval_state(schedule, last_run_at, now)
    calendar = _calendar_of(schedule)
    if calendar is None:
        return _asked_state(schedule, last_run_at, now)
    return calendar.state(last_run_at, now)


def answers_for_itself(schedule: Any) -> bool:
    """Whether `schedule` is asked through methods of its own, and so by its own clock."""
    return not _is_as_made(type(schedule))


def follows_calendar(schedule: Any) -> bool:
    """Whether the slots of `schedule` are calculated here, from a calendar and a time zone."""
    return _calendar_of(schedule) is not None


def own_now(schedule: Any, now: datetime) -> datetime:
    """`now` (aware), unless the schedule has a clock of its own: then what that reads, in UTC."""
    if not isinstance(schedule, BaseSchedule) or not _has_own_clock(schedule):
        return now
    return as_utc(schedule.now())


def _has_own_clock(schedule: BaseSchedule) -> bool:
    nowfun = getattr(schedule, "nowfun", None)
    return nowfun is not None or type(schedule).now is not BaseSchedule.now


def _later(moment: datetime, delta: timedelta) -> datetime:
    try:
        return moment + delta
    except OverflowError:
        return LATEST if delta > NOTHING else EARLIEST


# Whose clock and zone a schedule follows


def bound(schedule: Any, app: Any) -> Any:
    """`schedule` as an entry of `app` has it, bound to the app as by Celery's `maybe_schedule`.

    A number of seconds or a timedelta becomes an interval. A schedule that is known to equal one
    of ours becomes that. Where `app` is None, a schedule keeps the app that it has.
    """
    if isinstance(schedule, (int, float, timedelta)):
        return maybe_schedule(schedule, app=app)
    schedule = as_ours(schedule)
    if app is not None and getattr(schedule, "_app", None) is not app:
        _forget_zone_of_app(schedule, app)
        # What is no schedule is refused when it is saved.
        with suppress(AttributeError):
            schedule.app = app
    return schedule


def _forget_zone_of_app(schedule: Any, app: Any) -> None:
    """Let the zone be asked of `app` that Celery keeps in a schedule once it was asked for."""
    if not isinstance(schedule, BaseSchedule):
        return
    kept = vars(schedule)
    kept.pop("utc_enabled", None)
    if "tz" not in kept or getattr(schedule, "zone", None) is not None:
        return
    may_be_own = isinstance(schedule, (interval, celery_crontab))
    if not may_be_own or kept["tz"] in (schedule.app.timezone, app.timezone):
        del kept["tz"]


def own_zone(schedule: Any) -> tzinfo | None:
    """The zone that a crontab or an interval carries itself; None if it follows its app.

    Celery keeps a zone that it has asked of the app in the same place as one that a user has put
    there. So one that equals the app's counts as the app's.
    """
    zone = schedule.tz if _has_zone(schedule) else None
    if zone is None:
        return None
    is_fixed = getattr(schedule, "zone", None) is not None or _is_in_class(schedule, zone)
    return named_zone(zone) if is_fixed or zone != schedule.app.timezone else None


def follows_zone_of_app(schedule: Any) -> bool:
    """Whether it depends on the zone of its app when it is due."""
    names_times = isinstance(schedule, celery_crontab) or (
        isinstance(schedule, interval) and schedule.relative
    )
    return names_times and own_zone(schedule) is None


def slot_of_other_zone(schedule: Any, score: float, now: datetime, zone: tzinfo) -> datetime | None:
    """A last run just before the slot that a crontab, read in `zone`, has at `score`.

    By the clock of the schedule's own zone. `None` if it has none there.
    """
    if not isinstance(schedule, celery_crontab):
        return None
    other = copy(schedule)
    other.app, other.tz = schedule.app, zone
    if awaited_from(other, score, now) is None:
        return None
    wall = wall_at(EPOCH + timedelta(seconds=score), zone)
    return as_utc(wall.replace(tzinfo=named_zone(schedule.tz))) - TICK


def _has_zone(schedule: Any) -> bool:
    return "tz" in vars(schedule) or any("tz" in vars(base) for base in _own_bases(schedule))


def _is_in_class(schedule: Any, zone: Any) -> bool:
    return any(vars(base).get("tz") is zone for base in _own_bases(schedule))


def _own_bases(schedule: Any) -> list[type]:
    """Its class and bases of that which are neither Celery's nor ours."""
    return [base for base in type(schedule).__mro__ if base not in KNOWN_BASES]


def _clocked_as_once(schedule: Any) -> once:
    return once(schedule.clocked_time, nowfun=schedule.nowfun, app=schedule._app)


def _zoned_as_crontab(schedule: Any) -> crontab:
    _, fields, _ = celery_crontab.__reduce__(schedule)
    return crontab(*fields, tz=schedule.tz, app=schedule._app)


#: Schedules of others that equal one of ours, by module and name: they are not imported for that.
#: https://github.com/celery/django-celery-beat
EQUALS: dict[tuple[str, str], Callable[[Any], BaseSchedule]] = {
    ("django_celery_beat.clockedschedule", "clocked"): _clocked_as_once,
    ("django_celery_beat.tzcrontab", "TzAwareCrontab"): _zoned_as_crontab,
}


def as_ours(schedule: Any) -> Any:
    """The schedule of ours that `schedule` is known to equal, else `schedule` itself."""
    made = type(schedule)
    equal = EQUALS.get((made.__module__, made.__qualname__))
    return schedule if equal is None else equal(schedule)


# Intervals


def is_plain_interval(schedule: Any) -> bool:
    """Whether `schedule` is an interval as Celery makes it, which needs no clock."""
    return type(schedule) is interval and _is_as_made(interval)


def _interval_end(schedule: Any, last_run_at: datetime) -> datetime:
    """When an interval that began with a run ends.

    One that is relative ends at the beginning of a day, hour, minute or second in the schedule's
    zone, as Celery has it; one that would be over at once is taken as it is.
    """
    if not schedule.relative:
        return _later(as_utc(last_run_at), schedule.run_every)
    start = _acceptable_last_run(schedule, last_run_at, EPOCH)
    try:
        length = max(remaining(start, schedule.run_every, start, relative=True), NOTHING)
    except OverflowError:
        return LATEST
    return _later(as_utc(start), length or schedule.run_every)


def _interval_state(schedule: Any, last_run_at: datetime | None, now: datetime) -> schedstate:
    if last_run_at is not None:
        left = (_interval_end(schedule, last_run_at) - now).total_seconds()
        if left > 0:
            return schedstate(False, left)
    if not schedule.relative:
        return schedstate(True, schedule.seconds)
    return schedstate(True, (_interval_end(schedule, now) - now).total_seconds())


# Schedules that answer for themselves


def _asked_next_due(schedule: Any, last_run_at: datetime | None, now: datetime) -> datetime | None:
    try:
        left = schedule.remaining_estimate(_acceptable_last_run(schedule, last_run_at, now))
    except OverflowError:
        if not isinstance(schedule, interval):
            raise
        return LATEST
    if left is None:
        return None
    due = _later(_clock_of(schedule, now), left)
    return max(due, now) if last_run_at is None else due


def _clock_of(schedule: Any, now: datetime) -> datetime:
    """What the clock of a schedule reads that has just said how much time is left by it.

    Read before, the slot would seem to come a moment too early, and to come again after its run.
    """
    return as_utc(schedule.now()) if isinstance(schedule, BaseSchedule) else now


def _asked_state(schedule: Any, last_run_at: datetime | None, now: datetime) -> schedstate:
    try:
        return schedstate(*schedule.is_due(_acceptable_last_run(schedule, last_run_at, now)))
    except OverflowError:
        # Of an interval, Celery adds up the last run and a time that no date can hold.
        if not isinstance(schedule, interval):
            raise
        return schedstate(False, _seconds_between(now, LATEST))


def _acceptable_last_run(schedule: Any, last_run_at: datetime | None, now: datetime) -> datetime:
    """A last run that Celery's own methods can calculate with, in the schedule's zone.

    Where there was none, an interval counts from long ago, so that it is due, and any other
    schedule from now, so that it waits for its slot.
    """
    if last_run_at is None:
        last_run_at = EPOCH if isinstance(schedule, interval) else now
    moment = min(max(as_utc(last_run_at), EPOCH), CALENDAR_END)
    zone = getattr(schedule, "tz", None)
    return moment.astimezone(zone) if isinstance(zone, tzinfo) else moment


# Calendars


class _Calendar:
    """Something made of instants that can be looked up one after the other."""

    def following(self, moment: datetime) -> datetime | None:
        """The first occurrence after the UTC instant `moment`; None when there is none."""
        raise NotImplementedError

    def before_first_run(self, now: datetime) -> datetime:
        """The instant after which a schedule that never ran looks for its first slot."""
        return now

    def deadline(self) -> timedelta | None:
        """How late a missed occurrence may still run; None means however late."""
        return None

    def due_after(self, last_run_at: datetime | None, now: datetime) -> datetime | None:
        """The first occurrence after the last run; after now if there was none."""
        if last_run_at is None:
            return self.following(self.before_first_run(now))
        return self.following(as_utc(last_run_at))

    def state(self, last_run_at: datetime | None, now: datetime) -> schedstate:
        """`(is_due, seconds until the next occurrence)` at the instant `now`."""
        due = self.due_after(last_run_at, now)
        if due is None or due > now:
            return schedstate(False, _seconds_between(now, due))
        return schedstate(
            not self._is_too_late(due, now), _seconds_between(now, self.following(now))
        )

    def _is_too_late(self, due: datetime, now: datetime) -> bool:
        deadline = self.deadline()
        if deadline is None or due == now:
            return False
        latest_excused = _later(now, -deadline) - TICK
        following = self.following(latest_excused)
        return following is None or following > now


class _CalendarSchedule(_Calendar, BaseSchedule):  # type: ignore[misc]  # celery is untyped
    """A calendar that Celery can ask, by its own clock."""

    @property
    def app(self) -> Any:
        """The app whose clock and zone it follows."""
        return BaseSchedule.app.fget(self)

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app
        self._follow_app()

    def _follow_app(self) -> None:
        """Read anew what was given without a zone: the app may have another one."""

    def remaining_estimate(self, last_run_at: datetime | None) -> timedelta | None:
        """The time from `now()` to the first occurrence after `last_run_at`, None if none is left.

        Naive datetimes, from the caller or from the clock, are UTC. Negative when overdue.
        """
        now = as_utc(self.now())
        due = self.due_after(last_run_at, now)
        return None if due is None else due - now

    def is_due(self, last_run_at: datetime | None) -> schedstate:
        """`schedstate(is_due, next)` by the schedule's own clock; `next` in seconds or None."""
        return self.state(last_run_at, as_utc(self.now()))


def _calendar_of(schedule: Any) -> _Calendar | None:
    """The calendar that a schedule is; None for one that has to be asked by its own methods."""
    if type(schedule) is interval or not _is_as_made(type(schedule)):
        return None
    return _CeleryCrontab(schedule) if type(schedule) is celery_crontab else schedule


def _seconds_between(now: datetime, due: datetime | None) -> float | None:
    return None if due is None else (due - now).total_seconds()


# Crontabs


#: The fields of a cron text, in the order of crontab(5), by the names of Celery's parameters.
CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


class crontab(_CalendarSchedule, celery_crontab):  # type: ignore[misc]  # noqa: N801  # as Celery's
    """Celery's crontab, evaluated in a time zone of its own.

    Args:
        tz: an IANA name or a tzinfo; None follows the app's time zone, as Celery's does.

    All other arguments are those of `celery.schedules.crontab`.

    Raises:
        ValueError: a field or a zone that there is not; the message names it.
    """

    def __init__(
        self,
        minute: Any = "*",
        hour: Any = "*",
        day_of_week: Any = "*",
        day_of_month: Any = "*",
        month_of_year: Any = "*",
        *,
        tz: str | tzinfo | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(minute, hour, day_of_week, day_of_month, month_of_year, **kwargs)
        self.zone = None if tz is None else named_zone(tz)
        if self.zone is not None:
            self.tz = self.zone

    @classmethod
    def from_string(cls, crontab: str, tz: str | tzinfo | None = None) -> Any:
        """A crontab from its five fields in the order of crontab(5), separated by blanks."""
        return cls(**dict(zip(CRON_FIELDS, crontab.split(), strict=True)), tz=tz)

    def following(self, moment: datetime) -> datetime | None:
        """The first slot after the UTC instant `moment`."""
        return _crontab_slot_after(self, moment)

    def deadline(self) -> timedelta | None:
        """Celery's `beat_cron_starting_deadline`."""
        return _cron_starting_deadline(self)

    def __eq__(self, other: Any) -> Any:
        if isinstance(other, celery_crontab) and getattr(other, "zone", None) != self.zone:
            return False
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as Celery's

    def __repr__(self) -> str:
        return (
            super().__repr__() if self.zone is None else f"{super().__repr__()[:-1]} {self.zone}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        _, fields, kwargs = super().__reduce__()
        return partial(type(self), tz=self.zone), fields, kwargs


class _CeleryCrontab(_Calendar):
    """Celery's own crontab, in the zone of its app."""

    def __init__(self, schedule: celery_crontab) -> None:
        self.schedule = schedule

    def following(self, moment: datetime) -> datetime | None:
        return _crontab_slot_after(self.schedule, moment)

    def deadline(self) -> timedelta | None:
        return _cron_starting_deadline(self.schedule)


def _cron_starting_deadline(schedule: celery_crontab) -> timedelta | None:
    seconds = schedule.app.conf.beat_cron_starting_deadline
    return None if seconds is None else timedelta(seconds=seconds)


def _crontab_slot_after(schedule: celery_crontab, moment: datetime) -> datetime | None:
    return first_instant_after(moment, named_zone(schedule.tz), CrontabWalls(schedule))


# Recurrence rules


FREQUENCIES = recurrence.FREQNAMES


class rrule(_CalendarSchedule):  # noqa: N801  # the name that 2.x gave it
    """A recurrence rule (RFC 5545, section 3.3.10), with the occurrences that dateutil gives it.

    Args:
        freq: a frequency of `dateutil.rrule`, or its name in any case.
        dtstart: the start, and the first occurrence if the rule names it. Its zone is the zone
            of the rule, whose wall clock the occurrences keep. Naive means UTC; None means now.
        until: the last instant that may be an occurrence. Naive means UTC.
        nowfun, app: as for every Celery schedule.

    All others as in `dateutil.rrule.rrule`. Every parameter is an attribute, and `.rrule` is the
    dateutil object.

    Raises:
        ValueError: a parameter that no rule can have; the message names it.
    """

    #: Frequencies of dateutil by their names.
    FREQ_MAP: ClassVar[dict[str, int]] = {name: number for number, name in enumerate(FREQUENCIES)}

    #: What `repr` shows: a format with the rule as its one argument.
    RRULE_REPR = f"<rrule: {', '.join(f'{name}: {{0.{name}}}' for name in RULE_PARAMETERS)}>"

    def __init__(
        self,
        freq: int | str,
        dtstart: datetime | None = None,
        interval: int = 1,
        wkst: Any = None,
        count: int | None = None,
        until: datetime | None = None,
        bysetpos: Any = None,
        bymonth: Any = None,
        bymonthday: Any = None,
        byyearday: Any = None,
        byeaster: Any = None,
        byweekno: Any = None,
        byweekday: Any = None,
        byhour: Any = None,
        byminute: Any = None,
        bysecond: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.freq = _frequency(freq)
        start = self.now() if dtstart is None else dtstart
        #: The moments that were given without a zone, and so follow the app.
        self._given = {
            name: moment
            for name, moment in (("dtstart", start), ("until", until))
            if isinstance(moment, datetime) and moment.tzinfo is None
        }
        if dtstart is None and self.nowfun is None:
            self._given["dtstart"] = as_utc(start)
        #: The text in which it was given without a zone.
        self._text: rruleset | None = None
        self.dtstart = self._aware("dtstart", start)
        self.interval = _positive("interval", interval)
        self.wkst = _week_start(wkst)
        self.count = None if count is None else _positive("count", count)
        self.until = None if until is None else self._aware("until", until)
        self.bysetpos = _part("bysetpos", bysetpos)
        self.bymonth = _part("bymonth", bymonth)
        self.bymonthday = _part("bymonthday", bymonthday)
        self.byyearday = _part("byyearday", byyearday)
        self.byeaster = _part("byeaster", byeaster)
        self.byweekno = _part("byweekno", byweekno)
        self.byweekday = _part("byweekday", byweekday)
        self.byhour = _part("byhour", byhour)
        self.byminute = _part("byminute", byminute)
        self.bysecond = _part("bysecond", bysecond)
        self.rrule = self._dateutil_rule(self.parameters())

    @staticmethod
    def from_string(text: str, **kwargs: Any) -> rrule | rruleset:
        """The rule or the set of rules that RFC 5545 text describes.

        One `RRULE` makes an `rrule`; several, or any `RDATE`, `EXDATE` or `EXRULE`, an
        `rruleset`. Without `DTSTART` the rule starts now; floating times are those of the app's
        zone. `kwargs` are `nowfun` and `app`.

        Raises:
            ValueError: the text is not RFC 5545; the message names the part that is wrong.
        """
        found = rruleset(text, **kwargs)
        if [name for name in found.names if name != "DTSTART"] != ["RRULE"]:
            return found
        rule = rrule(**found.rules[0].parameters(), **kwargs)
        if found.is_floating:
            rule._text = found
        return rule

    def parameters(self) -> dict[str, Any]:
        """The parameters by name, as attributes hold them."""
        return {name: getattr(self, name) for name in RULE_PARAMETERS}

    def following(self, moment: datetime) -> datetime | None:
        """The first occurrence after the UTC instant `moment`; None when there is none."""
        if moment < self._start and self._starts_with_an_occurrence:
            return self._unless_over(self._start)
        if self._counts_elapsed_time:
            return self._unless_over(self._elapsed_after(moment))
        if self._end is not None and moment >= self._end:
            return None
        found = first_instant_after(max(moment, self._start), self._zone, self._walls)
        return self._unless_over(found)

    def before_first_run(self, now: datetime) -> datetime:
        """The instant before `now`; before the start, if that is only just over."""
        return _before_first_run(self._start, now)

    def _follow_app(self) -> None:
        if not self._given and self._text is None:
            return
        if self._text is not None:
            self._text = rruleset(self._text.given, nowfun=self._text.began, app=self._app)
            rule = self._text.rules[0]
            self.dtstart, self.until = rule.dtstart, rule.until
        for name, moment in self._given.items():
            aware = moment if moment.tzinfo is None else moment.astimezone(named_zone(self.tz))
            setattr(self, name, self._aware(name, aware))
        for name in ("_zone", "_start", "_end", "_walls", "_starts_with_an_occurrence"):
            self.__dict__.pop(name, None)
        self.rrule = self._dateutil_rule(self.parameters())

    def _aware(self, name: str, moment: Any) -> datetime:
        if not isinstance(moment, datetime):
            raise ValueError(f"{name} must be a datetime, got {moment!r}")
        aware: datetime = self.maybe_make_aware(moment)
        zone = named_zone(aware.tzinfo)  # type: ignore[arg-type]  # aware
        return aware if zone is aware.tzinfo else aware.astimezone(zone)

    def _dateutil_rule(self, parameters: Mapping[str, Any]) -> recurrence.rrule:
        try:
            return recurrence.rrule(**parameters)
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            given = {name: value for name, value in parameters.items() if value is not None}
            raise ValueError(f"no recurrence rule can have {given}: {error}") from error

    def _unless_over(self, occurrence: datetime | None) -> datetime | None:
        is_over = occurrence is None or (self._end is not None and occurrence > self._end)
        return None if is_over else occurrence

    @cached_property
    def _zone(self) -> tzinfo:
        return self.dtstart.tzinfo or UTC

    @cached_property
    def _start(self) -> datetime:
        return as_utc(self.dtstart).replace(microsecond=0)

    @cached_property
    def _end(self) -> datetime | None:
        return None if self.until is None else as_utc(self.until)

    @cached_property
    def _walls(self) -> RuleWalls:
        return RuleWalls(self.parameters(), wall_at(self._start, self._zone))

    @cached_property
    def _starts_with_an_occurrence(self) -> bool:
        return self._counts_elapsed_time or self._walls.first == self._walls.start

    @cached_property
    def _counts_elapsed_time(self) -> bool:
        return self.freq >= HOURLY and all(getattr(self, part) is None for part in PARTS)

    @cached_property
    def _step(self) -> timedelta:
        try:
            return timedelta(seconds=STEP_SECONDS[self.freq]) * self.interval
        except OverflowError:
            return timedelta.max

    def _elapsed_after(self, moment: datetime) -> datetime | None:
        step = self._step
        number = max((moment - self._start) // step + 1, 0)
        if self.count is not None and number >= self.count:
            return None
        try:
            return self._start + number * step
        except OverflowError:
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self.parameters(), nowfun=self.nowfun), ()

    def __repr__(self) -> str:
        return self.RRULE_REPR.format(self)


def _before_first_run(start: datetime, now: datetime) -> datetime:
    is_just_over = NOTHING <= now - start < START_GRACE
    return _later(start if is_just_over else now, -TICK)


#: Values in one part of a rule: `byyearday` and `bysetpos` have 732 different ones.
LONGEST_PART = 1_000


def _frequency(freq: Any) -> int:
    if isinstance(freq, str) and freq.upper() in FREQUENCIES:
        return FREQUENCIES.index(freq.upper())
    if _is_whole(freq) and 0 <= freq < len(FREQUENCIES):
        return int(freq)
    names = ", ".join(FREQUENCIES)
    raise ValueError(f"freq must be one of {names}, or its number, got {shown(freq)}")


def _positive(name: str, number: Any) -> int:
    if not _is_whole(number) or number < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more, got {shown(number)}")
    return int(number)


def _week_start(day: Any) -> Any:
    if day is None or isinstance(day, recurrence.weekday) or (_is_whole(day) and 0 <= day <= 6):
        return day
    raise ValueError(f"wkst must be a weekday or 0 to 6, got {shown(day)}")


def _part(name: str, given: Any) -> Any:
    """`given`, once it is known to be what the part `name` can hold."""
    low, high, takes_zero = PARTS[name]
    values = part_values(given)
    if len(values) > LONGEST_PART:
        raise ValueError(f"{name} may hold {LONGEST_PART} values, got {len(values)}")
    for value in map(weekday_number, values) if name == "byweekday" else values:
        if not _is_whole(value) or not low <= value <= high or (value == 0 and not takes_zero):
            bounds = f"{low} to {high}" if takes_zero or low > 0 else f"{low} to {high} without 0"
            raise ValueError(f"{name} must be one or more of {bounds}, got {shown(value)}")
    return given


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


# Sets of rules, and RFC 5545 text


#: How many excluded occurrences in a row are looked through for one that is not excluded: all the
#: seconds of a weekend. A set that excludes more counts as one that is over.
EXCLUSION_LIMIT = 200_000


class rruleset(_CalendarSchedule):  # noqa: N801  # beside rrule
    """Several recurrence rules and dates, less others: made by `rrule.from_string`.

    Args:
        text: RFC 5545 lines `DTSTART`, `RRULE`, `RDATE`, `EXRULE` and `EXDATE`.
        nowfun, app: as for every Celery schedule.

    `.text` is the text with its `DTSTART` filled in, and makes an equal set wherever it is read.
    `.rrule` is dateutil's `rruleset`.

    Raises:
        ValueError: the text is not RFC 5545; the message names the part that is wrong.
    """

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = text
        self._began = as_utc(self.now())
        self._read()

    def began(self) -> datetime:
        """When it was made: a set without `DTSTART` starts then."""
        return self._began

    def _read(self) -> None:
        lines = Lines(self.given, named_zone(self.tz), self._began)
        self.is_floating = lines.is_floating
        self.text = lines.text
        self.names = lines.names
        self.dtstart = lines.start
        self.rules = [rrule(**parameters) for parameters in lines.rules("RRULE")]
        self._excluded_rules = [rrule(**parameters) for parameters in lines.rules("EXRULE")]
        self._dates = sorted(as_utc(moment) for moment in lines.dates("RDATE"))
        self._excluded_dates = frozenset(as_utc(moment) for moment in lines.dates("EXDATE"))
        if not self.rules:
            self._dates = sorted({as_utc(self.dtstart), *self._dates})
        self.rrule = self._dateutil_set()

    def _follow_app(self) -> None:
        if self.is_floating:
            self._read()

    def following(self, moment: datetime) -> datetime | None:
        """The first occurrence after the UTC instant `moment`; None when there is none."""
        for _ in range(EXCLUSION_LIMIT):
            candidate = self._candidate_after(moment)
            if candidate is None or not self._excludes(candidate):
                return candidate
            moment = candidate
        return None

    def before_first_run(self, now: datetime) -> datetime:
        """The instant before `now`; before the start, if that is only just over."""
        return _before_first_run(as_utc(self.dtstart), now)

    def _candidate_after(self, moment: datetime) -> datetime | None:
        candidates = [rule.following(moment) for rule in self.rules]
        candidates.append(next((date for date in self._dates if date > moment), None))
        return min((found for found in candidates if found is not None), default=None)

    def _excludes(self, moment: datetime) -> bool:
        return moment in self._excluded_dates or any(
            rule.following(moment - TICK) == moment for rule in self._excluded_rules
        )

    def _dateutil_set(self) -> recurrence.rruleset:
        members = recurrence.rruleset()
        for rule in self.rules:
            members.rrule(rule.rrule)
        for rule in self._excluded_rules:
            members.exrule(rule.rrule)
        for moment in self._dates:
            members.rdate(moment)
        for moment in self._excluded_dates:
            members.exdate(moment)
        return members

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.text, nowfun=self.nowfun), ()

    def __repr__(self) -> str:
        return f"<rruleset: {self.text!r}>"


# One-off schedules


class once(_CalendarSchedule):  # noqa: N801  # beside crontab and rrule
    """Due once: at the instant `at`, or as soon after it as anybody looks.

    Args:
        at: the instant; naive means UTC.
        nowfun, app: as for every Celery schedule.

    A last run at or after `at` was the run; one before it was not.

    Raises:
        ValueError: `at` is not a datetime.
    """

    def __init__(self, at: datetime, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(at, datetime):
            raise ValueError(f"at must be a datetime, got {shown(at)}")
        self.at = at

    def following(self, moment: datetime) -> datetime | None:
        """`at`, if it is after the UTC instant `moment`."""
        at = as_utc(self.at)
        return at if at > moment else None

    def before_first_run(self, now: datetime) -> datetime:
        """The beginning of time: a missed run is late, not lost."""
        return EARLIEST

    def __eq__(self, other: Any) -> Any:
        return as_utc(other.at) == as_utc(self.at) if isinstance(other, once) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as all of Celery's schedules

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.at, nowfun=self.nowfun), ()

    def __repr__(self) -> str:
        return f"<once: {self.at.isoformat()}>"


OUR_CALENDARS = frozenset({crontab, rrule, rruleset, once})

#: The classes of crontabs and intervals, as Celery and we make them.
KNOWN_BASES = frozenset({*crontab.__mro__, *interval.__mro__})

#: The schedules that are calculated here, and the methods that are not asked therefore.
METHODS = {
    made: (made.is_due, made.remaining_estimate)
    for made in (interval, celery_crontab, *OUR_CALENDARS)
}


def _is_as_made(type_: type) -> bool:
    """Whether it is one of these, and nobody has patched the methods, as tests do."""
    methods = METHODS.get(type_)
    return methods is not None and methods == (
        type_.is_due,  # type: ignore[attr-defined]  # all in the table have them
        type_.remaining_estimate,  # type: ignore[attr-defined]  # likewise
    )
