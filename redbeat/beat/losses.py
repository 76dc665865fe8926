"""Noticing that Redis has lost the schedule.

Each beat, leader or standby, remembers some entries that it has seen in the schedule, and whether a
leader had noted its time zone beside them. Whoever leads next compares. The schedule is lost

* if that note is gone: nobody ever deletes it, so somebody or something emptied the database;
* if the schedule is empty although one of its entries exists: only its own key was deleted.

If the note is there and no entry is left, the last entry was deleted. A leader of another kind (a
program that drives ticks, or celery-redbeat 2.x) leaves no note. The caller then has to say what an
empty schedule means.

A beat that reports a loss notes that as well, for five minutes: other beats then do not report it
again, and ``redbeat check`` fails.

How it can fail. Beats that were all started after the loss do not notice it. Nor does a beat that
takes over from one that never saw the schedule, led first after the loss, and noted its time zone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone

from ..store.records import Trace
from ..store.storage import Storage

#: How many entries a beat remembers at most.
MOST_REMEMBERED = 100

#: Seconds for which a reported loss stays noted.
LIFETIME = 300


class Memory:
    """What one beat has seen of the schedule; ``static_keys`` gives the keys of its own entries."""

    def __init__(
        self, get_storage: Callable[[], Storage], static_keys: Callable[[], Iterable[str]]
    ) -> None:
        self._get_storage = get_storage
        self._static_keys = static_keys
        self._seen = Trace([], False, None)
        self._looked_at = float("-inf")

    @property
    def age(self) -> float:
        """Seconds since the last look."""
        return time.monotonic() - self._looked_at

    def remember(self, keys: Iterable[str]) -> None:
        """Add entries that are known to be in the schedule; no round trip."""
        known = dict.fromkeys([*keys, *self._seen.members])
        self._seen = self._seen._replace(members=list(known)[:MOST_REMEMBERED])

    def learn(self) -> None:
        """Take the schedule as it is now; one round trip."""
        self._seen = self._look()

    def finds_loss(self, empty_is_loss: bool) -> bool:
        """Whether the schedule was lost since the last look, and nobody has reported it yet.

        If not, remembers what is there now. Where there never was a note, ``empty_is_loss`` says
        what an empty schedule means. One round trip, two if the schedule is empty.
        """
        now = self._look()
        # What emptied the database took the note of an earlier loss with it.
        is_reported = now.loss not in (None, self._seen.loss)
        if self._seen.members and not is_reported and self._is_loss(now, empty_is_loss):
            return True
        self._seen = now
        return False

    def may_report(self, beat: str) -> bool:
        """Note that this beat reports a loss; ``False`` if another beat has just done so.

        One round trip, two if an earlier loss was reported less than ``LIFETIME`` seconds ago.
        """
        note = f"{time.time():.0f} {beat}"
        return self._get_storage().notes.note_loss(note, LIFETIME, self._seen.loss)

    def _look(self) -> Trace:
        self._looked_at = time.monotonic()
        return self._get_storage().notes.read_trace(MOST_REMEMBERED)

    def _is_loss(self, now: Trace, empty_is_loss: bool) -> bool:
        if self._seen.has_zone and not now.has_zone:
            return True
        if now.members:
            return False
        if not self._seen.has_zone and empty_is_loss:
            return True
        keys = dict.fromkeys([*self._seen.members, *self._static_keys()])
        return any(self._get_storage().read_definitions(list(keys)[:MOST_REMEMBERED]))


def lost_at(note: str | None) -> datetime | None:
    """When a loss was reported, in UTC, by its note; ``None`` if there is none that is readable."""
    try:
        return datetime.fromtimestamp(float((note or "").partition(" ")[0]), timezone.utc)
    except (OSError, OverflowError, ValueError):
        return None
