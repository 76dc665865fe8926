"""The runs to come: worked out from what is stored, without changing it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from ..schedulers import RedBeatSchedulerEntry
from ..timing.due import is_plain_interval, next_due
from ..timing.history import awaited_from
from .listings import Listing

#: How far apart two readings of the clock may be that mean one moment.
UNCERTAINTY = timedelta(milliseconds=500)


class Run(NamedTuple):
    """A run to come: of which entry, and when (aware, UTC; now if it is overdue)."""

    name: str
    due_at: datetime
    entry: RedBeatSchedulerEntry


def upcoming(listings: Iterable[Listing]) -> Iterator[Run]:
    """The next runs of entries that are listed in the order of their due times.

    Listings are read on as their due times come near. Paused entries have no runs. Never ends if an
    entry repeats for ever.
    """
    now = datetime.now(timezone.utc)
    # A heap with the next run of each entry.
    queue: list[tuple[datetime, str, RedBeatSchedulerEntry]] = []
    for listing in listings:
        if listing.entry is None or listing.due_at is None or not listing.entry.enabled:
            continue
        while queue and queue[0][0] < listing.due_at:
            yield _pop(queue)
        try:
            due_at = _next_run(listing.entry, now, listing.due_at)
        except Exception:
            # Beat sets an entry aside whose schedule raises: it does not run.
            continue
        if due_at is not None:
            heapq.heappush(queue, (due_at, listing.name, listing.entry))
    while queue:
        yield _pop(queue)


def _pop(queue: list[tuple[datetime, str, RedBeatSchedulerEntry]]) -> Run:
    """Take the first run out; the next run of its entry takes its place."""
    due_at, name, entry = queue[0]
    # A schedule that answers by its own clock reads it after we read ours, and would name the same
    # moment again: so the run is taken to be made a moment later, as beat makes it.
    ran_at = due_at if is_plain_interval(entry.schedule) else due_at + UNCERTAINTY
    following = next_due(entry.schedule, ran_at, datetime.now(timezone.utc))
    if following is None or following <= due_at:
        heapq.heappop(queue)
    else:
        heapq.heapreplace(queue, (following, name, entry))
    return Run(name, due_at, entry)


def _next_run(
    entry: RedBeatSchedulerEntry, now: datetime, stored_due_at: datetime
) -> datetime | None:
    """When the entry runs next: not before its place in the schedule, nor before now."""
    awaited = None
    if entry.last_run_at is None:
        awaited = awaited_from(entry.schedule, stored_due_at.timestamp(), now)
    due = entry.next_due(now) if awaited is None else next_due(entry.schedule, awaited, now)
    return None if due is None else max(due, stored_due_at, now)


def is_too_late(listing: Listing, slack: timedelta) -> bool:
    """Whether an entry is due later, by more than ``slack``, than if it had just run.

    This is not so for one that never ran: it may be meant to begin at any time.
    """
    entry, now = listing.entry, datetime.now(timezone.utc)
    if listing.state != "waiting" or entry is None or listing.due_at is None:
        return False
    if entry.last_run_at is None or entry.has_own_score:
        return False
    try:
        due = next_due(entry.schedule, now, now)
    except Exception:
        # Beat sets it aside when it is due.
        return False
    return due is not None and listing.due_at > due + slack
