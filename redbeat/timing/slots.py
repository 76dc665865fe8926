"""Calendars: schedules whose slots can be looked up one after another."""

from __future__ import annotations

from datetime import datetime, timedelta

from celery.schedules import schedstate

from .instants import TICK, as_utc, later, seconds_until


class Calendar:
    """A schedule whose slots are instants, found one after another."""

    def following(self, moment: datetime) -> datetime | None:
        """The first slot after the UTC instant ``moment``; ``None`` if there is none."""
        raise NotImplementedError

    def before_first_run(self, now: datetime) -> datetime:
        """The instant after which a schedule that never ran looks for its first slot."""
        return now

    def deadline(self) -> timedelta | None:
        """How late a missed slot may still run; ``None`` means however late."""
        return None

    def due_after(self, last_run_at: datetime | None, now: datetime) -> datetime | None:
        """The first slot after the last run; after ``now`` if it never ran."""
        if last_run_at is None:
            return self.following(self.before_first_run(now))
        return self.following(as_utc(last_run_at))

    def state(self, last_run_at: datetime | None, now: datetime) -> schedstate:
        """``(is_due, seconds until the next slot)`` at the instant ``now``."""
        due = self.due_after(last_run_at, now)
        if due is None or due > now:
            return schedstate(False, seconds_until(due, now))
        return schedstate(not self._is_too_late(due, now), seconds_until(self.following(now), now))

    def _is_too_late(self, due: datetime, now: datetime) -> bool:
        deadline = self.deadline()
        if deadline is None or due == now:
            return False
        latest_excused = later(now, -deadline) - TICK
        following = self.following(latest_excused)
        return following is None or following > now
