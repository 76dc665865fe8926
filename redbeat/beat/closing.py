"""How a beat ends: it commits what it sent, gives back what it claimed, and releases the lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from celery.utils.log import get_logger

from ..store.retrying import not_again, patience
from .claims import Claims
from .dispatcher import Dispatcher
from .leadership import Leadership
from .lock import log_release
from .reports import Reporter

logger = get_logger("celery.beat")

#: Seconds at most for which closing waits for Redis.
CLOSING_TIME = 2.0


class Closing:
    """The end of one beat, which may be asked for more than once; ``now`` reads the clock in UTC.

    It works in a thread of its own, and logs nothing there if all is well: the main thread may have
    been told to end while it was logging, and then nobody else can log.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        claims: Claims,
        leadership: Leadership,
        reporter: Reporter,
        now: Callable[[], datetime],
    ) -> None:
        self._dispatcher = dispatcher
        self._claims = claims
        self._leadership = leadership
        self._reporter = reporter
        self._now = now
        self._thread: threading.Thread | None = None
        self._has_released = False

    def run(self) -> None:
        """Wind up, waiting for at most ``CLOSING_TIME`` (2) seconds.

        If Redis does not answer in time, the lock expires, and what was not committed may repeat.
        """
        if not self._leadership.has_own_lock:
            # A lock that was assigned by hand knows only the thread that took it.
            self._leadership.release()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._wind_up, daemon=True)
            self._thread.start()
            self._thread.join(CLOSING_TIME)
        if self._thread.is_alive():
            self._leadership.abandon()
            logger.warning("beat: Redis does not answer. The lock is left to expire.")
        elif self._has_released:
            log_release()

    def _wind_up(self) -> None:
        self._has_released = False
        try:
            with patience(not_again):
                self._dispatcher.settle()
                self._claims.give_back(self._now())
            self._has_released = self._leadership.let_go()
        except Exception as exc:
            self._leadership.abandon()
            logger.warning("beat: The last runs were not committed and may repeat: %s", exc)
        else:
            self._reporter.withdraw()
