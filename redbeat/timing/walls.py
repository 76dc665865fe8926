"""From wall times to instants: the daylight-saving rule.

A calendar rule names wall times, naive datetimes without zone or transition.
``first_instant_after`` maps them to instants, by the rule that ``redbeat.schedules`` states: a time
that the clock skips means the end of the gap; one that it shows twice means its first instant, or
both if the rule runs through the hours.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Protocol

from .instants import CALENDAR_END, CALENDAR_START, TICK
from .zones import instants_of, transition_between, wall_at


class Walls(Protocol):
    """A set of wall times."""

    @property
    def runs_through_hours(self) -> bool:
        """Whether a time that the clock shows twice is meant both times."""

    def after(self, wall: datetime) -> datetime | None:
        """The first of the wall times after ``wall``."""


def first_instant_after(moment: datetime, zone: tzinfo, walls: Walls) -> datetime | None:
    """The first instant after the UTC instant ``moment`` whose wall time in ``zone`` is named."""
    moment = min(max(moment, CALENDAR_START), CALENDAR_END)
    wall = wall_at(moment, zone)
    if not walls.runs_through_hours:
        return _first_showing(walls, wall, zone, moment)
    found = [_next_showing(walls, wall, zone, moment)]
    passes = instants_of(wall, zone)
    if len(passes) > 1 and moment != passes[-1]:
        # In the first pass of a repeated hour: the second one may come before what lies ahead.
        seam = transition_between(passes[0], passes[-1], zone)
        found.append(_next_showing(walls, wall_at(seam, zone) - TICK, zone, seam - TICK))
    return min((instant for instant in found if instant is not None), default=None)


def _first_showing(walls: Walls, wall: datetime, zone: tzinfo, moment: datetime) -> datetime | None:
    """The first instant after ``moment`` at which a named time is shown for the first time."""
    named = walls.after(wall)
    while named is not None:
        instant = instants_of(named, zone)[0]
        if instant > moment:
            return instant
        named = walls.after(named)
    return None


def _next_showing(walls: Walls, wall: datetime, zone: tzinfo, moment: datetime) -> datetime | None:
    """The instant after ``moment`` at which the next named time after ``wall`` is shown."""
    named = walls.after(wall)
    instants = () if named is None else instants_of(named, zone)
    return next((instant for instant in instants if instant > moment), None)
