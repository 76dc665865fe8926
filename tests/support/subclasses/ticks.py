"""`tick` overridden."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.utils.log import get_logger
from redis.exceptions import LockNotOwnedError

from redbeat import RedBeatScheduler

from .witness import is_held_back, note

logger = get_logger("celery.beat")

#: Seconds; less than the longest sleep that the tests set.
CAP = 0.2


class CopiedTick(RedBeatScheduler):
    """A loop of its own: extend the lock, send what the schedule says is due, wait."""

    def tick(self, min: Callable[..., float] = min, **kwargs: Any) -> float:
        note("tick")
        if self.lock:
            logger.debug("beat: Extending lock...")
            self.lock.extend(int(self.lock_timeout))
        waits = [float(self.max_interval)]
        for entry in self.schedule.values():
            wait = self.maybe_due(entry, **self._maybe_due_kwargs)
            if wait:
                waits.append(wait)
        return min(waits)


class CappedTick(RedBeatScheduler):
    """Never waits for longer than the cap."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        began = time.monotonic()
        wait = super().tick(*args, **kwargs)
        note("tick", f"{wait},{time.monotonic() - began}")
        return min(wait, CAP)


class Heartbeat(RedBeatScheduler):
    """Touches a file for a liveness probe, and leaves when it has lost the lock."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        note("tick")
        Path("heartbeat").touch()
        try:
            wait: float = super().tick(*args, **kwargs)
        except LockNotOwnedError:
            note("lost")
            logger.warning("another beat holds the lock, this one leaves")
            raise SystemExit(0) from None
        return wait


class Reacquiring(RedBeatScheduler):
    """Goes back to waiting when it has lost the lock."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        note("tick")
        try:
            wait: float = super().tick(*args, **kwargs)
        except LockNotOwnedError:
            note("lost")
            self.lock.acquire()
            return 0
        return wait


class FilteredSchedule(RedBeatScheduler):
    """Does not see some of the entries."""

    @property  # type: ignore[misc]  # The one overridden has a setter, too.
    def schedule(self) -> Any:
        entries = super().schedule
        return {name: entry for name, entry in entries.items() if not is_held_back(entry)}


class FilteredScheduleAndCopiedTick(FilteredSchedule, CopiedTick):
    """Both of them."""


class ShortInterval(RedBeatScheduler):
    """Sleeps for a second at most, whatever Celery's default says."""

    max_interval = 1
