"""The thread that renews the lock, whatever the main thread is doing."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery.utils.log import get_logger

from ..store.access import REDIS_ERRORS
from ..store.retrying import not_again, patience
from .watchdog import Watchdog

logger = get_logger("celery.beat")

#: Seconds until something that failed is tried again.
RETRY_INTERVAL = 1.0


@dataclass(frozen=True)
class Errands:
    """What else the thread does: after each heartbeat, and more often in between.

    ``between`` returns the number of seconds after which it wants to be called again.
    """

    after_beat: Callable[[], object] = lambda: None
    between: Callable[[], float] = lambda: math.inf


class Heartbeat:
    """A thread that begins with the lead and ends with it.

    ``keep`` renews the lock, and returns the number of seconds until the next heartbeat. While the
    ``watchdog`` finds the main thread stalled, nothing is called.
    """

    def __init__(self, keep: Callable[[], float], errands: Errands, watchdog: Watchdog) -> None:
        self._keep = keep
        self._errands = errands
        self._watchdog = watchdog
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs in this thread."""
        return threading.current_thread() is self._thread

    def begin(self, seconds: float) -> None:
        """Start with a heartbeat in so many seconds, unless the thread is running already."""
        if self._thread is None or not self._thread.is_alive() or self._stop.is_set():
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(seconds, self._stop), name="redbeat-heartbeat", daemon=True
            )
            self._thread.start()

    def end(self) -> None:
        """Stop, without waiting for a heartbeat that is under way."""
        self._stop.set()

    def beat(self) -> float:
        """Renew the lock; returns the seconds until the next heartbeat.

        Raises nothing: the thread must live, since nobody else renews during a long sleep.
        """
        try:
            with patience(not_again):
                seconds = self._keep()
                self._errands.after_beat()
        except REDIS_ERRORS as exc:
            logger.warning("beat: The lock could not be renewed: %s", exc)
            return RETRY_INTERVAL
        except Exception:
            logger.exception("beat: The lock could not be renewed")
            return RETRY_INTERVAL
        return seconds

    def _run(self, seconds: float, stop: threading.Event) -> None:
        beats_at = time.monotonic() + seconds
        while True:
            try:
                pause = self._errands.between()
            except Exception:
                # The thread must live. What is wrong shows when beat next sends.
                logger.debug("beat: An errand of the heartbeat failed", exc_info=True)
                pause = RETRY_INTERVAL
            if stop.wait(min(pause, max(beats_at - time.monotonic(), 0))):
                return
            if time.monotonic() >= beats_at:
                self._watchdog.outlast_stall(stop)
                beats_at = time.monotonic() + self.beat()
