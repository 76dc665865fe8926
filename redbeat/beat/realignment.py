"""Moving entries whose stored due times no longer hold.

A new leader releases what a dead beat had claimed; entries that follow the application's time zone
are moved when that changes; and last runs that lie
in the future, because the clock was set back, are moved back by as much.
Entries are moved page by page, each only if its score is still the one that was read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from ..store.keys import FINISHED, due_by, may_be_written
from ..store.records import Member, Outcome, Stored
from ..store.storage import Storage
from ..timing.binding import follows_zone_of_app
from ..timing.due import next_due
from ..timing.history import slot_of_other_zone
from ..timing.instants import as_utc
from ..timing.zones import zone_from_text
from .batch import Build, last_run_before_slot
from .claims import latest_lease

#: How far ahead a last run may lie before the clock must have been set back.
RUN_TOLERANCE = timedelta(seconds=1)

#: What the definition of an entry contains that may follow the time zone of the application.
ZONE_MARKS = ('"crontab"', '"relative": true', '"relative":true')

#: Decides what to write for one entry; ``None`` leaves it as it is.
Decide = Callable[[Member, Stored, Any], Outcome | None]


class Realignment:
    """One pass over the schedule at ``now`` (aware, UTC), ``page`` entries at a time.

    Claims of other beats last ``claim_timeout`` seconds. ``build`` builds entries.
    """

    def __init__(
        self, storage: Storage, now: datetime, claim_timeout: float, page: int, build: Build
    ) -> None:
        self._storage = storage
        self._now = now
        self._since = now.timestamp()
        self._claimed_until = latest_lease(self._since, claim_timeout)
        self._page = page
        self._build = build

    def release_abandoned(self) -> int:
        """Make due what a beat that is gone had claimed; returns how many entries that were.

        For a new leader only: no other beat holds claims then. A score within the claim timeout
        whose entry is overdue by its meta is the lease of a claim; so is that of an entry without a
        history that awaits a slot. Round trips: two, and one per page.
        """
        ahead = [
            member
            for member in self._storage.read_between(self._since, self._claimed_until)
            if not may_be_written(member.score)
        ]
        abandoned: list[tuple[Member, Outcome]] = []
        for start in range(0, len(ahead), self._page):
            abandoned += self._decided(ahead[start : start + self._page], self._due_if_overdue)
        return self._storage.move(abandoned)

    def move_to_zone(self, before: str) -> Iterator[int]:
        """Move entries that follow the application's time zone, which was ``before``.

        Yields how many were moved, per page. What is due, claimed or paused stays where it is.
        Three round trips per page.
        """
        zone = zone_from_text(before)

        def moved(member: Member, stored: Stored, entry: Any) -> Outcome | None:
            if not entry.enabled or entry.has_own_score or not follows_zone_of_app(entry.schedule):
                return None
            if entry.last_run_at is not None:
                due = entry.next_due(self._now)
            elif zone is None:
                return None
            else:
                awaited = slot_of_other_zone(entry.schedule, member.score, self._now, zone)
                due = None if awaited is None else next_due(entry.schedule, awaited, self._now)
            if due is None:
                return None
            score = math.floor(max(due, self._now).timestamp())
            return Outcome(member.key, score) if score != math.floor(member.score) else None

        return self._move_ahead(self._claimed_until, moved)

    def put_back(self, jump: timedelta, has_claims: bool) -> Iterator[int]:
        """Move last runs that lie in the future back by ``jump``: the clock was set back by that.

        Yields how many entries that concerned, per page. ``has_claims``: other beats may hold
        claims, which are left alone. Two round trips per page.
        """

        def earlier(member: Member, stored: Stored, entry: Any) -> Outcome | None:
            if entry.last_run_at is None:
                return None
            ran_at = as_utc(entry.last_run_at)
            if ran_at <= self._now + RUN_TOLERANCE:
                return None
            counted = min(ran_at - jump, self._now)
            entry.last_run_at = counted.astimezone(entry.last_run_at.tzinfo)
            if entry.has_own_score:
                score = float(entry.score)
            else:
                due = entry.next_due(self._now)
                score = FINISHED if due is None else due.timestamp()
            return Outcome(member.key, score, entry.encode_meta(), stored.meta or "")

        return self._move_ahead(self._claimed_until if has_claims else self._since, earlier)

    def may_need_zone(self) -> bool:
        """Whether an entry may follow the application's time zone; two round trips per page."""
        return any(
            mark in (definition or "")
            for members in self._pages(0)
            for definition in self._storage.read_definitions([member.key for member in members])
            for mark in ZONE_MARKS
        )

    def _due_if_overdue(self, member: Member, stored: Stored, entry: Any) -> Outcome | None:
        if not entry.enabled:
            return None
        if entry.last_run_at is None:
            is_overdue = last_run_before_slot(entry.schedule, member.score, self._now) is not None
        else:
            due = entry.next_due(self._now)
            is_overdue = due is not None and due <= self._now
        return Outcome(member.key, due_by(self._since, member.score)) if is_overdue else None

    def _move_ahead(self, leased_until: float, decide: Decide) -> Iterator[int]:
        """Write what ``decide`` says of the entries that are due later and not claimed."""
        for members in self._pages(f"({self._since!r}"):
            ahead = [m for m in members if may_be_written(m.score) or m.score > leased_until]
            yield self._storage.move(self._decided(ahead, decide))

    def _decided(self, members: list[Member], decide: Decide) -> list[tuple[Member, Outcome]]:
        decided = []
        stored = self._storage.read_entries([member.key for member in members])
        for member, fields in zip(members, stored, strict=True):
            try:
                outcome = decide(member, fields, self._build(member.key, fields))
            except Exception:
                # It is set aside when it is due.
                continue
            if outcome is not None:
                decided.append((member, outcome))
        return decided

    def _pages(self, low: float | str) -> Iterator[list[Member]]:
        """Members from a score on; those that are moved meanwhile may be met again."""
        size = self._page
        while True:
            members = self._storage.read_page(low, math.inf, size)
            yield members
            if len(members) < size:
                return
            last = members[-1].score
            # More than a page may be due at one time.
            size, low = (size * 2 if last == low else self._page), last
