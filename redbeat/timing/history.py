"""The last run to count from, for an entry whose history is missing or says too little.

Each function gives a last run as ``due.next_due`` and ``due.due_state`` want it.
"""

from __future__ import annotations

from copy import copy
from datetime import datetime, timedelta, tzinfo
from typing import Any

from celery.schedules import crontab
from celery.schedules import schedule as interval

from .due import is_our_calendar, is_plain_interval, next_due
from .instants import EPOCH, SECOND, TICK, as_utc, later
from .zones import named_zone, wall_at

#: How many looks back for a slot, each four times as far: the last one is of some four years.
FARTHEST_LOOK_BACK = 12


def run_to_count_from(
    schedule: Any, last_run_at: datetime | None, total_run_count: int
) -> datetime | None:
    """The last run that an entry counts from.

    A new entry has the time at which it was made as its last run. That must not hide the first
    occurrence of a rule that starts now, nor the one of ``once``. An occurrence at that very time
    counts as one that ran.
    """
    if last_run_at is None or total_run_count or not is_our_calendar(schedule):
        return last_run_at
    before: datetime = schedule.before_first_run(as_utc(last_run_at))
    return before if later(before, TICK) < as_utc(last_run_at) else last_run_at


def last_run_of_new(schedule: Any, made_at: datetime) -> datetime:
    """The last run that an entry gets which is made at ``made_at`` (aware).

    A moment earlier, if a rule has an occurrence at that very time: it would count as one that ran.
    """
    # Rules are to the second, and are looked at only where it matters.
    if made_at.microsecond or not is_our_calendar(schedule):
        return made_at
    before = later(as_utc(made_at), -TICK)
    takes_it = schedule.before_first_run(as_utc(made_at)) <= before
    takes_place = takes_it and schedule.following(before) == as_utc(made_at)
    return made_at - TICK if takes_place else made_at


def awaited_from(schedule: Any, score: float, now: datetime) -> datetime | None:
    """The last run of a calendar entry that never ran and was due at ``score``.

    A program that writes an entry without a history gives its first slot as its score, in whole
    seconds: that slot is to run, however late beat comes to it. ``None`` if ``score`` is not a
    slot, such as the zero that means *look at it now*: then the schedule counts from that look.
    """
    if isinstance(schedule, interval) or score <= 0:
        return None
    moment = later(EPOCH, timedelta(seconds=score))
    before = later(moment, -TICK)
    slot = next_due(schedule, before, now)
    # Scores are rounded down to whole seconds.
    return before if slot is not None and slot < later(moment, SECOND) else None


def awaited_before(schedule: Any, score: float, now: datetime) -> datetime | None:
    """The last run of a calendar entry that never ran and awaits some slot up to ``score``.

    Nobody knows which slot its writer meant: it is the one found first in looks back of growing
    length. ``None`` for an interval, and if there is none in four years.
    """
    if isinstance(schedule, interval):
        return None
    latest = later(EPOCH, timedelta(seconds=score))
    for power in range(FARTHEST_LOOK_BACK):
        slot = next_due(schedule, later(latest, -timedelta(minutes=4**power)), now)
        if slot is not None and slot <= latest:
            return later(slot, -TICK)
    return None


def last_run_of_interval(schedule: Any, score: float, now: datetime) -> datetime | None:
    """The last run of a plain interval that never ran and was due at ``score``, where 0 means now.

    ``None`` for any other schedule, and if there is no last run after which it is due by ``now``.
    """
    if not is_plain_interval(schedule):
        return None
    slot = min(later(EPOCH, timedelta(seconds=score)), now) if score > 0 else now
    before = later(slot, -schedule.run_every)
    due = next_due(schedule, before, now)
    return before if due is not None and due <= now else None


def slot_of_other_zone(schedule: Any, score: float, now: datetime, zone: tzinfo) -> datetime | None:
    """A last run just before the slot that a crontab, read in ``zone``, has at ``score``.

    By the clock of the schedule's own zone. ``None`` if it has none there.
    """
    if not isinstance(schedule, crontab):
        return None
    other = copy(schedule)
    other.app, other.tz = schedule.app, zone
    if awaited_from(other, score, now) is None:
        return None
    wall = wall_at(EPOCH + timedelta(seconds=score), zone)
    return as_utc(wall.replace(tzinfo=named_zone(schedule.tz))) - TICK
