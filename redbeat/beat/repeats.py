"""Errors that repeat at every run, and are logged once an hour."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

#: Seconds until the same error is logged again.
SILENCE = 3600.0

#: How many errors are remembered at most; the one logged longest ago is forgotten first.
MOST_REMEMBERED = 10_000


class Repeats:
    """Logs each error of an entry once an hour; ``clock`` gives seconds that only grow."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self.logger = logger
        self.clock = clock
        self._logged_at: OrderedDict[Hashable, float] = OrderedDict()

    def error(self, about: Hashable, exc: BaseException, message: str, *args: object) -> None:
        """Log one line at error, and the traceback at debug.

        All at debug if an error with the same ``about`` was logged within the last hour.
        """
        now = self.clock()
        if now < self._logged_at.get(about, float("-inf")) + SILENCE:
            self.logger.debug(message, *args, exc_info=exc, stacklevel=2)
            return
        self._logged_at[about] = now
        self._logged_at.move_to_end(about)
        if len(self._logged_at) > MOST_REMEMBERED:
            self._logged_at.popitem(last=False)
        self.logger.error(message, *args, stacklevel=2)
        self.logger.debug("beat: The traceback of this error:", exc_info=exc, stacklevel=2)
