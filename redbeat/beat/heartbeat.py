"""The thread that renews the lock, whatever the main thread is doing."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery.utils.log import get_logger

from .watchdog import Watchdog

logger = get_logger("celery.beat")

#: Seconds until something that failed is tried again.
RETRY_INTERVAL = 1.0


@dataclass(frozen=True)
class Errands:
    """What else the heartbeat's thread does.

    ``after_renewal`` is called after each heartbeat that reached Redis. ``between`` is called more
    often: it returns the number of seconds after which it wants to be called again.
    """

    after_renewal: Callable[[], object] = lambda: None
    between: Callable[[], float] = lambda: math.inf


class Heartbeat:
    """A thread that begins with the lead and ends with it.

    It calls ``beat``, which returns the number of seconds until the next heartbeat, and ``between``
    as :class:`Errands` describes. While the ``watchdog`` finds the main thread stalled, it calls
    neither.
    """

    def __init__(
        self, beat: Callable[[], float], between: Callable[[], float], watchdog: Watchdog
    ) -> None:
        self._beat = beat
        self._between = between
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
        """Stop, without waiting for a renewal that is under way."""
        self._stop.set()

    def _run(self, seconds: float, stop: threading.Event) -> None:
        beats_at = time.monotonic() + seconds
        while True:
            try:
                pause = self._between()
            except Exception:
                # The thread must live. What is wrong shows when beat next sends.
                logger.debug("beat: Cannot ask the sentinels", exc_info=True)
                pause = RETRY_INTERVAL
            if stop.wait(min(pause, max(beats_at - time.monotonic(), 0))):
                return
            if time.monotonic() >= beats_at:
                self._watchdog.outlast_stall(stop)
                beats_at = time.monotonic() + self._beat()
