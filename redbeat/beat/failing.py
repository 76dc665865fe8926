"""The entries whose last run failed: noted by the beat that ran them, named by ``redbeat check``.

They are a sorted set of keys. The score is the time of the failed run, in seconds since the epoch.
The set outlives beats: an entry that runs once a week is not forgotten when beat restarts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from celery.utils.log import get_logger

from ..store.access import REDIS_ERRORS
from ..store.storage import Storage

logger = get_logger("celery.beat")

#: How many failing entries are noted at most.
MOST_FAILING = 1000


class Failing:
    """What one beat knows about failing entries. Redis errors are logged at debug, not raised."""

    def __init__(self, get_storage: Callable[[], Storage]) -> None:
        self._get_storage = get_storage
        self._known: set[str] = set()

    def load(self) -> None:
        """Read what other beats have noted, and drop entries that are no longer in the schedule.

        One round trip; three if any are noted.
        """
        storage = self._get_storage()
        try:
            noted = [member.key for member in storage.notes.read_failing(MOST_FAILING)]
            scores = storage.read_scores(noted)
            gone = {key for key, score in zip(noted, scores, strict=False) if score is None}
            storage.notes.note_failing({}, gone)
        except REDIS_ERRORS as exc:
            logger.debug("beat: Cannot read which entries failed: %s", exc)
        else:
            self._known = set(noted) - gone

    def note(self, failed: Sequence[str], succeeded: Iterable[str]) -> None:
        """Note how the runs of these keys ended; one round trip, none if there is nothing new."""
        recovered = self._known.intersection(succeeded)
        again = [key for key in failed if key in self._known]
        new = [key for key in failed if key not in self._known]
        noted = again + new[: max(MOST_FAILING - len(self._known), 0)]
        try:
            self._get_storage().notes.note_failing(dict.fromkeys(noted, time.time()), recovered)
        except REDIS_ERRORS as exc:
            logger.debug("beat: Cannot note which entries failed: %s", exc)
        else:
            self._known = (self._known | set(noted)) - recovered
