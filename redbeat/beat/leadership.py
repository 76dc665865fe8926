"""Who may dispatch: one lock in Redis, and a heartbeat that keeps it.

::

    beat_init -- campaign --> standby -- acquire --> leader -- release --> (closed)
                                 ^                     |
                                 +-------- lose -------+

What it promises. At most one beat dispatches at a time, and if any beat lives, one leads. A beat
that lost the lock goes back to standby and does not exit.

*Campaign* is what the ``beat_init`` hook begins; from then on each tick tries. A standby *acquires*
the lock if it is free, or takes it over from a holder that is silent: the token of the lock says to
what time to live its holder renews it, so a lock whose remaining time has fallen by more than the
failover timeout was not renewed for that long. The check and the change are one script. A token
that says nothing (one of celery-redbeat 2.x, or of a scheduler without a heartbeat) is waited for
until it expires. While nobody waits, a holder that was cut off for a minute still finds its lock.

The *heartbeat* is a thread that renews the lock twice per failover timeout, whatever the main
thread is doing, and stops when the main thread is wedged: when it made no progress for the stall
timeout past the moment at which it meant to wake. Each tick renews as well. If nobody has taken
over by a failover timeout later, the process of a wedged beat ends, so that its supervisor starts
it again. A beat that shares its process with others, as in a worker, does not end it.

A lock that was assigned by hand is that of a program: only ticks renew it, since it may know only
the thread that took it.

A leader *trusts* the lock for a part of the failover timeout, counted from when the last renewal
began; past that it renews before it dispatches. So a standby that takes over finds that the old
leader has stopped, even if that one cannot reach Redis to learn of it.

How it can fail. Trust is measured on each host's monotonic clock: a host that is suspended between
looking at the clock and sending may send one batch late. A lock that vanishes while its holder is
well (deleted by hand, lost in a failover of Redis) may be acquired before that one knows. The new
leader makes due what looks abandoned: what the old one has sent and not committed at that very
moment runs twice.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, Protocol
from urllib.parse import quote, unquote

from celery.utils.log import get_logger
from redis.exceptions import LockNotOwnedError
from redis.lock import Lock

from ..errors import BeatInitError
from ..store.escaping import Lines
from ..store.retrying import not_again, patience, without_secrets
from ..store.storage import REDIS_ERRORS, Storage, text

logger = get_logger("celery.beat")

#: Renewals per failover timeout.
BEATS_PER_FAILOVER = 2

#: Seconds until a renewal that failed is tried again.
RETRY_INTERVAL = 1.0

#: Seconds beyond the failover timeout that a standby, which looks once a second, may need.
TAKEOVER_TIME = 5.0

#: Seconds at most for a report on a main thread that may have wedged while it was logging.
REPORTING_TIME = 2.0

#: The exit status of a beat that ends because it is wedged.
EXIT_STALLED = os.EX_SOFTWARE

#: The part of the failover timeout for which a renewed lock is trusted.
TRUST = 2 / 3

#: Characters at most of an application's name in a token.
LONGEST_NAME = 64

#: Seconds until a standby says again that it waits for a beat of another application.
REMINDER_INTERVAL = 300.0

TOKEN = re.compile(
    r"(?:(?P<application>[^@:]*)@)?(?P<host>.*):(?P<pid>\d+):[0-9a-f]{16}:(?P<lifetime>\d+):(?P<failover>\d+):(?P<since>\d+)"
)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its token tells.

    ``since`` is aware; ``silence`` is the seconds since the last renewal, ``failover_timeout``
    those for which the holder may be silent. They are ``None`` and 0 where the token does not say,
    as that of celery-redbeat 2.x. ``application`` is the name of the holder's application, empty if
    it has none or the token does not say.
    """

    token: str
    since: datetime | None = None
    silence: float | None = None
    failover_timeout: float = 0
    host: str = ""
    pid: int = 0
    application: str = ""

    def is_of_other(self, application: str) -> bool:
        """Whether it is known to be of another application than the one of this name.

        One without a name, as others, may be any.
        """
        names = {name for name in (self.application, application[:LONGEST_NAME]) if name}
        return len(names) > 1

    @property
    def name(self) -> str:
        """Host and process, empty if the token does not say."""
        return f"{self.host} (pid {self.pid})" if self.host else ""

    @property
    def is_alive(self) -> bool:
        """Whether its last sign of life is recent; of one that gives none, nobody knows better."""
        return self.silence is None or self.silence <= self.failover_timeout

    def __str__(self) -> str:
        if self.since is None or self.silence is None:
            return self.token
        since = self.since.isoformat(sep=" ", timespec="seconds")
        return f"{self.name}, since {since}, last sign of life {self.silence:.0f} s ago"


def new_token(lifetime: float, failover_timeout: float, application: str = "") -> str:
    """A token for a lock that is renewed to ``lifetime`` seconds; 0: it promises no renewal.

    ``application`` is the name of the holder's application, empty if it has none.
    """
    prefix = f"{quote(application[:LONGEST_NAME], safe='')}@" if application else ""
    return ":".join(
        (
            prefix + socket.gethostname(),
            str(os.getpid()),
            secrets.token_hex(8),
            str(int(lifetime * 1000)),
            str(int(failover_timeout * 1000)),
            str(int(time.time())),
        )
    )


def read_holder(storage: Storage, key: str) -> Holder | None:
    """Who holds the lock at ``key``; one round trip."""
    token, remaining = storage.read_lock(key)
    if token is None:
        return None
    try:
        return _decode_token(token, remaining)
    except (OSError, OverflowError, ValueError):
        # Somebody wrote numbers into it that no beat writes.
        return Holder(token)


def _decode_token(token: str, remaining: int) -> Holder:
    known = TOKEN.fullmatch(token)
    if known is None:
        return Holder(token)
    host, pid = known["host"], int(known["pid"])
    since = datetime.fromtimestamp(int(known["since"]), timezone.utc)
    lifetime = int(known["lifetime"])
    application = unquote(known["application"] or "")
    if not lifetime:
        return Holder(token, since=since, host=host, pid=pid, application=application)
    silence = max(lifetime - remaining, 0) / 1000
    return Holder(token, since, silence, int(known["failover"]) / 1000, host, pid, application)


class LeaderLock(Lock):
    """redis-py's lock, renewed to a full time to live, and with a token that tells of its holder.

    ``owned()``, ``extend(seconds)`` and ``release()`` cost one round trip each. The last two raise
    :exc:`redis.exceptions.LockNotOwnedError` if another holds the lock, or nobody. It works on a
    server without scripting, too.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        timeout: float,
        failover_timeout: float | None,
        application: str = "",
    ) -> None:
        super().__init__(storage.client, name, timeout=timeout, blocking=False, thread_local=False)
        self._storage = storage
        #: For which the token promises a sign of life; ``None``: there is no heartbeat.
        self._failover_timeout = failover_timeout
        self._application = application

    def acquire_free(self) -> bool:
        """Take the lock if nobody holds it; one round trip."""
        token = self._new_token(self._seconds)
        taken = self._storage.acquire_lock(str(self.name), token, int(self._seconds * 1000))
        if taken:
            self.local.token = token.encode()
        return taken

    def take_over(self, holder: Holder, failover_timeout: float) -> bool:
        """Take the lock if ``holder`` still holds it and is still silent; one round trip."""
        known = TOKEN.fullmatch(holder.token)
        assert known is not None, "only a holder that promised to renew can be silent"
        token = self._new_token(self._seconds)
        silent_below = int(known["lifetime"]) - int(failover_timeout * 1000)
        taken = self._storage.take_over_lock(
            str(self.name), holder.token, token, int(self._seconds * 1000), silent_below
        )
        if taken:
            self.local.token = token.encode()
        return taken

    def extend(self, additional_time: float, replace_ttl: bool = True) -> Literal[True]:
        """Set the time to live to ``additional_time`` seconds, however much of it is left."""
        return super().extend(additional_time, replace_ttl)

    def do_extend(self, additional_time: float, replace_ttl: bool) -> Literal[True]:
        """See :meth:`extend`."""
        token = new = self.token
        if additional_time != self._seconds:
            new = self._new_token(additional_time)
        milliseconds = int(additional_time * 1000)
        if not self._storage.extend_lock(str(self.name), token, milliseconds, new):
            raise LockNotOwnedError(f"{self.name} is not held by this beat any more")
        self.timeout = additional_time
        if new != token:
            self.local.token = new.encode()
        return True

    def do_release(self, expected_token: str | bytes) -> None:
        """Delete the lock if it is ours."""
        if not self._storage.release_lock(str(self.name), text(expected_token)):
            raise LockNotOwnedError(f"{self.name} is not held by this beat any more")

    @property
    def _seconds(self) -> float:
        assert self.timeout is not None
        return self.timeout

    @property
    def token(self) -> str:
        """Under which this lock is held."""
        return text(self.local.token)

    def _new_token(self, seconds: float) -> str:
        if self._failover_timeout is None:
            return new_token(0, 0, self._application)
        return new_token(seconds, self._failover_timeout, self._application)


def log_release() -> None:
    """Log that a lock is let go, by the line that people search for."""
    logger.info("beat: Releasing lock")


class Candidate(Protocol):
    """What leads or stands by: a scheduler, whose attributes may be assigned at any time."""

    lock: Any
    lock_key: str | None
    lock_timeout: float


class Leadership:
    """The way of one candidate between standby and leader.

    ``failover_timeout`` and ``stall_timeout`` are seconds; the heartbeat's thread calls ``on_beat``
    at each beat that reached Redis, and ``end_process`` with an exit status if this beat is wedged
    and nobody leads in its place; ``None``: the process stays. Between the beats it calls
    ``look_after`` as often as that says, in seconds. Methods that talk to Redis raise
    what redis-py raises when it cannot be reached.
    """

    def __init__(
        self,
        candidate: Candidate,
        get_storage: Callable[[], Storage],
        failover_timeout: float,
        stall_timeout: float,
        clock: Callable[[], float] = time.monotonic,
        on_beat: Callable[[], None] = lambda: None,
        application: str = "",
        end_process: Callable[[int], object] | None = None,
        look_after: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.candidate = candidate
        self.look_after = look_after
        self.on_beat = on_beat
        self.end_process = end_process
        self.clock = clock
        self.get_storage = get_storage
        self.failover_timeout = failover_timeout
        self.stall_timeout = stall_timeout
        #: How often this beat has become leader.
        self.term = 0
        #: Set when the lock is lost or let go, so that a sleeping main thread wakes.
        self.lost = threading.Event()
        self._heartbeat: Heartbeat | None = None
        self._is_campaigning = False
        #: A lock that the heartbeat found lost; the main thread may be just about to use it.
        self._lost_lock: Any = None
        self._renewed_at = float("-inf")
        self._expected_at = float("inf")
        self._waits_for: str | None = None
        #: The name of the candidate's application, empty if it has none.
        self.application = application
        self._reminds_at = float("-inf")

    # Standby

    def campaign(self, with_heartbeat: bool) -> None:
        """Begin to try for the lock, once now and then at every tick; two round trips."""
        self._is_campaigning = True
        if with_heartbeat and self._heartbeat is None:
            self._heartbeat = Heartbeat(self)
        if self.candidate.lock_key and self.candidate.lock is None:
            self.acquire(self.candidate.lock_key)

    def lead_or_wait(self) -> bool:
        """Whether this beat leads now: a leader renews, a standby tries; one or two round trips.

        Raises :exc:`~redbeat.errors.BeatInitError` (an ``AttributeError``) if there is a lock to
        hold and the campaign has not begun.
        """
        if self.candidate.lock is not None and self.candidate.lock is self._lost_lock:
            self._stand_by()
        key, lock = self.candidate.lock_key, self.candidate.lock
        if isinstance(lock, LeaderLock) and lock.name != key:
            self.release()
        self.lost.clear()
        if not key:
            self._begin_heartbeat()
            return True
        if self.candidate.lock is not None:
            return self._go_on() or self.acquire(key)
        if not self._is_campaigning:
            raise BeatInitError(
                "This scheduler has a lock_key but its beat_init hook never ran. Send "
                "celery.signals.beat_init, call acquire_distributed_beat_lock, or set "
                "redbeat_lock_key = None."
            )
        return self.acquire(key)

    def acquire(self, key: str) -> bool:
        """Become leader if the lock is free or its holder is silent; one or two round trips."""
        logger.debug("beat: Acquiring lock...")
        storage = self.get_storage()
        began = self.clock()
        promised = self.failover_timeout if self._heartbeat is not None else None
        lock = LeaderLock(
            storage, key, self.candidate.lock_timeout, promised, application=self.application
        )
        holder = read_holder(storage, key)
        # Beats of one deployment may differ for a while: nobody is cut off earlier than it knows.
        longest_silence = max(self.failover_timeout, holder.failover_timeout if holder else 0)
        if holder is None:
            acquired = lock.acquire_free()
            how = f"it was free, after {self._waits_for}" if self._waits_for else "it was free"
        elif holder.silence is not None and holder.silence > longest_silence:
            acquired = lock.take_over(holder, longest_silence)
            how = f"taken over from {holder}"
        else:
            self._wait_for(key, holder)
            return False
        if acquired:
            self._lead(lock, began, how)
        return acquired

    def _wait_for(self, key: str, holder: Holder) -> None:
        name = holder.name or holder.token
        if name != self._waits_for:
            logger.info("beat: Waiting for the lock %s, held by %s", key, holder)
        self._waits_for = name
        if holder.is_of_other(self.application) and self.clock() >= self._reminds_at:
            self._reminds_at = self.clock() + REMINDER_INTERVAL
            logger.warning(
                "beat: The application %r leads by the lock %s, at %s. This beat is of the "
                "application %r: it stands by, and its beat_schedule is not stored. Give each "
                "application a prefix of its own (redbeat_key_prefix).",
                holder.application,
                key,
                holder.name,
                self.application,
            )

    def _lead(self, lock: LeaderLock, began: float, how: str) -> None:
        self.candidate.lock = lock
        self.term += 1
        self._waits_for = None
        self._renewed_at = began
        self.lost.clear()
        logger.info("beat: Acquired lock")
        logger.info("beat: This beat leads, by the lock %s: %s", lock.name, how)
        self.expect(0)
        self._begin_heartbeat()

    # Leader

    def _go_on(self) -> bool:
        if not self.renew():
            return False
        self._begin_heartbeat()
        return True

    def _begin_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.begin()

    def renew(self) -> bool:
        """Renew the lock to its full time to live, ``False`` if it is lost; one round trip."""
        lock = self.candidate.lock
        if lock is None:
            return False
        logger.debug("beat: Extending lock...")
        began = self.clock()
        # redis-py's lock adds up, unless it is told to replace.
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
        logger.warning("beat: Lost the lock, on standby until it is free: %s", why)
        if self._heartbeat is None or not self._heartbeat.is_current_thread:
            self._stand_by()
        self.lost.set()

    def _stand_by(self) -> None:
        self.candidate.lock = self._lost_lock = None
        if self._heartbeat is not None:
            self._heartbeat.end()

    def ensure_trusted(self) -> bool:
        """Whether the lock is held for certain; a round trip where it was not renewed in time."""
        if not self.candidate.lock_key:
            return True
        if self.clock() < self._renewed_at + self._trust:
            return True
        if self.candidate.lock is self._lost_lock:
            return False
        try:
            return self.renew()
        except REDIS_ERRORS:
            return False

    @property
    def _trust(self) -> float:
        lifetime = self.candidate.lock_timeout
        if self._keeps_lock:
            lifetime = min(lifetime, self.failover_timeout)
        return lifetime * TRUST

    @property
    def _keeps_lock(self) -> bool:
        """Whether the heartbeat renews the lock, so that a silent lock is that of a dead beat."""
        return self._heartbeat is not None and isinstance(self.candidate.lock, LeaderLock)

    def patience(self) -> Callable[[], float]:
        """How many seconds are left, from now on, to try a request to Redis again.

        A leader tries while it trusts its lock, a beat without a lock for as long as one would; a
        standby leaves it to its next tick.
        """
        begun_at = self.clock()

        def seconds_left() -> float:
            if self.candidate.lock_key and self.candidate.lock is None:
                return 0.0
            trusted_from = self._renewed_at if self.candidate.lock_key else begun_at
            return trusted_from + self._trust - self.clock()

        return seconds_left

    def release(self) -> None:
        """Let the lock go, if it is ours; safe to repeat."""
        if self.let_go():
            log_release()

    def let_go(self) -> bool:
        """Let the lock go without a word, if it is ours; returns whether there was one.

        Whoever logs waits for the thread that is just logging, which may be waiting for this one.
        """
        lock = self.abandon()
        if lock is None:
            return False
        try:
            # One that was given by hand may have been lost without a word.
            if isinstance(lock, LeaderLock) or lock.owned():
                lock.release()
        except REDIS_ERRORS as exc:
            logger.warning("beat: The lock was not released: %s", without_secrets(exc))
        return True

    def abandon(self) -> Any:
        """Stop leading without a word to Redis; returns the lock, which expires of itself."""
        if self._heartbeat is not None:
            self._heartbeat.end()
        lock, self.candidate.lock = self.candidate.lock, None
        self.lost.set()
        return lock

    # Sign of life

    def expect(self, seconds: float) -> None:
        """The main thread is alive, and means to be heard of again in so many seconds."""
        self._expected_at = self.clock() + seconds

    @property
    def is_stalled(self) -> bool:
        """Whether the main thread is overdue by more than the stall timeout."""
        return self.clock() > self._expected_at + self.stall_timeout

    def is_replaced(self) -> bool:
        """Whether another beat leads by now, for all that can be known; one round trip."""
        key, lock = self.candidate.lock_key, self.candidate.lock
        holder = None
        with suppress(*REDIS_ERRORS), patience(not_again):
            holder = read_holder(self.get_storage(), key) if key else None
        if holder is None or not holder.is_alive:
            return False
        return not isinstance(lock, LeaderLock) or holder.token != lock.token

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two renewals by the heartbeat."""
        return min(self.failover_timeout, self.candidate.lock_timeout) / BEATS_PER_FAILOVER

    def beat(self) -> bool:
        """Renew the lock if no tick just did; ``False`` if Redis could not be reached.

        A lock that was assigned by hand is left to the ticks.
        """
        try:
            with patience(not_again):
                is_time = self.clock() >= self._renewed_at + self.heartbeat_interval / 2
                lock = self.candidate.lock
                if is_time and isinstance(lock, LeaderLock) and lock is not self._lost_lock:
                    self.renew()
                self.on_beat()
        except REDIS_ERRORS as exc:
            logger.warning("beat: The lock could not be renewed: %s", exc)
            return False
        except Exception:
            # The thread must live: nobody else renews the lock during a long sleep.
            logger.exception("beat: The lock could not be renewed")
            return False
        return True


class Heartbeat:
    """The thread that renews the lock, and watches the main thread, of a beat that may dispatch.

    It ends with the lead, and begins with the next one.
    """

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self._main_thread = threading.get_ident()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_current_thread(self) -> bool:
        """Whether it is this thread that asks."""
        return threading.current_thread() is self._thread

    def begin(self) -> None:
        """Start, unless it is running; one that is about to end renews nothing any more."""
        if self._thread is None or not self._thread.is_alive() or self._stop.is_set():
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="redbeat-heartbeat", daemon=True
            )
            self._thread.start()

    def end(self) -> None:
        """Stop, without waiting for a renewal that is under way."""
        self._stop.set()

    def _run(self, stop: threading.Event) -> None:
        pause = self._leadership.heartbeat_interval
        while not self._ends_within(pause, stop):
            if self._leadership.is_stalled and self._stays_stalled(stop):
                self._report(self._describe_stall())
                self._outlast_stall(stop)
            reached = self._leadership.beat()
            pause = self._leadership.heartbeat_interval if reached else RETRY_INTERVAL

    def _ends_within(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for the next beat, and look after what is to be looked after more often."""
        beats_at = time.monotonic() + seconds
        while (remaining := beats_at - time.monotonic()) > 0:
            if stop.wait(min(remaining, self._look_after())):
                return True
        return stop.is_set()

    def _look_after(self) -> float:
        try:
            return self._leadership.look_after()
        except Exception:
            # The thread must live, as in a beat; what is wrong shows where beat sends.
            logger.debug("beat: Cannot ask the sentinels", exc_info=True)
            return RETRY_INTERVAL

    def _stays_stalled(self, stop: threading.Event) -> bool:
        """After a suspended process is resumed, this thread may just be the first one to run."""
        return not stop.wait(RETRY_INTERVAL) and self._leadership.is_stalled

    def _outlast_stall(self, stop: threading.Event) -> None:
        """Renew nothing until the main thread goes on; end the process if nobody takes over."""
        leadership = self._leadership
        patient_until = time.monotonic() + leadership.failover_timeout + TAKEOVER_TIME
        while not stop.wait(RETRY_INTERVAL) and leadership.is_stalled:
            if time.monotonic() < patient_until or leadership.end_process is None:
                continue
            if not leadership.is_replaced():
                self._report(
                    "beat: The main thread still hangs, and no other beat leads. Ending this "
                    "process, so that its supervisor starts it again."
                )
                leadership.end_process(EXIT_STALLED)

    def _report(self, message: str) -> None:
        """Log at critical, as far as that is possible: the main thread may hang while it logs."""
        reporter = threading.Thread(
            target=lambda: logger.critical("%s", Lines(message)), daemon=True
        )
        reporter.start()
        reporter.join(REPORTING_TIME)

    def _describe_stall(self) -> str:
        frame = sys._current_frames().get(self._main_thread)
        place = "".join(traceback.format_stack(frame))
        return (
            f"beat: The main thread has hung for more than {self._leadership.stall_timeout:g} "
            "seconds past the time at which it meant to go on. The lock is not renewed any more, "
            f"so that another beat can lead. It hangs here:\n{place}"
        )
