"""The whole schedule as a mapping from names to entries, for programs and the command line.

Everything is read from Redis when it is asked for, a page at a time, so a schedule of a million
entries takes no more memory than one of a thousand. Entries that run during an iteration move to a
later time and may be met again there; none is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from collections.abc import ItemsView as ItemsViewBase
from collections.abc import ValuesView as ValuesViewBase
from datetime import datetime
from itertools import groupby, islice, takewhile
from typing import Any

from celery.app import app_or_default
from celery.beat import Scheduler
from kombu.utils.imports import symbol_by_name

from ..beat.entries import store, take_lazy_functions
from ..beat.holder import Holder, read_holder
from ..beat.losses import lost_at
from ..beat.reports import Report, decode_reports
from ..errors import EntryError
from ..schedulers import OWN_SENDERS, RedBeatScheduler, RedBeatSchedulerEntry
from ..store.keys import FINISHED, SET_ASIDE
from ..store.records import Member, Seen
from ..store.storage import Storage
from ..timing.instants import as_utc
from . import agenda, editing
from .agenda import Run
from .listings import NEVER, TIMED, Listing, Reader, State, paged

__all__ = ["Listing", "Run", "State", "Timetable"]


class Timetable(MutableMapping[str, RedBeatSchedulerEntry]):
    """The schedule of an application: a mapping from name to entry, in the order of due times.

    Methods raise what redis-py raises when Redis cannot be reached.

    Args:
        app: the Celery application, by default the current one.
        entry_class: the class of the entries; by default that of the application's scheduler
            (``beat_scheduler``) if it is one of ours, else ``RedBeatSchedulerEntry``.
    """

    def __init__(
        self, app: Any = None, entry_class: type[RedBeatSchedulerEntry] | None = None
    ) -> None:
        self.app = app_or_default(app)
        self.entry_class = entry_class or _scheduler_of(self.app).Entry
        self._reader = Reader(self.app, self.entry_class)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._reader.conf.schedule_key}>"

    @property
    def _storage(self) -> Storage:
        return self._reader.storage

    # A mapping

    def __len__(self) -> int:
        """How many entries there are, including finished ones; one round trip."""
        return self._storage.count_members()

    def __contains__(self, name: object) -> bool:
        """Whether ``[name]`` finds an entry, readable or not; one round trip at most.

        A place in the schedule alone is not an entry: see ``listing``.
        """
        if not isinstance(name, str) or self._reader.key(name) in self._reader.conf.own_keys:
            return False
        (stored,) = self._storage.read_entries([self._reader.key(name)])
        return bool(stored.definition)

    def __iter__(self) -> Iterator[str]:
        """The names in the order of due times, then finished entries and those set aside.

        One round trip per page of 500.
        """
        reader = self._reader
        return (reader.name(member.key) for page in reader.pages() for member in page)

    def __getitem__(self, name: str) -> RedBeatSchedulerEntry:
        """The entry; one round trip. Raises ``KeyError``, or ``ValueError`` if it is malformed."""
        key = self._reader.key(name)
        with editing.errors_by_name(name):
            return self._reader.under(key, self.entry_class.from_key(key, app=self.app))

    def __setitem__(self, name: str, entry: Any) -> None:
        """Store an entry under a name; two round trips at most.

        Takes an entry, of which a copy is stored, or a dict as in ``beat_schedule``. Raises
        ``EntryError`` (a ``ValueError``) if it cannot be stored.
        """
        self._named(name, entry).save()

    def __delitem__(self, name: str) -> None:
        """Remove an entry; two round trips. Raises ``KeyError`` if there is none.

        Raises ``EntryError`` if its key would be one of ours, such as that of the schedule.
        """
        key = self._reader.removable_key(name)
        # Not told from the removal: that is done again if its answer gets lost, and finds nothing.
        if not self._storage.is_stored(key):
            raise KeyError(name)
        self._storage.change_entries([], [key])

    def values(self) -> ValuesView:
        """The entries, in order; those that cannot be read are left out. See ``listings``."""
        return ValuesView(self)

    def items(self) -> ItemsView:
        """Names and entries, in order; what cannot be read is left out. See ``listings``."""
        return ItemsView(self)

    def clear(self) -> None:
        """Remove all entries; a few round trips per page of 500.

        If Redis refuses to remove some, it raises the first refusal once the others are gone.
        """
        editing.clear(self._reader)

    # Storing entries

    def add(self, name: str, entry: Any) -> bool:
        """Store an entry under a free name; ``False`` if it is taken. Two round trips.

        Takes and raises the same as ``[name] = entry``. An entry that another program stores at the
        same time is not replaced, unless the class of this one has its own ``save``.
        """
        new = self._named(name, entry)
        # To store an entry twice succeeds, since the answer to the first try may have got lost.
        return name not in self and editing.store_new(self._reader, new)

    def setdefault(self, name: str, default: Any = None) -> RedBeatSchedulerEntry:
        """The entry of this name, stored first if there is none: three round trips, else one."""
        try:
            return self[name]
        except KeyError:
            editing.store_new(self._reader, self._named(name, default))
        return self[name]

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Store all of these entries or none, see ``replace``; takes them as ``[name] = entry``."""
        given = {**dict(other), **named}
        self.replace(self._named(name, entry) for name, entry in given.items())

    def replace(self, entries: Iterable[RedBeatSchedulerEntry], deleted: Iterable[str] = ()) -> int:
        """Store entries and remove those named in ``deleted``, as one change; how many are removed.

        In a cluster, and where their class has its own ``save``, entries are stored one by one.
        Raises ``EntryError``, and changes nothing, if an entry cannot be stored, or if the key of a
        name is one of ours. Two round trips at most.
        """
        entries = list(entries)
        own = [entry for entry in entries if editing.saves_itself(entry)]
        rest = [entry for entry in entries if not editing.saves_itself(entry)]
        keys = list(map(self._reader.removable_key, deleted))
        removed = store(lambda: self._storage, rest, as_utc(self.app.now()), keys)
        for entry in own:
            entry.save()
        return removed

    def edit(self, names: Iterable[str], change: Callable[[RedBeatSchedulerEntry], object]) -> None:
        """Change stored entries: ``change`` is called with each, and what it leaves is stored.

        An entry that others change at the same time is read again, and ``change`` is called again.
        The name, and what is known of runs, stay as they are; so does the time for which another
        program wrote an entry that never ran, unless its schedule changes. Entries whose class has
        its own ``save`` are saved by that, one by one, and replace whatever is stored by then.

        Two round trips, one more if an entry never ran, and all again after changes by others.
        Raises ``KeyError`` if a name is unknown, and ``EntryError`` if an entry cannot be read or
        stored; then nothing is changed, except entries stored before others changed the rest.
        """
        editing.edit(self._reader, names, change)

    def pause(self, *names: str) -> None:
        """Do not run these entries until they are resumed; costs and raises what ``edit`` does."""
        self.edit(names, lambda entry: setattr(entry, "enabled", False))

    def resume(self, *names: str) -> None:
        """Run these entries again; costs and raises what ``edit`` does.

        One that missed runs while it was paused runs once, at once.
        """
        self.edit(names, lambda entry: setattr(entry, "enabled", True))

    def _named(self, name: str, entry: Any) -> RedBeatSchedulerEntry:
        is_dict = isinstance(entry, Mapping)
        return self.build(name, entry) if is_dict else editing.named(name, entry)

    def build(self, name: str, fields: Mapping[str, Any]) -> RedBeatSchedulerEntry:
        """Make an entry of a dict as in ``beat_schedule``, unstored. Raises ``EntryError``."""
        try:
            return self.entry_class(**{**fields, "name": name}, app=self.app)
        except Exception as exc:
            message = f"Entry {name!r} cannot be built from {dict(fields)!r}: {exc}"
            raise EntryError(message) from exc

    # Looking at entries

    def find(self, names: Iterable[str]) -> dict[str, RedBeatSchedulerEntry | None]:
        """The entries with these names; ``None`` for one that cannot be read.

        Two round trips per 500 names.
        """
        keys = {self._reader.key(name): name for name in names}
        found = self._reader.look_up(keys)
        return {keys[each.key]: each.entry for each in found if each.state != "gone"}

    def listings(self, match: str = "*", task: str | None = None) -> Iterator[Listing]:
        """Every entry, readable or not, whose name and task match these patterns, as in a shell.

        In the order of due times; entries that cannot be read have no task. Two round trips per
        page of 500, one where no name matches; with ``task`` one more.
        """
        return self._reader.matching(match, task)

    def listings_by_name(self) -> Iterator[Listing]:
        """Every entry, readable or not, in the order of names; all names are held.

        One round trip per page of 500 names before the first, and two per page of entries.
        """
        keys = sorted(member.key for page in self._reader.pages() for member in page)
        # An entry that moved while they were read was met twice.
        return self._reader.look_up(key for key, _ in groupby(keys))

    def listing(self, name: str) -> Listing:
        """One entry, readable or not; two round trips. Raises ``KeyError`` if there is none."""
        key = self._reader.key(name)
        (score,) = self._storage.read_scores([key])
        (stored,) = self._storage.read_entries([key])
        if score is None and stored.is_gone:
            raise KeyError(name)
        return self._reader.listing(Member(key, FINISHED if score is None else score), stored)

    def overdue(self) -> Iterator[Listing]:
        """The entries that are due and have not run yet."""
        return self._reader.between(0, time.time())

    def paused(self) -> Iterator[Listing]:
        """The entries that are disabled; every entry is read."""
        return (listing for listing in self.listings() if listing.state == "paused")

    def finished(self) -> Iterator[Listing]:
        """The entries with nothing left to run."""
        return (each for each in self._reader.between(*NEVER) if each.state == "finished")

    def set_aside(self) -> Iterator[Listing]:
        """The entries that cannot run, with the reasons."""
        return self._reader.between(SET_ASIDE, SET_ASIDE)

    def failing(self) -> Iterator[Listing]:
        """The entries whose last run failed: the message could not be built, or was refused.

        Without those that are paused, set aside or broken; up to 1000, beginning with the oldest
        failure. Three round trips.
        """
        return self._reader.failing()

    def upcoming(self, limit: int | None = None, until: datetime | None = None) -> Iterator[Run]:
        """The next runs of all entries in order, an entry as often as it is due.

        A preview: nothing is written. Ends after ``limit`` runs and at ``until`` (naive: UTC);
        without either, perhaps never. Paused entries are left out. Reads as many pages as needed.
        """
        runs = islice(agenda.upcoming(self._reader.between(*TIMED)), limit)
        end = as_utc(until or datetime.max)
        return takewhile(lambda run: run.due_at <= end, runs)

    # Running and removing entries

    def run(self, name: str) -> Any:
        """Send the entry's task to the broker now; its schedule does not change.

        It is sent as the scheduler in the setting ``beat_scheduler`` would send it. If that has its
        own ``apply_async`` or ``send_task``, one is built for this, which only checks the server.

        Returns Celery's ``AsyncResult``. One round trip to Redis, three if a scheduler is built,
        and what publishing costs. Raises ``KeyError``, and ``celery.beat.SchedulingError`` if the
        message cannot be sent.
        """
        entry = take_lazy_functions(self[name], self._reader.conf)
        return _sender_of(self.app)(self.app, lazy=True).apply_async(entry, advance=False)

    def statics(self) -> set[str]:
        """The names in ``beat_schedule``, of this process or of a beat; one round trip."""
        return {
            str(name) for name in self._reader.conf.schedule
        } | self._storage.notes.read_statics()

    def prunable(self) -> Iterator[Listing]:
        """Entries that will never run again: finished ones, and places without a definition.

        Without those of ``beat_schedule``: beat would store them, and run them again.
        """
        statics = self._storage.notes.read_statics()
        return (
            listing
            for listing in self.listings()
            if listing.state in ("finished", "gone") and listing.name not in statics
        )

    def prune(self) -> list[str]:
        """Remove entries that will never run again, see ``prunable``; returns their names."""
        return self.discard(list(self.prunable()))

    def discard(self, listings: Iterable[Listing]) -> list[str]:
        """Remove listed entries, unless they were stored again or ran since; returns their names.

        A key that holds no entry only loses its place in the schedule. One round trip per 500.
        """
        gone: list[str] = []
        for page in paged(listings):
            removed = self._storage.discard([Seen(each.key, each.stored) for each in page])
            gone += (each.name for each, is_gone in zip(page, removed, strict=True) if is_gone)
        return gone

    # How beat is doing

    def counts(self) -> dict[State, int]:
        """How many entries are waiting (or paused), overdue, finished and set aside."""
        now = time.time()
        waiting, overdue, never, set_aside = self._storage.count_between(
            (f"({now!r}", TIMED[1]), (0, now), NEVER, (SET_ASIDE, SET_ASIDE)
        )
        return {
            "waiting": waiting,
            "overdue": overdue,
            "finished": never - set_aside,
            "set aside": set_aside,
        }

    def longest_overdue(self) -> Member | None:
        """The entry that has been due for longest: its name and due time (seconds since the epoch).

        Without those that others stored with a score of zero, to run at once. One round trip.
        """
        first = next(iter(self._storage.read_page("(0", time.time(), 1)), None)
        return None if first is None else first._replace(key=self._reader.name(first.key))

    def leader(self) -> Holder | None:
        """Who leads; ``None`` if nobody does, or if beats share the work. One round trip."""
        key = self._reader.conf.lock_key
        return read_holder(self._storage, key) if key else None

    def reports(self) -> dict[str, Report]:
        """What beats report of their work, by ``host:pid``; one round trip."""
        return decode_reports(self._storage.notes.read_reports())

    def lost_at(self) -> datetime | None:
        """When beat found Redis to have lost the schedule (UTC), in the last five minutes.

        One round trip.
        """
        return lost_at(self._storage.notes.read_loss())


class ValuesView(ValuesViewBase[RedBeatSchedulerEntry]):
    """The entries of a timetable, read page by page."""

    _mapping: Timetable

    def __iter__(self) -> Iterator[RedBeatSchedulerEntry]:
        return (entry for _, entry in self._mapping.items())


class ItemsView(ItemsViewBase[str, RedBeatSchedulerEntry]):
    """The names and entries of a timetable, read page by page."""

    _mapping: Timetable

    def __iter__(self) -> Iterator[tuple[str, RedBeatSchedulerEntry]]:
        for listing in self._mapping.listings():
            if listing.entry is not None:
                yield listing.name, listing.entry


def _scheduler_of(app: Any) -> type[RedBeatScheduler]:
    """The class that the setting ``beat_scheduler`` names, if it is one of ours."""
    named = app.conf.beat_scheduler
    is_path = isinstance(named, str) and ("." in named or ":" in named)
    scheduler = symbol_by_name(named) if is_path else named  # type: ignore[no-untyped-call]  # kombu
    if isinstance(scheduler, type) and issubclass(scheduler, RedBeatScheduler):
        return scheduler
    return RedBeatScheduler


def _sender_of(app: Any) -> Any:
    """The class that sends as the application's scheduler does: Celery's, unless it overrides."""
    scheduler = _scheduler_of(app)
    has_own = (scheduler.apply_async, scheduler.send_task) != OWN_SENDERS
    return scheduler if has_own else Scheduler
