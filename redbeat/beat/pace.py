"""The pace of a beat: how many due entries the next batch may hold.

The entries of a batch get their turns within a limited time. Those that had none by then are given
back, and loaded again with the next batch. On a slow machine, or with a slow broker, a batch should
therefore be as large as the last ones could run in that time.

Promises. Until a batch lacks time, each may be as large as the setting allows, so a fast beat never
takes smaller steps. What a batch did that lacked time is what the next one may hold; nothing older
counts. Each later batch counts as much as all before it, and can only let the size grow. Time that
a batch used beyond a second is not remembered, so that after one slow entry, whatever it cost, the
size is what it was within a few batches. It is never below ``LEAST`` unless the setting is.

How it can fail. The pace is a mean: where slow and fast entries take turns, some batches claim in
vain and others are smaller than they could be. Both cost only time: what is claimed in vain is
given back unchanged. Only turns are timed. That loading, publishing or committing is slow makes no
batch smaller.
"""

from __future__ import annotations

import math
from typing import NamedTuple

#: The size below which a batch does not fall: if turns are so slow, loading in vain hardly counts.
LEAST = 10

#: The part of what is known that counts still, beside a batch that had enough time.
KEPT = 0.5

#: The most seconds of one batch that are remembered.
REMEMBERED = 1.0


class Filling(NamedTuple):
    """How far the entries of one batch got in their time.

    ``done`` is how many need no other turn: they had one, are gone, or cannot run. Their turns took
    ``seconds``, of the ``available`` ones; ``lacked_time`` says that other entries had no turn.
    """

    done: int
    seconds: float
    available: float
    lacked_time: bool = False


class Pace:
    """Says how large a batch may be, by what the last ones did; pure."""

    def __init__(self) -> None:
        self._limit = math.inf
        #: Entries done, and seconds that they took; the older ones count less.
        self._done = self._seconds = 0.0

    def limit(self, most: int) -> int:
        """How many entries to claim next, ``most`` at most."""
        return int(min(most, max(self._limit, LEAST)))

    def note(self, filling: Filling) -> None:
        """Take note of a batch whose turns ended because all were made, or for lack of time."""
        if not filling.done:
            return
        kept = 0.0 if filling.lacked_time else KEPT
        weight = REMEMBERED / max(filling.seconds, REMEMBERED)
        self._done = kept * self._done + weight * filling.done
        self._seconds = kept * self._seconds + weight * filling.seconds
        possible = self._done * filling.available / self._seconds if self._seconds else math.inf
        self._limit = possible if filling.lacked_time else max(self._limit, possible)
