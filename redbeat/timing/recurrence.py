"""The instants of a recurrence rule.

Why not by dateutil's own ``rrule``, its ``dtstart`` moved by whole intervals to just before the
instant? Most looks would take between a quarter and nine tenths of the time. But minutes on 29
February would take five times as long, and a rule that never fires twenty times, which is seconds:
dateutil looks until the year 9999. And ``count`` would still need all that is here, since it takes
minutes to count one by one the occurrences of a rule of seconds that is ten years old. So there
would be more code, and no bound on its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from .instants import NOTHING, TICK, UTC, as_utc, later
from .parameters import HOURLY, PARTS, UNITS
from .rule_walls import RuleWalls, rule_walls
from .walls import first_instant_after
from .zones import wall_at

#: A never-run rule still takes the occurrence at its ``dtstart`` when that is this recently past:
#: a rule that starts now is a moment old by the time it has been stored.
START_GRACE = timedelta(seconds=10)


def before_first_run(start: datetime, now: datetime) -> datetime:
    """The instant before ``now``; before ``start``, if that is only just over."""
    is_just_over = NOTHING <= now - start < START_GRACE
    return later(start if is_just_over else now, -TICK)


class Recurrence:
    """The instants of a recurrence rule.

    Args:
        rule: the parameters of ``dateutil.rrule.rrule`` by name; ``dtstart`` and ``until`` aware.
    """

    def __init__(self, rule: Mapping[str, Any]) -> None:
        self.rule = rule
        self.zone = rule["dtstart"].tzinfo or UTC
        self.start = as_utc(rule["dtstart"]).replace(microsecond=0)
        self.end = None if rule["until"] is None else as_utc(rule["until"])
        self.counts_elapsed_time = rule["freq"] >= HOURLY and all(
            rule[part] is None for part in PARTS
        )

    def following(self, moment: datetime) -> datetime | None:
        """The first occurrence after the UTC instant ``moment``; ``None`` if there is none."""
        if self.end is not None and moment >= self.end:
            return None
        if self.counts_elapsed_time:
            found = self._elapsed_after(moment)
        elif moment < self.start and self._walls.first == self._walls.start:
            found = self.start
        else:
            found = first_instant_after(max(moment, self.start), self.zone, self._walls)
        is_over = found is not None and self.end is not None and found > self.end
        return None if is_over else found

    @cached_property
    def _walls(self) -> RuleWalls:
        return rule_walls(self.rule, wall_at(self.start, self.zone))

    def _elapsed_after(self, moment: datetime) -> datetime | None:
        if moment < self.start:
            return self.start
        try:
            step: timedelta = UNITS[self.rule["freq"]] * self.rule["interval"]
            number = (moment - self.start) // step + 1
            if self.rule["count"] is not None and number >= self.rule["count"]:
                return None
            return self.start + number * step
        except OverflowError:
            return None
