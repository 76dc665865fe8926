"""What a standby logs about the beat that it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable

from celery.utils.log import get_logger

from .holder import Holder

logger = get_logger("celery.beat")

#: Seconds until a standby warns again that it waits for a beat of another application.
REMINDER_INTERVAL = 300.0


class Waiting:
    """Logs whom a standby waits for, whenever that changes.

    It warns from time to time if that is a beat of another application than ``application``, whose
    name may be empty. ``clock`` gives seconds that only grow.
    """

    def __init__(self, application: str, clock: Callable[[], float] = time.monotonic) -> None:
        #: Host and process, or token, of the beat that was waited for last; empty if there is none.
        self.waits_for = ""
        self._application = application
        self._clock = clock
        self._warns_at = float("-inf")

    def wait_for(self, key: str, holder: Holder) -> None:
        """Log that ``holder`` has the lock at ``key``."""
        name = holder.name or holder.token
        if name != self.waits_for:
            logger.info("beat: Waiting for the lock %s, held by %s", key, holder)
        self.waits_for = name
        if holder.is_of_other(self._application) and self._clock() >= self._warns_at:
            self._warns_at = self._clock() + REMINDER_INTERVAL
            logger.warning(
                "beat: The application %r leads by the lock %s, at %s. This beat belongs to the "
                "application %r: it stands by, and its beat_schedule is not stored. Give each "
                "application its own redbeat_key_prefix.",
                holder.application,
                key,
                holder.name,
                self._application,
            )

    def end(self) -> None:
        """Note that the wait is over."""
        self.waits_for = ""
