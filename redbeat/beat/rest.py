"""The wait between two ticks under a running beat service: when it ends, and what ends it early.

A tick leaves an :class:`Outlook` behind; the :class:`Rest` that follows lasts until the next tick
is wanted. It listens, so that an edit ends it at once, and polls for what was written without
notifying anybody. This wait is the same whoever wrote the tick: an override that answers with fewer
seconds than ours is called again after that time.

A busy beat ticks in *pulses*, whole parts of a second: entries due between two of them are sent
together. An interval shorter than a pulse is due at its own time and loses no runs.

How it can fail. If beat cannot listen, for example because the subscription is refused or broken,
polling remains: an edit is then noticed within the poll interval. Setting the clock ends the wait,
since entries are due by the clock; that, too, is noticed within the poll interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from celery.utils.log import get_logger
from redis.exceptions import NoPermissionError

from ..store.access import REDIS_ERRORS
from ..store.listening import Listener
from ..store.retrying import not_again, patience, without_secrets
from ..store.storage import Storage
from ..timing.instants import as_utc
from .clocks import WallClock
from .leadership import Leadership
from .settings import Settings

logger = get_logger("celery.beat")

#: Ticks per second of a busy beat. The number is whole, so that the due times of an entry always
#: lie the same way between them.
PULSES_PER_SECOND = 10
PULSE = 1 / PULSES_PER_SECOND

#: Seconds at least between two ticks, for entries that are due again within a pulse.
SHORTEST_PULSE = 0.01

#: The smallest difference between two readings of a clock.
RESOLUTION = timedelta(microseconds=1)


@dataclass(frozen=True)
class Outlook:
    """What a tick leaves behind: when the next one is wanted.

    ``wait`` is what the tick returns, in seconds. The other times are in seconds since the epoch:
    ``first_due`` is when the first entry is due (``None`` for a beat that runs nothing now),
    ``ticked_at`` the *now* of the tick, ``first_again`` when the first entry that repeats within a
    pulse is due again. ``may_find_more``: entries may become due without anybody writing them, for
    example those that are set aside. ``longest`` is the longest rest, in seconds.
    """

    wait: float
    first_due: float | None = None
    ticked_at: float = 0.0
    first_again: float = math.inf
    may_find_more: bool = False
    longest: float = math.inf

    def answered(self, seconds: float) -> Outlook:
        """This outlook if an override of ``tick`` returned ``seconds``: fewer than ours count."""
        return self if seconds >= self.wait else replace(self, wait=seconds, longest=seconds)

    def wakes_at(self, now: float, longest: float) -> float:
        """When a rest that begins at ``now`` ends, after ``longest`` seconds at most."""
        if self.first_due is None:
            return now + self.wait
        next_pulse = (math.floor(self.ticked_at * PULSES_PER_SECOND) + 1) / PULSES_PER_SECOND
        again = max(self.first_again, self.ticked_at + SHORTEST_PULSE)
        next_tick = min(max(self.first_due, next_pulse), again)
        return min(max(next_tick, now), now + min(longest, self.longest))


class Rest:
    """The rests of one beat, and the subscription that they share."""

    def __init__(
        self,
        get_conf: Callable[[], Settings],
        get_storage: Callable[[], Storage],
        leadership: Leadership,
        clock: WallClock,
    ) -> None:
        self._get_conf = get_conf
        self._get_storage = get_storage
        self._leadership = leadership
        self.clock = clock
        self._listener: Listener | None = None
        #: Whether the schedule had entries at the last look.
        self._had_entries = True
        #: When the last rest of a leader was to end, in seconds since the epoch.
        self.wakes_at = 0.0

    def read_now(self, read: datetime) -> datetime:
        """The tick's *now* for this reading of the clock: when the rest was to end, if just before.

        Otherwise an entry due at the end of a pulse would run sometimes in one tick and sometimes
        in the next.
        """
        # In UTC: arithmetic in a time zone ignores the change of its clocks.
        now = as_utc(read)
        late = now.timestamp() - self.wakes_at
        if 0 <= late < PULSE:
            now += RESOLUTION - timedelta(seconds=late)
        return now.astimezone(read.tzinfo)

    def read_jump(self) -> float:
        """Seconds by which the clock was set ahead since the last call; negative: back."""
        return self.clock.read_jump()

    def take(self, outlook: Outlook, longest: float) -> None:
        """Rest until the next tick is wanted, the lock is lost, or ``longest`` seconds are over.

        One round trip per poll interval.
        """
        expect, lost = self._leadership.watchdog.expect, self._leadership.lost
        wakes_at = outlook.wakes_at(time.time(), longest)
        if outlook.first_due is None:
            expect(outlook.wait)
            lost.wait(outlook.wait)
            return
        self.wakes_at = wakes_at
        while (remaining := wakes_at - time.time()) > 0 and not lost.is_set():
            # Each time: the clock may have been set back.
            expect(remaining)
            pause = min(remaining, self._get_conf().poll_interval)
            if self.listen(pause, wakes_at) or self.clock.has_jumped():
                return
            if pause < remaining and (outlook.may_find_more or self._is_due_early()):
                return

    def listen(self, seconds: float, before: float) -> bool:
        """Sleep for so many seconds, or until notified of an entry that is due before ``before``.

        Returns whether there may be something to do: a subscription that broke may have missed a
        change.
        """
        listener, self._listener = self._listener, None
        has_listened = listener is not None
        if not has_listened and not self._get_storage().access.may_listen():
            return self._leadership.lost.wait(seconds)
        try:
            listener = listener or self._get_storage().listen()
            woken = listener.wait(seconds, before)
        except NoPermissionError as exc:
            self._get_storage().access.do_without("SUBSCRIBE", exc)
            if listener is not None:
                listener.close()
            return self._leadership.lost.wait(seconds)
        except (*REDIS_ERRORS, ValueError) as exc:
            # A ValueError: what somebody published is not text.
            logger.debug("beat: Cannot listen for changes: %s", without_secrets(exc))
            if listener is not None:
                listener.close()
            return has_listened or self._leadership.lost.wait(seconds)
        # Not kept while in use: a signal handler that closes beat must not close it then.
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
