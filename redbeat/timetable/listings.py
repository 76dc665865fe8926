"""Reads the schedule a page at a time, and tells the state of each entry."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from inspect import getattr_static
from itertools import islice
from typing import Any, Literal, TypeVar

from ..beat.failing import MOST_FAILING
from ..schedulers import RedBeatConfig, RedBeatSchedulerEntry, ensure_conf, get_storage
from ..store.keys import SET_ASIDE
from ..store.records import Member, Stored
from ..store.storage import Storage
from ..timing.instants import as_utc

#: Entries read together.
PAGE = 500

#: Scores from zero on are due times.
TIMED = (0.0, math.inf)

#: Entries with any score below zero are never due. Others may write any such number.
NEVER = (-math.inf, math.nextafter(0.0, -math.inf))

Item = TypeVar("Item")

State = Literal["waiting", "overdue", "paused", "finished", "set aside", "broken", "gone"]


@dataclass(frozen=True)
class Listing:
    """An entry as it stands in the schedule, readable or not.

    ``entry`` is ``None`` if it cannot be built; then, and if it is set aside, ``reason`` says why.
    ``due_at`` is aware, UTC; ``None`` if there is no due time that a datetime can hold: finished,
    set aside, or in too distant a year. ``stored`` is the hash as it was read.
    """

    name: str
    key: str
    state: State
    due_at: datetime | None
    stored: Stored = field(repr=False)
    entry: RedBeatSchedulerEntry | None = None
    reason: str = ""

    def has_task(self, pattern: str) -> bool:
        """Whether the entry can be read, and its task matches a pattern as in a shell."""
        return self.entry is not None and fnmatchcase(str(self.entry.task), pattern)


class Reader:
    """Reads entries of one class from the schedule of an application."""

    def __init__(self, app: Any, entry_class: type[RedBeatSchedulerEntry]) -> None:
        self.app = app
        self.entry_class = entry_class

    @property
    def conf(self) -> RedBeatConfig:
        """The configuration of the application."""
        return ensure_conf(self.app)

    @property
    def storage(self) -> Storage:
        """The schedule in Redis."""
        return get_storage(self.app)

    def key(self, name: str) -> str:
        """The key of the entry of this name."""
        return self.entry_class.generate_key(self.app, name)

    def name(self, key: str) -> str:
        """The name of the entry at this key."""
        return key.removeprefix(self.conf.key_prefix)

    def removable_key(self, name: str) -> str:
        """The key of an entry to be removed; raises ``EntryError`` if it is one of ours."""
        key = self.key(name)
        self.conf.refuse_own_key(name, key)
        return key

    def under(self, key: str, entry: RedBeatSchedulerEntry) -> RedBeatSchedulerEntry:
        """The entry, named after its key, so that saving it does not make another one.

        Other languages may write any name into a definition.
        """
        if entry.key != key:
            entry.name = self.name(key)
        return entry

    def pages(self, *ranges: tuple[float, float]) -> Iterator[list[Member]]:
        """The members with scores in each range, by default all; one round trip per page of 500."""
        for low, high in ranges or (TIMED, NEVER):
            page = self.storage.read_page(low, high, PAGE)
            while len(page) == PAGE:
                yield page
                page = self.storage.read_page(low, high, PAGE, after=page[-1])
            if page:
                yield page

    def between(self, low: float, high: float) -> Iterator[Listing]:
        """The entries with scores in this range; two round trips per page of 500."""
        return (listing for page in self.pages((low, high)) for listing in self._read(page))

    def matching(self, match: str, task: str | None) -> Iterator[Listing]:
        """The entries whose name, and task if given, match the patterns."""
        for page in self.pages():
            named = [member for member in page if fnmatchcase(self.name(member.key), match)]
            if task is None:
                yield from self._read(named)
                continue
            candidates = self._read(self._with_task(named, task))
            yield from (listing for listing in candidates if listing.has_task(task))

    def _with_task(self, page: list[Member], pattern: str) -> list[Member]:
        """The members that may have such a task; one round trip.

        This costs a fraction of building all entries.
        """
        names, ours = ("from_stored", "load_definition", "decode_definition"), RedBeatSchedulerEntry
        if any(getattr_static(self.entry_class, n) is not getattr_static(ours, n) for n in names):
            # Only such a class knows what it makes of a definition.
            return page
        definitions = self.storage.read_definitions([member.key for member in page])
        return [
            member
            for member, definition in zip(page, definitions, strict=True)
            if definition is not None and _may_have_task(definition, pattern)
        ]

    def _read(self, page: list[Member]) -> Iterator[Listing]:
        stored = self.storage.read_entries([member.key for member in page])
        return map(self.listing, page, stored)

    def look_up(self, keys: Iterable[str]) -> Iterator[Listing]:
        """The entries of the schedule with these keys, in their order; two round trips per 500."""
        for page in paged(keys):
            scores, stored = self.storage.read_scores(page), self.storage.read_entries(page)
            for key, score, fields in zip(page, scores, stored, strict=True):
                if score is not None:
                    yield self.listing(Member(key, score), fields)

    def failing(self) -> Iterator[Listing]:
        """The entries that failed in their last run, and are meant to run; three round trips."""
        failed_at = {each.key: each.score for each in self.storage.notes.read_failing(MOST_FAILING)}
        for listing in self.look_up(failed_at):
            if listing.entry is None or listing.state not in ("waiting", "overdue", "finished"):
                continue
            last_run_at = listing.entry.last_run_at
            if last_run_at is None or as_utc(last_run_at).timestamp() <= failed_at[listing.key]:
                yield listing

    def listing(self, member: Member, stored: Stored) -> Listing:
        """An entry that has been read, with its state."""
        entry, reason = self._build(member.key, stored)
        state = _state(member.score, stored, entry)
        if state == "set aside":
            reason = _reason(stored) or reason
        name, due_at = self.name(member.key), _due_at(member.score)
        return Listing(name, member.key, state, due_at, stored, entry, reason)

    def _build(self, key: str, stored: Stored) -> tuple[RedBeatSchedulerEntry | None, str]:
        """The entry, or why it cannot be built."""
        try:
            entry = self.entry_class.from_stored(key, stored, app=self.app)
        except KeyError:
            return None, "there is no hash with a definition at its key"
        except Exception as exc:
            return None, f"{type(exc).__name__}: {exc}"
        if not hasattr(entry.schedule, "remaining_estimate"):
            expected = "a Celery schedule or a number of seconds"
            return None, f"its schedule must be {expected}, got {entry.schedule!r}"
        return self.under(key, entry), ""


def paged(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in lists of 500; the last one may be shorter."""
    remaining = iter(items)
    while page := list(islice(remaining, PAGE)):
        yield page


def _may_have_task(definition: str, pattern: str) -> bool:
    """Whether the task matches, or is known only once the entry is built."""
    try:
        task = json.loads(definition)["task"]
    except (KeyError, RecursionError, TypeError, ValueError):
        # A decoder of the application's own may read it.
        return True
    return not isinstance(task, str) or fnmatchcase(task, pattern)


def _state(score: float, stored: Stored, entry: RedBeatSchedulerEntry | None) -> State:
    if stored.is_gone:
        return "gone"
    if score == SET_ASIDE:
        return "set aside"
    if entry is None:
        return "broken"
    if not entry.enabled:
        return "paused"
    if score < 0:
        return "finished"
    return "overdue" if score <= time.time() else "waiting"


def _reason(stored: Stored) -> str:
    """Why beat set the entry aside, as it noted."""
    try:
        return str(json.loads(stored.set_aside or "")["reason"])
    except (KeyError, TypeError, ValueError):
        return ""


def _due_at(score: float) -> datetime | None:
    """The due time of a score; ``None`` if there is none that a datetime can hold."""
    try:
        return datetime.fromtimestamp(score, timezone.utc) if score >= 0 else None
    except (OverflowError, OSError, ValueError):
        return None
