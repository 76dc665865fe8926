"""A clock that is set while beat runs, noticed against one that nobody sets.

Due times and last runs are times of the wall clock. If that is set back, what ran before bears a
time that is still to come, and would be silent until then. Beat notices the jump, logs it, and puts
the entries right whose last run lies ahead: they count as run so much earlier.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds by which two readings may differ before the clock counts as set: daemons that keep the
#: time right move it by less.
TOLERANCE = 2.0

#: Seconds of drift that are followed at each look.
DRIFT = 0.01


def steady_time() -> float:
    """Seconds of a clock that nobody sets; where it can be had, one that goes on in suspension."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class WallClock:
    """Tells when the wall clock was set."""

    def __init__(
        self, wall: Callable[[], float] | None = None, steady: Callable[[], float] = steady_time
    ) -> None:
        # Looked up late: programs replace `time.time` in tests.
        self._wall = wall or (lambda: time.time())
        self._steady = steady
        self._offset = self._read_offset()

    def read_jump(self) -> float:
        """Seconds by which the clock was set ahead since this was last asked; negative: back.

        0 if it was not set, or by less than ``TOLERANCE``.
        """
        offset = self._read_offset()
        jump = offset - self._offset
        if abs(jump) < TOLERANCE:
            # Slow drift is followed, so that it never adds up to a jump.
            self._offset += max(min(jump, DRIFT), -DRIFT)
            return 0.0
        self._offset = offset
        return jump

    def has_jumped(self) -> bool:
        """Whether :meth:`read_jump` has something to tell."""
        return abs(self._read_offset() - self._offset) >= TOLERANCE

    def _read_offset(self) -> float:
        return self._wall() - self._steady()
