"""Noticing that the main thread hangs, saying where, and ending the process if nobody takes over.

The main thread says within how many seconds it expects to be back. It is *stalled* once it is
overdue by more than the stall timeout. The heartbeat, another thread, then stops renewing the lock,
so that another beat can lead. If none has taken over when it should have, the process ends, for its
supervisor to restart it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from celery.utils.log import get_logger

from ..store.escaping import Lines

logger = get_logger("celery.beat")

#: Seconds between two looks at a main thread that is stalled.
LOOKING_INTERVAL = 1.0

#: Seconds beyond the failover timeout that a standby, which looks once a second, may need.
TAKEOVER_TIME = 5.0

#: Seconds at most to wait until a report is logged: the main thread may hang while it logs.
REPORTING_TIME = 2.0

#: The exit status of a beat that ends because its main thread hangs.
EXIT_STALLED = os.EX_SOFTWARE


class Watchdog:
    """Watches the thread that makes it, unless another calls :meth:`watch_this_thread`.

    ``stall_timeout`` and ``failover_timeout`` are seconds; ``clock`` gives seconds that only grow.
    ``is_replaced`` tells whether another beat leads by now. ``end_process`` is called with an exit
    status to end this process; ``None``, the default, keeps it running.
    """

    def __init__(
        self,
        stall_timeout: float,
        failover_timeout: float,
        is_replaced: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stall_timeout = stall_timeout
        self.clock = clock
        self.end_process: Callable[[int], object] | None = None
        self._failover_timeout = failover_timeout
        self._is_replaced = is_replaced
        self._expected_at = float("inf")
        self._thread = threading.get_ident()

    def watch_this_thread(self) -> None:
        """Take the calling thread for the main thread."""
        self._thread = threading.get_ident()

    def expect(self, seconds: float) -> None:
        """Note that the main thread is alive, and will be back within so many seconds."""
        self._expected_at = self.clock() + seconds

    @property
    def is_stalled(self) -> bool:
        """Whether the main thread is overdue by more than the stall timeout."""
        return self.clock() > self._expected_at + self.stall_timeout

    def outlast_stall(self, stop: threading.Event) -> None:
        """Return once the main thread is not stalled, or ``stop`` is set; at once if all is well.

        Logs where the main thread hangs, and ends the process if no other beat takes over in time.
        """
        # In a process that was suspended, the calling thread may just be the first one to resume.
        if not self.is_stalled or stop.wait(LOOKING_INTERVAL) or not self.is_stalled:
            return
        # Only this function shows the stack of another thread.
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001
        stack = traceback.format_stack(frame) if frame else ["  (its stack is unknown)\n"]
        report(
            f"beat: The main thread has been stuck for more than {self.stall_timeout:g} seconds "
            "past the time at which it should have gone on. The lock is no longer renewed, so that "
            f"another beat can lead. It is stuck here:\n{''.join(stack)}"
        )
        ends_at = time.monotonic() + self._failover_timeout + TAKEOVER_TIME
        while not stop.wait(LOOKING_INTERVAL) and self.is_stalled:
            if (
                time.monotonic() >= ends_at
                and self.end_process is not None
                and not self._is_replaced()
            ):
                report(
                    "beat: The main thread is still stuck, and no other beat leads. Ending this "
                    "process so that its supervisor restarts it."
                )
                self.end_process(EXIT_STALLED)


def report(message: str) -> None:
    """Log at critical, without waiting for long: the main thread may hang while it logs."""
    reporter = threading.Thread(target=lambda: logger.critical("%s", Lines(message)), daemon=True)
    try:
        reporter.start()
    except RuntimeError:
        # No more threads can be started. The process has to end all the same.
        return
    reporter.join(REPORTING_TIME)
