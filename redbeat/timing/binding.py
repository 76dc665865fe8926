"""Whose time zone a schedule follows: its own, or that of its app.

Celery keeps a zone that it has asked of the app in the same place as one that a user has put there.
So one that equals the app's counts as the app's.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from celery.schedules import BaseSchedule, crontab
from celery.schedules import schedule as interval

from .zones import named_zone


def own_zone(schedule: Any) -> tzinfo | None:
    """The zone that a crontab or an interval carries itself; ``None`` if it follows its app."""
    zones = [vars(base)["tz"] for base in _own_bases(schedule) if "tz" in vars(base)]
    zone = schedule.tz if zones or "tz" in vars(schedule) else None
    if zone is None:
        return None
    is_fixed = getattr(schedule, "zone", None) is not None or any(own is zone for own in zones)
    return named_zone(zone) if is_fixed or zone != schedule.app.timezone else None


def follows_zone_of_app(schedule: Any) -> bool:
    """Whether the due times of ``schedule`` depend on the zone of its app."""
    names_times = isinstance(schedule, crontab) or (
        isinstance(schedule, interval) and schedule.relative
    )
    return names_times and own_zone(schedule) is None


def forget_zone_of_app(schedule: Any, app: Any) -> None:
    """Forget the zone that ``schedule`` has asked of its last app; ``app`` is the next one."""
    if not isinstance(schedule, BaseSchedule):
        return
    kept = vars(schedule)
    kept.pop("utc_enabled", None)
    if "tz" not in kept or getattr(schedule, "zone", None) is not None:
        return
    may_be_own = isinstance(schedule, (interval, crontab))
    if not may_be_own or kept["tz"] in (schedule.app.timezone, app.timezone):
        del kept["tz"]


def _own_bases(schedule: Any) -> list[type]:
    """Its class and those bases of it that are neither Celery's nor ours."""
    rooms = ("builtins", "celery", __name__.partition(".")[0])
    return [
        base for base in type(schedule).__mro__ if base.__module__.partition(".")[0] not in rooms
    ]
