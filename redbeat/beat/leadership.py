"""Who may dispatch: the beat that holds one lock in Redis.

::

    beat_init -- campaign --> standby -- acquire --> leader -- release --> (closed)
                                 ^                     |
                                 +-------- lose -------+

At most one beat dispatches at a time, and as long as any beat is alive, one leads. A beat that
loses the lock goes back to standby; it does not exit.

The ``beat_init`` hook begins the *campaign*: from then on each tick of a standby tries to *acquire*
the lock. It takes a lock that is free, or whose holder is silent. The lock's token says to what
time to live its holder renews it: once the remaining time is below that by more than the failover
timeout, the holder has not renewed it for that long. If a token says nothing, as that of a
celery-redbeat 2.x or of a scheduler without a heartbeat, the standby waits until the lock expires.

A leader renews the lock at each tick. Its *heartbeat*, a thread, does so twice per failover
timeout, whatever the main thread is doing; the *watchdog* stops it once the main thread hangs. A
lock that a program assigned is renewed by ticks only: it may know only the thread that took it.

A leader *trusts* the lock for a part of the failover timeout, counted from when the last renewal
began. Past that it renews before it dispatches. So by the time a standby takes over, the old leader
has stopped, even if it cannot reach Redis to find out.

How it can fail. Trust is measured on each host's monotonic clock: a host that is suspended between
looking at the clock and sending may send one batch late. If a lock vanishes while its holder is
well (deleted by hand, or lost in a failover of Redis), another beat may acquire it before the
holder notices. What the holder has sent by then but not committed looks abandoned, and runs twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from celery.utils.log import get_logger
from redis.exceptions import LockNotOwnedError
from redis.lock import Lock

from ..errors import BeatInitError
from ..store.access import REDIS_ERRORS
from ..store.retrying import not_again, patience, without_secrets
from ..store.storage import Storage
from .heartbeat import Errands, Heartbeat
from .holder import read_holder
from .lock import LeaderLock, log_release
from .waiting import Waiting
from .watchdog import Watchdog

logger = get_logger("celery.beat")

#: Heartbeats per failover timeout.
BEATS_PER_FAILOVER = 2

#: The part of the failover timeout for which a renewed lock is trusted.
TRUST = 2 / 3


class Candidate(Protocol):
    """What leads or stands by: a scheduler, whose attributes may be assigned at any time."""

    lock: Any
    lock_key: str | None
    lock_timeout: float


@dataclass(frozen=True)
class Timeouts:
    """For how many seconds a leader may be silent, and its main thread may hang."""

    failover: float
    stall: float


class Leadership:
    """Moves one candidate between standby and leader.

    ``application`` is the name of its application, which may be empty; ``clock`` gives seconds that
    only grow. Methods that talk to Redis raise what redis-py raises when it cannot be reached.
    """

    def __init__(
        self,
        candidate: Candidate,
        get_storage: Callable[[], Storage],
        timeouts: Timeouts,
        application: str = "",
        errands: Errands = Errands(),  # noqa: B008  # it is frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.candidate = candidate
        self.get_storage = get_storage
        self.failover_timeout = timeouts.failover
        self.application = application
        self.clock = clock
        self.watchdog = Watchdog(timeouts.stall, timeouts.failover, self.is_replaced, clock)
        #: How often this beat has become leader.
        self.term = 0
        #: Set when the lock is lost or released, so that a sleeping main thread wakes.
        self.lost = Event()
        self.heartbeat = Heartbeat(self.keep, errands, self.watchdog)
        self._has_heartbeat = False
        self._is_campaigning = False
        #: A lock that the heartbeat found lost; the main thread may be just about to use it.
        self._lost_lock: Any = None
        self._renewed_at = float("-inf")
        self._waiting = Waiting(application, clock)

    # Standby

    def campaign(self, with_heartbeat: bool) -> None:
        """Begin to try for the lock: once now, and then at every tick; up to two round trips."""
        self._is_campaigning = True
        self.watchdog.watch_this_thread()
        self._has_heartbeat = self._has_heartbeat or with_heartbeat
        if self.candidate.lock_key and self.candidate.lock is None:
            self.acquire(self.candidate.lock_key)

    def lead_or_wait(self) -> bool:
        """Renew the lock, or try to get it; up to three round trips.

        Returns whether this beat leads now. Raises :exc:`~redbeat.errors.BeatInitError` (an
        ``AttributeError``) if there is a lock to hold and the campaign has not begun.
        """
        key, lock = self.candidate.lock_key, self.candidate.lock
        if lock is not None and lock is self._lost_lock:
            self._stand_by()
        elif isinstance(lock, LeaderLock) and lock.name != key:
            self.release()
        self.lost.clear()
        if key and self.candidate.lock is None and not self._is_campaigning:
            raise BeatInitError(
                "This scheduler has a lock_key but its beat_init hook never ran. Send "
                "celery.signals.beat_init, call acquire_distributed_beat_lock, or set "
                "redbeat_lock_key = None."
            )
        if not key or self.renew():
            self._begin_heartbeat()
            return True
        return self.acquire(key)

    def acquire(self, key: str) -> bool:
        """Become leader if the lock is free or its holder is silent; one or two round trips."""
        logger.debug("beat: Acquiring lock...")
        storage, began = self.get_storage(), self.clock()
        promised = self.failover_timeout if self._has_heartbeat else 0
        lock = LeaderLock(storage, key, self.candidate.lock_timeout, promised, self.application)
        holder = read_holder(storage, key)
        if not lock.acquire(holder, self.failover_timeout):
            if holder is not None:
                self._waiting.wait_for(key, holder)
            return False
        self.candidate.lock = lock
        self.term += 1
        self._renewed_at = began
        self.lost.clear()
        self._waiting.end(key, holder)
        self.watchdog.expect(0)
        self._begin_heartbeat()
        return True

    # Leader

    def _begin_heartbeat(self) -> None:
        if self._has_heartbeat:
            self.heartbeat.begin(self.heartbeat_interval)

    def renew(self) -> bool:
        """Renew the lock to its full time to live; one round trip. ``False`` if there is none."""
        lock = self.candidate.lock
        if lock is None:
            return False
        logger.debug("beat: Extending lock...")
        began = self.clock()
        # redis-py's lock adds the time to what is left, unless asked to replace it.
        options = {"replace_ttl": True} if isinstance(lock, Lock) else {}
        try:
            lock.extend(self.candidate.lock_timeout, **options)
        except LockNotOwnedError as exc:
            if not self._is_campaigning:
                raise
            self.lose(lock, str(exc))
            return False
        self._renewed_at = max(self._renewed_at, began)
        return True

    def lose(self, lock: Any, why: str) -> None:
        """Go back to standby.

        Called by the heartbeat, this only ends the trust: the main thread, which may be just about
        to use the lock, stands by from its next turn on.
        """
        if self.candidate.lock is not lock or self._lost_lock is lock:
            return
        self._lost_lock, self._renewed_at = lock, float("-inf")
        logger.warning("beat: Lost the lock, standing by until it is free: %s", why)
        if not self.heartbeat.is_current_thread:
            self._stand_by()
        self.lost.set()

    def lose_own(self, why: str) -> bool:
        """Go back to standby; ``False``, and nothing done, if a program assigned the lock."""
        if self.has_own_lock:
            self.lose(self.candidate.lock, why)
            return True
        return False

    @property
    def has_own_lock(self) -> bool:
        """Whether the candidate holds a lock that was acquired here, not assigned by a program."""
        return isinstance(self.candidate.lock, LeaderLock)

    def _stand_by(self) -> None:
        self.candidate.lock = self._lost_lock = None
        self.heartbeat.end()

    def ensure_trusted(self) -> bool:
        """Whether the lock is held for certain; a round trip if it was not renewed recently."""
        if not self.candidate.lock_key:
            return True
        # Looked at first: a late answer to a renewal may come after the lock was found lost.
        if self.candidate.lock is self._lost_lock:
            return False
        if self.clock() < self._trusted_until(self._renewed_at):
            return True
        try:
            return self.renew()
        except REDIS_ERRORS:
            return False

    def _trusted_until(self, renewed_at: float) -> float:
        lifetime = self.candidate.lock_timeout
        if self._has_heartbeat and self.has_own_lock:
            # Only where a heartbeat keeps the lock do others take silence for the end of a beat.
            lifetime = min(lifetime, self.failover_timeout)
        return renewed_at + lifetime * TRUST

    def patience(self) -> Callable[[], float]:
        """How many seconds are left, from now on, to retry a request to Redis.

        A leader retries while it trusts its lock, a beat without a lock for as long as a leader
        would. A standby leaves it to its next tick.
        """
        begun_at = self.clock()

        def seconds_left() -> float:
            if self.candidate.lock_key and self.candidate.lock is None:
                return 0.0
            renewed_at = self._renewed_at if self.candidate.lock_key else begun_at
            return self._trusted_until(renewed_at) - self.clock()

        return seconds_left

    def release(self) -> None:
        """Release the lock, if this beat holds it; safe to repeat."""
        if self.let_go():
            log_release()

    def let_go(self) -> bool:
        """Release the lock and log nothing if all is well; returns whether there was one.

        To log is to wait for a thread that is just logging, which may be waiting for this one.
        """
        lock = self.abandon()
        if lock is None:
            return False
        try:
            # One that a program assigned may have been lost without anybody noticing.
            if isinstance(lock, LeaderLock) or lock.owned():
                lock.release()
        except REDIS_ERRORS as exc:
            logger.warning("beat: The lock could not be released: %s", without_secrets(exc))
        return True

    def abandon(self) -> Any:
        """Stop leading, and leave the lock to expire; returns the lock. No round trip."""
        self.heartbeat.end()
        lock, self.candidate.lock = self.candidate.lock, None
        self.lost.set()
        return lock

    # The heartbeat's thread

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two heartbeats."""
        return min(self.failover_timeout, self.candidate.lock_timeout) / BEATS_PER_FAILOVER

    def keep(self) -> float:
        """Renew the lock unless a tick has just done so; returns the seconds until the next time.

        A lock that a program assigned is left to the ticks. One round trip.
        """
        lock = self.candidate.lock
        is_time = self.clock() >= self._renewed_at + self.heartbeat_interval / 2
        if is_time and isinstance(lock, LeaderLock) and lock is not self._lost_lock:
            self.renew()
        return self.heartbeat_interval

    def is_replaced(self) -> bool:
        """Whether another beat leads by now, as far as can be known; one round trip."""
        key, lock = self.candidate.lock_key, self.candidate.lock
        own_token = lock.token if isinstance(lock, LeaderLock) else None
        with suppress(*REDIS_ERRORS), patience(not_again):
            holder = read_holder(self.get_storage(), key) if key else None
            return holder is not None and holder.is_alive and holder.token != own_token
        return False
