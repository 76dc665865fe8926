"""Noticing that Redis has lost the schedule: a fact about Redis, whichever beat meets it.

What is gone cannot tell that it was there, so each beat remembers, the standbys as well: some
entries that it has seen in the schedule, and whether a leader had noted its time zone beside them.
Whoever leads next compares. The schedule is lost

* if the note is gone: nobody ever deletes it, so somebody or something emptied the database;
* if the schedule is empty, and yet an entry of it is there: its own key alone was deleted.

An empty schedule beside the note, and with no entry left, is one whose last entry was deleted. A
leader of another kind (a program that ticks, celery-redbeat 2.x) leaves no note: then its caller
has to say what an empty schedule means.

Who tells of a loss leaves a note of that as well, for five minutes: it keeps others from telling it
again, and ``redbeat check`` from saying that all is well.

How it can fail. Beats that were all started after the loss know nothing of it. Nor does a beat that
takes the lead from one that has never seen the schedule, was faster, and noted its zone anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone

from ..store.storage import Storage, Trace

#: How many entries a beat remembers at the most.
MOST_REMEMBERED = 100

#: Seconds for which the note of a loss stays.
LIFETIME = 300


class Memory:
    """What one beat has seen of the schedule; ``static_keys`` gives the keys of its own entries."""

    def __init__(
        self, get_storage: Callable[[], Storage], static_keys: Callable[[], Iterable[str]]
    ) -> None:
        self._get_storage = get_storage
        self._static_keys = static_keys
        self._seen: list[str] = []
        self._has_seen_note = False
        self._told: str | None = None
        self._looked_at = float("-inf")

    @property
    def age(self) -> float:
        """Seconds since the last look."""
        return time.monotonic() - self._looked_at

    def remember(self, keys: Iterable[str]) -> None:
        """Take down entries that were found in the schedule by other means; no round trip."""
        known = dict.fromkeys([*keys, *self._seen])
        self._seen = list(known)[:MOST_REMEMBERED]

    def learn(self) -> None:
        """Take things as they are from now on; one round trip."""
        self._adopt(self._read())

    def finds_loss(self, means_loss: bool) -> bool:
        """Whether the schedule was lost since the last look, and nobody has told yet.

        If not, remembers what is there now. ``means_loss`` says whether an empty schedule is a lost
        one where no note tells. One round trip, two if the schedule is empty now.
        """
        trace = self._read()
        # What emptied the database took the note of an earlier loss with it.
        is_told = trace.told not in (None, self._told)
        if self._seen and not is_told and self._is_loss(trace, means_loss):
            return True
        self._adopt(trace)
        return False

    def may_tell(self, teller: str) -> bool:
        """Leave the note of a loss that was found, unless another beat has just done so.

        Returns whether the loss is to be told by this one. One round trip, two if the last loss was
        told less than ``LIFETIME`` seconds ago.
        """
        note = f"{time.time():.0f} {teller}"
        return self._get_storage().note_loss(note, LIFETIME, self._told)

    def _is_loss(self, trace: Trace, means_loss: bool) -> bool:
        if self._has_seen_note and not trace.has_note:
            return True
        if trace.members:
            return False
        if not self._has_seen_note and means_loss:
            return True
        keys = dict.fromkeys([*self._seen, *self._static_keys()])
        return any(self._get_storage().read_definitions(list(keys)[:MOST_REMEMBERED]))

    def _read(self) -> Trace:
        self._looked_at = time.monotonic()
        return self._get_storage().read_trace(MOST_REMEMBERED)

    def _adopt(self, trace: Trace) -> None:
        self._seen = trace.members
        self._has_seen_note, self._told = trace.has_note, trace.told


def lost_at(note: str | None) -> datetime | None:
    """When a loss was told (UTC), by its note; ``None`` if there is none that can be read."""
    try:
        return datetime.fromtimestamp(float((note or "").partition(" ")[0]), timezone.utc)
    except (OSError, OverflowError, ValueError):
        return None
