"""The lock that the leading beat holds."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Literal

from celery.utils.log import get_logger
from redis.exceptions import LockNotOwnedError

from ..store.storage import Storage
from .holder import Holder, new_token

logger = get_logger("celery.beat")


class LeaderLock:
    """A lock in Redis that is always renewed to its full time to live.

    It has those methods and attributes of redis-py's lock that schedulers use, and works on a
    server without scripting too. ``name`` is its key, ``timeout`` its time to live in seconds,
    ``token`` its value. Each method costs one round trip.

    ``failover_timeout`` is for how many seconds the holder may go without renewing it; 0 if no
    heartbeat does so. ``application`` is the name of the holder's application, which may be empty.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        timeout: float,
        failover_timeout: float = 0,
        application: str = "",
    ) -> None:
        self._storage = storage
        self.name = name
        self.timeout = timeout
        self._failover_timeout = failover_timeout
        self._application = application
        self.token = self._new_token(timeout)

    @property
    def local(self) -> SimpleNamespace:
        """Where redis-py's lock keeps its token, in bytes."""
        return SimpleNamespace(token=self.token.encode("utf-8", "surrogateescape"))

    def acquire(self, holder: Holder | None = None, longest_silence: float = math.inf) -> bool:
        """Take the lock if nobody holds it; with a ``holder``, if that one is silent for too long.

        That is ``longest_silence`` seconds, or what the holder counts on if that is longer: beats
        of one deployment may differ for a while. One script checks this once more and takes it.
        """
        milliseconds = int(self.timeout * 1000)
        if holder is None:
            return self._storage.lock.acquire(self.name, self.token, milliseconds)
        longest_silence = max(longest_silence, holder.failover_timeout)
        if holder.silence is None or holder.silence <= longest_silence:
            return False
        silent_below = round(holder.lifetime * 1000) - int(longest_silence * 1000)
        return self._storage.lock.take_over(
            self.name, holder.token, self.token, milliseconds, silent_below
        )

    def owned(self) -> bool:
        """Whether this beat holds the lock."""
        return self._storage.lock.read(self.name)[0] == self.token

    def extend(self, additional_time: float, replace_ttl: bool = True) -> Literal[True]:
        """Set the time to live to ``additional_time`` seconds, however much of it is left.

        The arguments have redis-py's names. Raises :exc:`redis.exceptions.LockNotOwnedError` if
        this beat does not hold the lock.
        """
        is_new = additional_time != self.timeout
        token = self._new_token(additional_time) if is_new else self.token
        milliseconds = int(additional_time * 1000)
        if not self._storage.lock.extend(self.name, self.token, milliseconds, token):
            raise LockNotOwnedError(f"{self.name} is no longer held by this beat")
        self.timeout, self.token = additional_time, token
        return True

    def release(self) -> None:
        """Delete the lock.

        Raises :exc:`redis.exceptions.LockNotOwnedError` if this beat does not hold it.
        """
        if not self._storage.lock.release(self.name, self.token):
            raise LockNotOwnedError(f"{self.name} is no longer held by this beat")

    def _new_token(self, timeout: float) -> str:
        lifetime = timeout if self._failover_timeout else 0
        return new_token(lifetime, self._failover_timeout, self._application)


def log_release() -> None:
    """Log that a lock is released, in the words that people search for."""
    logger.info("beat: Releasing lock")
