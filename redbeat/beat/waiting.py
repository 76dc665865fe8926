"""What a standby logs: which beat it waits for, and how the wait ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from celery.utils.log import get_logger

from .holder import Holder

logger = get_logger("celery.beat")

#: Seconds until a standby warns again that it waits for a beat of another application.
REMINDER_INTERVAL = 300.0


class Waiting:
    """The wait of one standby for the lock.

    ``application`` is the name of its application, which may be empty; ``clock`` gives seconds that
    only grow.
    """

    def __init__(self, application: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._application = application
        self._clock = clock
        #: The name, or the token, of the beat that is waited for.
        self._waits_for = ""
        self._warns_at = float("-inf")

    def wait_for(self, key: str, holder: Holder) -> None:
        """Log who holds the lock, if that has changed; warn if it is another application."""
        name = holder.name or holder.token
        if name != self._waits_for:
            logger.info("beat: Waiting for the lock %s, held by %s", key, holder)
        self._waits_for = name
        if holder.is_of_other(self._application) and self._clock() >= self._warns_at:
            self._warns_at = self._clock() + REMINDER_INTERVAL
            logger.warning(
                "beat: The lock %s is held by the application %r, at %s. This beat belongs to the "
                "application %r: it stands by, and its beat_schedule is not stored. Give each "
                "application its own redbeat_key_prefix.",
                key,
                holder.application,
                holder.name,
                self._application,
            )

    def end(self, key: str, silent: Holder | None) -> None:
        """Log that this beat leads; ``silent`` is the holder that it took over from, if any."""
        how = f"was free, after {self._waits_for} held it" if self._waits_for else "was free"
        if silent is not None:
            how = f"was taken over from {silent}"
        logger.info("beat: Acquired lock")
        logger.info("beat: This beat leads: the lock %s %s", key, how)
        self._waits_for = ""
