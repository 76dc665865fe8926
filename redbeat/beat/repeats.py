"""What a log has been told of late, so that it is told once and not at every run."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

#: Seconds until the same is told again.
SILENCE = 3600.0

#: How many things are remembered at the most; the one told longest ago is forgotten first.
MOST_REMEMBERED = 10_000


class Repeats:
    """The errors of entries that a log has been told, each of which it is told once an hour.

    ``clock`` gives seconds that only grow.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self.clock = clock
        self._told_at: OrderedDict[Hashable, float] = OrderedDict()

    def error(self, about: Hashable, exc: BaseException, message: str, *args: object) -> None:
        """Log one line at error; at debug, if ``about`` was told in this hour, and tracebacks."""
        if self._is_news(about):
            self._logger.error(message, *args, stacklevel=2)
            self._logger.debug("beat: The traceback of that:", exc_info=exc, stacklevel=2)
        else:
            self._logger.debug(message, *args, exc_info=exc, stacklevel=2)

    def _is_news(self, about: Hashable) -> bool:
        now = self.clock()
        if now < self._told_at.get(about, float("-inf")) + SILENCE:
            return False
        self._told_at[about] = now
        self._told_at.move_to_end(about)
        if len(self._told_at) > MOST_REMEMBERED:
            self._told_at.popitem(last=False)
        return True
