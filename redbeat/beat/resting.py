"""The wait between two ticks under a running beat service: when it ends, and what ends it early.

A tick leaves an :class:`Outlook` behind; the :class:`Rest` that follows lasts until the next tick
is wanted. It listens, so that an edit ends it at once, and polls for what was written without a
word. Whoever wrote the tick, this wait is the same: an override that answers with fewer seconds
than ours is called again after that time.

A busy beat ticks in *pulses*, whole parts of a second: what is due between two of them is sent
together. An interval that is shorter than a pulse is due at its own time and loses no runs.

How it can fail. Whatever keeps it from listening, such as a refused or broken subscription, leaves
the polling: an edit is then noticed within the poll interval. A clock that is set ends the wait,
since due times are those of the clock; that, too, is noticed within the poll interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from celery.utils.log import get_logger
from redis.exceptions import NoPermissionError

from ..store.retrying import not_again, patience, without_secrets
from ..store.storage import REDIS_ERRORS, Listener, Storage
from .clocks import WallClock
from .leadership import Leadership

logger = get_logger("celery.beat")

#: A busy beat ticks so many times a second. What is due between two of them goes together; their
#: number is a whole one, so that an entry's due times always lie alike among them.
PULSES_PER_SECOND = 10
PULSE = 1 / PULSES_PER_SECOND

#: Seconds at the least between two ticks, for entries that are due again within a pulse.
SHORTEST_PULSE = 0.01


@dataclass(frozen=True)
class Outlook:
    """What a tick leaves behind: when the next one is wanted.

    ``wait`` is what the tick answers, in seconds. All other times are seconds since the epoch:
    the *now* of the tick; when the first entry is due, ``None`` for a beat that runs nothing now;
    when the first of those is due again that just ran and repeat within a pulse. ``may_find_more``
    says that entries may become due without anybody writing them, as those that are set aside.
    ``latest`` bounds the wait, counted from its beginning.
    """

    wait: float
    first_due: float | None = None
    ticked_at: float = 0.0
    first_again: float = math.inf
    may_find_more: bool = False
    latest: float = math.inf

    def answered(self, seconds: float) -> Outlook:
        """This outlook for a service that was answered ``seconds``: fewer than ours count."""
        return self if seconds >= self.wait else replace(self, wait=seconds, latest=seconds)

    def wakes_at(self, now: float, longest: float) -> float:
        """When a rest that begins at ``now`` ends by itself, after ``longest`` seconds at most."""
        if self.first_due is None:
            return now + self.wait
        bound = now + min(longest, self.latest)
        return min(max(self._next_turn(self.first_due), now), bound)

    def _next_turn(self, first_due: float) -> float:
        """The end of this tick's pulse, or later: when the first entry is due."""
        next_pulse = (math.floor(self.ticked_at * PULSES_PER_SECOND) + 1) / PULSES_PER_SECOND
        again = max(self.first_again, self.ticked_at + SHORTEST_PULSE)
        return min(max(first_due, next_pulse), again)


class Rest:
    """The rests of one beat, and the subscription that they share.

    ``poll_interval`` gives the seconds between two looks at the schedule, each one round trip.
    """

    def __init__(
        self,
        get_storage: Callable[[], Storage],
        leadership: Leadership,
        poll_interval: Callable[[], float],
        clock: WallClock,
    ) -> None:
        self._get_storage = get_storage
        self._leadership = leadership
        self._poll_interval = poll_interval
        self._clock = clock
        self._listener: Listener | None = None
        #: Whether an entry was due at any time, at the last look.
        self._had_entries = True
        #: When the last rest of a leader was meant to end, in seconds since the epoch.
        self.wakes_at = 0.0

    def take(self, outlook: Outlook, longest: float) -> None:
        """Rest until the next tick is wanted, ``longest`` seconds at most, or the lock is lost."""
        wakes_at = outlook.wakes_at(time.time(), longest)
        if outlook.first_due is None:
            self._leadership.watchdog.expect(outlook.wait)
            self._leadership.lost.wait(outlook.wait)
            return
        self.wakes_at = wakes_at
        while (remaining := wakes_at - time.time()) > 0 and not self._leadership.lost.is_set():
            # Anew each time: the clock may have been set back.
            self._leadership.watchdog.expect(remaining)
            pause = min(remaining, self._poll_interval())
            if self.listen(pause, wakes_at):
                return
            if self._clock.has_jumped():
                return
            if pause < remaining and (outlook.may_find_more or self._is_due_early()):
                return

    def listen(self, seconds: float, before: float) -> bool:
        """Sleep for so many seconds, or until notified of an entry that is due before ``before``.

        Returns whether there may be something to do: a subscription that breaks off may have
        missed a change.
        """
        listener, self._listener = self._listener, None
        has_listened = listener is not None
        if not has_listened and not self._get_storage().may_listen():
            return self._leadership.lost.wait(seconds)
        try:
            listener = listener or self._get_storage().listen()
            woken = listener.wait(seconds, before)
        except NoPermissionError as exc:
            self._get_storage().do_without("SUBSCRIBE", exc)
            if listener is not None:
                listener.close()
            return self._leadership.lost.wait(seconds)
        except (*REDIS_ERRORS, ValueError) as exc:
            # A ValueError: what somebody published is not text.
            logger.debug("beat: Cannot listen for changes: %s", without_secrets(exc))
            if listener is not None:
                listener.close()
            return has_listened or self._leadership.lost.wait(seconds)
        # Not kept while it is in use: a signal handler that closes beat must not close it then.
        self._listener = listener
        return woken

    def close(self) -> None:
        """End the subscription."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _is_due_early(self) -> bool:
        """Whether something is due that the last tick did not know of."""
        try:
            with patience(not_again):
                first = self._get_storage().read_first()
        except REDIS_ERRORS:
            return True
        had_entries, self._had_entries = self._had_entries, first is not None
        if first is None:
            # The tick finds out whether they were deleted or lost.
            return had_entries
        return first.score <= time.time()
