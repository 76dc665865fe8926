"""The POSIX signals that end beat, held back while a batch is on its way.

Celery's handlers raise ``SystemExit`` wherever the program happens to be. Between a message and its
commit that would leave a run both sent and due.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .greenlets import is_in_event_loop

#: The signals that end beat; ``SIGHUP`` (the terminal was closed) where the platform has it.
ENDING_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
]

#: Seconds at most for which a signal is held back.
SIGNAL_PATIENCE = 1.5


class HeldBack:
    """The signals that arrived while they were held back; true if there was one."""

    def __init__(self) -> None:
        self.pending: list[tuple[int, FrameType | None]] = []
        self._reminder: threading.Timer | None = None

    def __bool__(self) -> bool:
        return bool(self.pending)

    def note(self, signum: int, frame: FrameType | None) -> None:
        """Keep the first signal for later; a second one ends the process at once.

        The first is sent again after ``SIGNAL_PATIENCE`` seconds, in case the broker hangs.
        """
        if self.pending:
            raise SystemExit(128 + signum)
        self.pending.append((signum, frame))
        if is_in_event_loop():
            # Starting a thread would block it.
            return
        self._reminder = threading.Timer(SIGNAL_PATIENCE, os.kill, (os.getpid(), signum))
        self._reminder.daemon = True
        self._reminder.start()

    def end(self) -> None:
        """Cancel the reminder: the block is over."""
        if self._reminder is not None:
            self._reminder.cancel()


@contextmanager
def hold_back_signals() -> Iterator[HeldBack]:
    """Hold back the signals that end beat until the block ends; a no-op outside the main thread."""
    held_back = HeldBack()
    if threading.current_thread() is not threading.main_thread():
        yield held_back
        return
    handlers: dict[int, Any] = {
        signum: signal.signal(signum, held_back.note)
        for signum in ENDING_SIGNALS
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        yield held_back
    finally:
        held_back.end()
        for signum, handler in handlers.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        for signum, frame in held_back.pending:
            handler = handlers[signum]
            if handler is signal.SIG_DFL:
                signal.raise_signal(signum)
            elif callable(handler):
                handler(signum, frame)


def end_on_hang_up() -> None:
    """Let ``SIGHUP`` end this process the way ``SIGTERM`` does; only in the main thread.

    A process started with ``nohup``, or one with a handler of its own, is left alone.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        return
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
