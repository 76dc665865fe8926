"""Pauses that grow while Redis or the broker is away."""

from __future__ import annotations

from collections.abc import Callable

from celery.utils.log import get_logger

from .faults import BrokerAwayError
from .rest import Outlook
from .settings import Settings

logger = get_logger("celery.beat")

#: Seconds at most between two tries while the broker is away.
MAX_PAUSE = 30.0


def in_words(seconds: float) -> str:
    """``1 second``, ``2 seconds``."""
    return f"{seconds:g} second" + ("" if seconds == 1 else "s")


class Pauses:
    """The pauses of one beat: between tries of Redis, a poll interval at most."""

    def __init__(self, get_conf: Callable[[], Settings]) -> None:
        self._get_conf = get_conf
        #: Tries in a row that failed.
        self._redis = 0
        self._broker = 0

    def after(self, exc: Exception) -> Outlook:
        """Log an outage, and wait longer with each one in a row; what is due stays due."""
        if isinstance(exc, BrokerAwayError):
            failed, longest = self._broker, MAX_PAUSE
            self._broker += 1
        else:
            failed, longest = self._redis, self._get_conf().poll_interval
            self._redis += 1
        pause = min(2.0 ** min(failed, 10), longest)
        message = str(exc).rstrip(".")
        logger.error("beat: %s. Nothing is lost; trying again in %s", message, in_words(pause))
        return Outlook(pause)

    def note_runs(self) -> None:
        """Start over for the broker: it accepted some messages, even if it then failed."""
        self._broker = 0

    def end(self) -> None:
        """Start over: a tick succeeded."""
        self._redis = self._broker = 0
