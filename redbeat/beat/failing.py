"""The entries whose last run failed: noted by the beat that ran them, named by ``redbeat check``.

They are a sorted set of keys, by the time of the failed run in seconds since the epoch. It outlives
beats, so that an entry that runs once a week is not forgotten when beat restarts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from celery.utils.log import get_logger

from ..store.storage import REDIS_ERRORS, Storage

logger = get_logger("celery.beat")

#: How many failing entries are noted at the most.
MOST_FAILING = 1000


class Failing:
    """What one beat knows of the failing entries. A Redis that is away costs a note, and no run."""

    def __init__(self, get_storage: Callable[[], Storage]) -> None:
        self._get_storage = get_storage
        self._known: set[str] = set()

    def load(self) -> None:
        """Read what other beats have noted, and drop what is not in the schedule any more.

        One round trip; three if there are such entries.
        """
        storage = self._get_storage()
        try:
            noted = [member.key for member in storage.read_failing(MOST_FAILING)]
            scores = storage.read_scores(noted)
            gone = [key for key, score in zip(noted, scores, strict=False) if score is None]
            storage.note_failing({}, gone)
        except REDIS_ERRORS as exc:
            logger.debug("beat: The failing entries were not read: %s", exc)
        else:
            self._known = set(noted) - set(gone)

    def note(self, failed: Iterable[str], succeeded: Iterable[str]) -> None:
        """Note how the runs of these keys ended; one round trip, none if there is nothing new."""
        recovered = self._known.intersection(succeeded)
        again = [key for key in failed if key in self._known]
        new = [key for key in failed if key not in self._known]
        noted = again + new[: max(MOST_FAILING - len(self._known), 0)]
        now = time.time()
        try:
            self._get_storage().note_failing(dict.fromkeys(noted, now), recovered)
        except REDIS_ERRORS as exc:
            logger.debug("beat: The failing entries were not noted: %s", exc)
        else:
            self._known = (self._known | set(noted)) - recovered
