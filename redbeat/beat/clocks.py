"""Noticing that the wall clock was set while beat runs, by a clock that nobody sets.

Due times and last runs are times of the wall clock. If that is set back, entries that ran before
have a last run in the future, and would not run until then. So beat notices the jump, logs it, and
moves those last runs back by as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: A smaller difference, in seconds, does not count as a jump: daemons that keep the time correct it
#: by less.
TOLERANCE = 2.0

#: Seconds of drift that are accepted at each look.
DRIFT = 0.01


def steady_time() -> float:
    """Seconds of a clock that nobody sets, and that includes suspension where there is such one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class WallClock:
    """Compares the wall clock with a steady one; both give seconds."""

    def __init__(
        self, wall: Callable[[], float] | None = None, steady: Callable[[], float] = steady_time
    ) -> None:
        # Looked up late: programs replace `time.time` in tests.
        self._wall = wall or (lambda: time.time())
        self._steady = steady
        self._offset = self._read_offset()

    def read_jump(self) -> float:
        """Seconds by which the clock was set ahead since the last call, negative if back.

        0 if it was not set, or by less than ``TOLERANCE``.
        """
        jump = self._read_offset() - self._offset
        if abs(jump) < TOLERANCE:
            # Slow drift is followed, so that it never adds up to a jump.
            self._offset += max(min(jump, DRIFT), -DRIFT)
            return 0.0
        self._offset += jump
        return jump

    def has_jumped(self) -> bool:
        """Whether :meth:`read_jump` would find a jump."""
        return abs(self._read_offset() - self._offset) >= TOLERANCE

    def _read_offset(self) -> float:
        return self._wall() - self._steady()
