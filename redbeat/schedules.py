"""The schedules of an entry, beside Celery's: ``crontab`` with a zone, ``rrule``, ``once``.

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

So no slot is lost, none runs before its time, and the same slot never runs twice. There are limits:
a wall clock that is put back by half an hour (Australia/Lord_Howe) has no full hour for 90 minutes,
and a crontab that asks for full hours then waits 90 minutes. A zone with two transitions within 48
hours is read as if it had only the offsets of a day before and a day after. Instants are as right
as the zone database of the machine.

A schedule that never ran is due at once if it is an interval, and at its next slot if it follows
a calendar.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, tzinfo
from functools import cached_property, partial
from typing import Any, ClassVar

from celery.schedules import BaseSchedule, maybe_schedule, schedstate
from celery.schedules import crontab as celery_crontab
from dateutil import rrule as dateutil_rrule

from .timing import parameters
from .timing.binding import forget_zone_of_app
from .timing.crontabs import CrontabCalendar
from .timing.due import calculated, due_state, next_due
from .timing.instants import EARLIEST, TICK, as_utc
from .timing.parameters import FREQUENCIES, RULE_PARAMETERS, shown
from .timing.recurrence import Recurrence, before_first_run
from .timing.rfc5545 import Lines
from .timing.slots import Calendar
from .timing.zones import named_zone

__all__ = ("as_ours", "bound", "crontab", "due_state", "next_due", "once", "rrule", "rruleset")


class _CalendarSchedule(Calendar, BaseSchedule):  # type: ignore[misc]  # celery is untyped
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
        """Read what was given without a zone again: the app may have another one."""

    def remaining_estimate(self, last_run_at: datetime | None) -> timedelta | None:
        """The time from ``now()`` to the first occurrence after ``last_run_at``.

        Negative when overdue; ``None`` if nothing is left. Naive datetimes, from the caller or from
        the clock, are UTC.
        """
        now = as_utc(self.now())
        due = self.due_after(last_run_at, now)
        return None if due is None else due - now

    def is_due(self, last_run_at: datetime | None) -> schedstate:
        """``schedstate(is_due, next)`` by the schedule's own clock; ``next`` in seconds or None."""
        return self.state(last_run_at, as_utc(self.now()))


# Crontabs


#: The fields of a cron text, in the order of crontab(5), by the names of Celery's parameters.
CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


@calculated
class crontab(_CalendarSchedule, celery_crontab):  # type: ignore[misc]  # noqa: N801  # as Celery's
    """Celery's crontab, evaluated in a time zone of its own.

    Args:
        tz: an IANA name or a tzinfo; None follows the app's time zone, as Celery's does.

    All other arguments are those of ``celery.schedules.crontab``.

    Raises:
        ValueError: a field or a zone is not valid; the message names it.
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
        """The first slot after the UTC instant ``moment``."""
        return CrontabCalendar(self).following(moment)

    def deadline(self) -> timedelta | None:
        """Celery's ``beat_cron_starting_deadline``."""
        return CrontabCalendar(self).deadline()

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


# Recurrence rules


@calculated
class rrule(_CalendarSchedule):  # noqa: N801  # the name that 2.x gave it
    """A recurrence rule (RFC 5545, section 3.3.10), with the occurrences that dateutil gives it.

    Args:
        freq: a frequency of ``dateutil.rrule``, or its name in any case.
        dtstart: the start, and the first occurrence if the rule names it. Its zone is the zone
            of the rule, whose wall clock the occurrences keep. Naive means UTC; None means now.
        until: the last instant that may be an occurrence. Naive means UTC.
        nowfun, app: as for every Celery schedule.

    All others as in ``dateutil.rrule.rrule``. Every parameter is an attribute, and ``.rrule`` is
    the dateutil object.

    Raises:
        ValueError: a parameter is not valid; the message names it.
    """

    #: Frequencies of dateutil by their names.
    FREQ_MAP: ClassVar[dict[str, int]] = {name: number for number, name in enumerate(FREQUENCIES)}

    #: What ``repr`` shows: a format with the rule as its one argument.
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
        self.freq = parameters.frequency(freq)
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
        self.interval = parameters.positive("interval", interval)
        self.wkst = parameters.week_start(wkst)
        self.count = None if count is None else parameters.positive("count", count)
        self.until = None if until is None else self._aware("until", until)
        self.bysetpos = parameters.part("bysetpos", bysetpos)
        self.bymonth = parameters.part("bymonth", bymonth)
        self.bymonthday = parameters.part("bymonthday", bymonthday)
        self.byyearday = parameters.part("byyearday", byyearday)
        self.byeaster = parameters.part("byeaster", byeaster)
        self.byweekno = parameters.part("byweekno", byweekno)
        self.byweekday = parameters.part("byweekday", byweekday)
        self.byhour = parameters.part("byhour", byhour)
        self.byminute = parameters.part("byminute", byminute)
        self.bysecond = parameters.part("bysecond", bysecond)
        self.rrule = self._dateutil_rule()

    @staticmethod
    def from_string(text: str, **kwargs: Any) -> rrule | rruleset:
        """The rule or the set of rules that RFC 5545 text describes.

        One ``RRULE`` makes an ``rrule``; several, or any ``RDATE``, ``EXDATE`` or ``EXRULE``, an
        ``rruleset``. Without ``DTSTART`` the rule starts now; floating times are those of the app's
        zone. ``kwargs`` are ``nowfun`` and ``app``.

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
        """The first occurrence after the UTC instant ``moment``; ``None`` when there is none."""
        return self._recurrence.following(moment)

    def before_first_run(self, now: datetime) -> datetime:
        """The instant before ``now``; before the start, if that is only just over."""
        return before_first_run(self._recurrence.start, now)

    @cached_property
    def _recurrence(self) -> Recurrence:
        return Recurrence(self.parameters())

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
        self.__dict__.pop("_recurrence", None)
        self.rrule = self._dateutil_rule()

    def _aware(self, name: str, moment: Any) -> datetime:
        if not isinstance(moment, datetime):
            raise ValueError(f"{name} must be a datetime, got {moment!r}")
        aware: datetime = self.maybe_make_aware(moment)
        zone = named_zone(aware.tzinfo)  # type: ignore[arg-type]  # aware
        return aware if zone is aware.tzinfo else aware.astimezone(zone)

    def _dateutil_rule(self) -> dateutil_rrule.rrule:
        given = {name: value for name, value in self.parameters().items() if value is not None}
        try:
            return dateutil_rrule.rrule(**given)
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{given} is not a valid recurrence rule: {error}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self.parameters(), nowfun=self.nowfun), ()

    def __repr__(self) -> str:
        return self.RRULE_REPR.format(self)


# Sets of rules, and RFC 5545 text


#: How many excluded occurrences in a row are looked through for one that is not excluded: all the
#: seconds of a weekend. A set that excludes more counts as one that is over.
EXCLUSION_LIMIT = 200_000


@calculated
class rruleset(_CalendarSchedule):  # noqa: N801  # beside rrule
    """Several recurrence rules and dates, minus others: made by ``rrule.from_string``.

    Args:
        text: RFC 5545 lines ``DTSTART``, ``RRULE``, ``RDATE``, ``EXRULE`` and ``EXDATE``.
        nowfun, app: as for every Celery schedule.

    ``.text`` is the text with its ``DTSTART`` filled in: it makes an equal set wherever it is read.
    ``.rrule`` is dateutil's ``rruleset``.

    Raises:
        ValueError: the text is not RFC 5545; the message names the part that is wrong.
    """

    def __init__(self, text: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = text
        self._began = as_utc(self.now())
        self._read()

    def began(self) -> datetime:
        """When it was made: a set without ``DTSTART`` starts then."""
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
        self.rrule = dateutil_rrule.rruleset()
        for rule in self.rules:
            self.rrule.rrule(rule.rrule)
        for rule in self._excluded_rules:
            self.rrule.exrule(rule.rrule)
        for moment in self._dates:
            self.rrule.rdate(moment)
        for moment in self._excluded_dates:
            self.rrule.exdate(moment)

    def _follow_app(self) -> None:
        if self.is_floating:
            self._read()

    def following(self, moment: datetime) -> datetime | None:
        """The first occurrence after the UTC instant ``moment``; ``None`` when there is none."""
        for _ in range(EXCLUSION_LIMIT):
            found = [rule.following(moment) for rule in self.rules]
            found.append(next((date for date in self._dates if date > moment), None))
            candidate = min((instant for instant in found if instant is not None), default=None)
            if candidate is None or not self._excludes(candidate):
                return candidate
            moment = candidate
        return None

    def before_first_run(self, now: datetime) -> datetime:
        """The instant before ``now``; before the start, if that is only just over."""
        return before_first_run(as_utc(self.dtstart), now)

    def _excludes(self, moment: datetime) -> bool:
        return moment in self._excluded_dates or any(
            rule.following(moment - TICK) == moment for rule in self._excluded_rules
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.text, nowfun=self.nowfun), ()

    def __repr__(self) -> str:
        return f"<rruleset: {self.text!r}>"


# One-off schedules


@calculated
class once(_CalendarSchedule):  # noqa: N801  # beside crontab and rrule
    """Due once: at the instant ``at``, or as soon as possible after it.

    Args:
        at: the instant; naive means UTC.
        nowfun, app: as for every Celery schedule.

    A last run at or after ``at`` counts as its run; an earlier one does not.

    Raises:
        ValueError: ``at`` is not a datetime.
    """

    def __init__(self, at: datetime, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(at, datetime):
            raise ValueError(f"at must be a datetime, got {shown(at)}")
        self.at = at

    def following(self, moment: datetime) -> datetime | None:
        """``at``, if it is after the UTC instant ``moment``."""
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


# Schedules of others


def bound(schedule: Any, app: Any) -> Any:
    """``schedule`` bound to ``app``, as by Celery's ``maybe_schedule``.

    A number of seconds or a timedelta becomes an interval. A schedule that is known to equal one
    of ours becomes that. If ``app`` is ``None``, a schedule keeps its app.
    """
    if isinstance(schedule, (int, float, timedelta)):
        return maybe_schedule(schedule, app=app)
    schedule = as_ours(schedule)
    if app is not None and getattr(schedule, "_app", None) is not app:
        forget_zone_of_app(schedule, app)
        # What is not a schedule is refused when it is saved.
        with suppress(AttributeError):
            schedule.app = app
    return schedule


def _clocked_as_once(schedule: Any) -> once:
    app = schedule._app  # noqa: SLF001  # `app` is the current one where there is none
    return once(schedule.clocked_time, nowfun=schedule.nowfun, app=app)


def _zoned_as_crontab(schedule: Any) -> crontab:
    _, fields, _ = celery_crontab.__reduce__(schedule)
    app = schedule._app  # noqa: SLF001  # `app` is the current one where there is none
    return crontab(*fields, tz=schedule.tz, app=app)


#: Schedules of others that equal one of ours, by module and name, so that they need no import.
#: https://github.com/celery/django-celery-beat
EQUALS: dict[tuple[str, str], Callable[[Any], BaseSchedule]] = {
    ("django_celery_beat.clockedschedule", "clocked"): _clocked_as_once,
    ("django_celery_beat.tzcrontab", "TzAwareCrontab"): _zoned_as_crontab,
}


def as_ours(schedule: Any) -> Any:
    """The schedule of ours that ``schedule`` is known to equal, else ``schedule`` itself."""
    made = type(schedule)
    equal = EQUALS.get((made.__module__, made.__qualname__))
    return schedule if equal is None else equal(schedule)
