"""One turn of a running beat service: a tick, whoever wrote it, and the rest after it.

Celery's service calls the scheduler's ``tick`` and sleeps for what it returns. A :class:`Loop`
stands in for that tick: it rests itself, so that a change can end the rest, and keeps an override
that does not ask who leads from running on a standby.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from redis.exceptions import LockNotOwnedError

from ..store.access import REDIS_ERRORS
from ..store.sentinels import HOLDING_INTERVAL
from .interrupts import end_on_hang_up
from .leadership import Leadership
from .masters import Masters
from .office import Office
from .pauses import Pauses
from .publishing import require_transport, settle_settings
from .rest import Outlook, Rest
from .settings import Settings
from .watchdog import Watchdog

#: Seconds between a standby's attempts to become leader.
STANDBY_INTERVAL = 1.0


class Ticker(Protocol):
    """What the loop reads of a scheduler, at each turn."""

    app: Any
    max_interval: float
    #: What the last tick left behind; ``None``: an override did not call ours.
    outlook: Outlook | None

    def _current_tick(self) -> tuple[Callable[[], Any], bool]:
        """The tick to call, and whether it is ours, which finds out by itself who leads."""

    def _end_if_closed(self) -> None:
        """Raise ``SystemExit`` if the scheduler is closed."""


class Loop:
    """The turns of one beat service."""

    def __init__(
        self,
        ticker: Ticker,
        office: Office,
        leadership: Leadership,
        masters: Masters,
        pauses: Pauses,
        rest: Rest,
    ) -> None:
        self._ticker = ticker
        self._office = office
        self._leadership = leadership
        self._masters = masters
        self._pauses = pauses
        self._rest = rest
        #: Whether it is not known yet that the broker's transport can be imported.
        self._requires_transport = True

    def turn(self) -> float:
        """Tick and rest; returns 0, the seconds that Celery's service is to sleep."""
        self._ticker._end_if_closed()
        if self._requires_transport:
            require_transport(self._ticker.app)
            self._requires_transport = False
        self._office.note_jump(self._rest.read_jump())
        self._rest.take(self._take_turn(), self._ticker.max_interval)
        return 0.0

    def _take_turn(self) -> Outlook:
        # An earlier loss ended the last rest, and must not end the one after this turn.
        self._leadership.lost.clear()
        tick, is_ours = self._ticker._current_tick()
        try:
            if not is_ours and not self._masters.are_sure():
                return Outlook(HOLDING_INTERVAL)
            if not is_ours and not self._office.keeps_lead():
                return Outlook(STANDBY_INTERVAL)
            self._ticker.outlook = None
            answer = tick()
        except LockNotOwnedError as exc:
            if not self._leadership.lose_own(str(exc)):
                raise
            return Outlook(0.0)
        except REDIS_ERRORS as exc:
            return self._pauses.after(exc)
        outlook = self._ticker.outlook
        if outlook is not None:
            return outlook if answer is None else outlook.answered(answer)
        self._pauses.end()
        return Outlook(answer or 0.0, first_due=time.time() + (answer or 0.0))


def prepare_process(conf: Settings, watchdog: Watchdog) -> None:
    """Make this process one of beat's own: its signals, its garbage, and how it ends.

    What Celery looks up for each message is put where it is found at once, into ``app.conf``.
    """
    settle_settings(conf.app.conf)
    end_on_hang_up()
    is_main_thread = threading.current_thread() is threading.main_thread()
    if conf.exit_when_stalled and is_main_thread:
        watchdog.end_process = os._exit
    freeze_garbage_collector()


@cache
def freeze_garbage_collector() -> None:
    """Exempt what is loaded by now, the program and its modules, from garbage collections.

    Searching all of it takes longer than a tick. Done once per process, and never undone.
    """
    # PyPy's collector has no such option.
    if hasattr(gc, "freeze"):
        gc.collect()
        gc.freeze()
