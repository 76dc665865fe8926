"""The whole schedule as a mapping from names to entries, for programs and the command line.

Everything is read from Redis at the moment at which it is asked for, a page at a time, so a
schedule of a million entries takes no more memory than one of a thousand. Entries that run while
they are iterated over move to a later time, and may be met again there; none is left out.
"""

from __future__ import annotations

import copy
import heapq
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from collections.abc import ItemsView as ItemsViewBase
from collections.abc import ValuesView as ValuesViewBase
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from inspect import getattr_static
from itertools import groupby, islice
from typing import Any, Literal, NamedTuple, TypeVar

from celery.app import app_or_default
from celery.beat import Scheduler
from kombu.utils.imports import symbol_by_name
from redis.exceptions import ResponseError

from .beat.entries import store, take_lazy_functions
from .beat.failing import MOST_FAILING
from .beat.holder import Holder, read_holder
from .beat.losses import lost_at
from .beat.reports import Report, decode_reports
from .errors import EntryError
from .schedulers import (
    RedBeatConfig,
    RedBeatScheduler,
    RedBeatSchedulerEntry,
    encode_json,
    ensure_conf,
    get_storage,
)
from .store.keys import FINISHED, SET_ASIDE, may_be_written
from .store.records import Draft, Member, Seen, Stored
from .store.retrying import is_of_one_key
from .store.storage import Storage
from .timing.due import is_plain_interval, next_due
from .timing.history import awaited_from
from .timing.instants import as_utc

#: Entries read together.
PAGE = 500

#: Scores below zero are in no time: the schedule proper begins here.
BEGINNING = 0.0
END = math.inf

#: What others write below zero is never due either, whichever number it is.
NEVER = (-math.inf, math.nextafter(BEGINNING, -math.inf))

#: How far apart two readings of the clock may be that mean one moment.
UNCERTAINTY = timedelta(milliseconds=500)

Item = TypeVar("Item")

State = Literal["waiting", "overdue", "paused", "finished", "set aside", "broken", "gone"]


class Run(NamedTuple):
    """A run that is to come: of which entry, and when (aware, UTC; now for an overdue one)."""

    name: str
    due_at: datetime
    entry: RedBeatSchedulerEntry


@dataclass(frozen=True)
class Listing:
    """An entry as it stands in the schedule, readable or not.

    ``entry`` is ``None`` if it cannot be built; then, and if it is set aside, ``reason`` says why.
    ``due_at`` is aware, UTC; ``None`` if it is in no time: finished, set aside, or beyond the years
    that a datetime can tell. ``stored`` is its hash as it was read.
    """

    name: str
    key: str
    state: State
    due_at: datetime | None
    stored: Stored = field(repr=False)
    entry: RedBeatSchedulerEntry | None = None
    reason: str = ""


class Timetable(MutableMapping[str, RedBeatSchedulerEntry]):
    """The schedule of an application: a mapping from name to entry, in the order of due times.

    Args:
        app: the Celery application, by default the current one.
        entry_class: the class of the entries; by default that of the application's scheduler
            (`beat_scheduler`), if it is one of ours, else `RedBeatSchedulerEntry`.

    Methods raise what redis-py raises when Redis cannot be reached.
    """

    def __init__(
        self, app: Any = None, entry_class: type[RedBeatSchedulerEntry] | None = None
    ) -> None:
        self.app = app_or_default(app)
        self.entry_class = entry_class or _scheduler_of(self.app).Entry

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._conf.schedule_key}>"

    @property
    def _conf(self) -> RedBeatConfig:
        return ensure_conf(self.app)

    @property
    def _storage(self) -> Storage:
        return get_storage(self.app)

    def _key(self, name: str) -> str:
        return self.entry_class.generate_key(self.app, name)

    def _removable_key(self, name: str) -> str:
        """The key of an entry that is to go; raises `EntryError` if that is a key of ours."""
        key = self._key(name)
        self._conf.refuse_own_key(name, key)
        return key

    def _name(self, key: str) -> str:
        return key.removeprefix(self._conf.key_prefix)

    # A mapping

    def __len__(self) -> int:
        """How many entries there are, the finished ones included; one round trip."""
        return self._storage.count_members()

    def __contains__(self, name: object) -> bool:
        """Whether `[name]` finds an entry, readable or not; one round trip at the most.

        A place in the schedule is none: see `listing`.
        """
        if not isinstance(name, str) or self._key(name) in self._conf.own_keys:
            return False
        (stored,) = self._storage.read_entries([self._key(name)])
        return bool(stored.definition)

    def __iter__(self) -> Iterator[str]:
        """The names in the order of due times, then those set aside and finished ones.

        Two round trips per page of 500.
        """
        for page in self._pages():
            yield from (self._name(member.key) for member in page)

    def __getitem__(self, name: str) -> RedBeatSchedulerEntry:
        """The entry; one round trip. Raises `KeyError`, or `ValueError` if it is malformed."""
        key = self._key(name)
        with _told_by_name(name):
            return self._under(key, self.entry_class.from_key(key, app=self.app))

    def __setitem__(self, name: str, entry: Any) -> None:
        """Store an entry under a name; two round trips at the most.

        Takes an entry, of which a copy is stored, or a dict as in `beat_schedule`. Raises
        `EntryError` (a `ValueError`) if it cannot be stored.
        """
        self._named(name, entry).save()

    def add(self, name: str, entry: Any) -> bool:
        """Store an entry under a name that is free; `False` if it is not. Two round trips.

        Takes and raises what `[name] = entry` does. An entry of a class with a `save` of its own
        is saved by that.

        The name is looked up first, since what stores an entry takes an equal one for its own: that
        of a first try whose answer got lost. Another one that comes after the look is not replaced,
        unless by a `save` of its own.
        """
        new = self._named(name, entry)
        return name not in self and self._store_new(new)

    def _store_new(self, new: RedBeatSchedulerEntry) -> bool:
        """Store an entry whose name was free a moment ago; whether it still was. One round trip."""
        if _saves_itself(new):
            new.save()
            return True
        now, meta = as_utc(self.app.now()), ""
        while True:
            draft = new.draft(now, meta)._replace(seen_definition="")
            (conflict,) = self._storage.change_entries([draft]).conflicts
            if not conflict:
                return conflict is not None
            meta = conflict

    def setdefault(self, name: str, default: Any = None) -> RedBeatSchedulerEntry:
        """The entry of this name, stored if there was none: then three round trips, else one."""
        try:
            return self[name]
        except KeyError:
            self._store_new(self._named(name, default))
        return self[name]

    def __delitem__(self, name: str) -> None:
        """Remove an entry for good; two round trips. Raises `KeyError` if there is none.

        Raises `EntryError` if its key would be one of ours, such as that of the schedule.

        It is looked up first: a removal whose answer gets lost is done again, and finds nothing the
        second time.
        """
        key = self._removable_key(name)
        if not self._storage.is_stored(key):
            raise KeyError(name)
        self._storage.change_entries([], [key])

    def values(self) -> ValuesView:
        """The entries, in order; those that cannot be read are left out. See `listings`."""
        return ValuesView(self)

    def items(self) -> ItemsView:
        """Names and entries, in order; what cannot be read is left out. See `listings`."""
        return ItemsView(self)

    def clear(self) -> None:
        """Remove all entries; a few round trips per page of 500.

        If Redis refuses to remove some, it raises the first refusal once the others are gone.
        """
        refusal: ResponseError | None = None
        for page in self._pages():
            try:
                self._storage.change_entries([], [member.key for member in page])
            except ResponseError as exc:
                if not is_of_one_key(exc):
                    raise
                refusal = refusal or exc
        if refusal is not None:
            raise refusal

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Store many entries as one change; two round trips at the most.

        All are stored, or none if one of them cannot be: then it raises as `[name] = entry` does.
        Entries of a class with a `save` of its own are saved one by one.
        """
        given = {**dict(other), **named}
        self.replace(self._named(name, entry) for name, entry in given.items())

    def replace(self, entries: Iterable[RedBeatSchedulerEntry], deleted: Iterable[str] = ()) -> int:
        """Store entries and remove those of the names `deleted`, as one change; how many went.

        Two round trips at the most. In a cluster, entries are changed one by one. If the connection
        breaks and the change is done again, what the first try removed is not counted. Raises
        `EntryError`, and changes nothing, if an entry cannot be stored, or one of the names is that
        of a key of ours.
        """
        entries = list(entries)
        own = [entry for entry in entries if _saves_itself(entry)]
        rest = [entry for entry in entries if not _saves_itself(entry)]
        removed = store(
            self._storage,
            rest,
            as_utc(self.app.now()),
            [self._removable_key(name) for name in deleted],
        )
        for entry in own:
            entry.save()
        return removed

    def edit(self, names: Iterable[str], change: Callable[[RedBeatSchedulerEntry], object]) -> None:
        """Change stored entries: `change` is called with each, and what it leaves is stored.

        What others change meanwhile is not lost: such an entry is read again, and `change` is
        called with it as it is by then. Two round trips, one more if an entry never ran, and as
        many again whenever others came in between. A name stays as it is, and what is known of
        runs; so does the time for which another program wrote an entry that never ran, as long as
        its schedule is the same.

        Raises `KeyError` if one of the names is unknown, and `EntryError` if an entry cannot be
        read or stored; nothing is changed then, but for what was stored before others came in
        between. Entries of a class with a `save` of its own are saved by that, one by one and
        whatever is stored by then.
        """
        pending = list(dict.fromkeys(names))
        while pending:
            pending = self._try_edit(pending, change)

    def _try_edit(
        self, names: list[str], change: Callable[[RedBeatSchedulerEntry], object]
    ) -> list[str]:
        """Change entries, but for those that others changed meanwhile: their names are returned."""
        now, drafts, own, waiting = as_utc(self.app.now()), {}, [], []
        keys = [self._key(name) for name in names]
        for name, key, stored in zip(names, keys, self._storage.read_entries(keys), strict=True):
            with _told_by_name(name):
                entry = self._under(key, self.entry_class.from_stored(key, stored, app=self.app))
            awaited = _schedule_awaited_by(entry)
            change(entry)
            if _saves_itself(self._under(key, entry)):
                own.append(entry)
                continue
            draft = entry.draft(now, stored.meta or "")
            drafts[name] = draft._replace(seen_definition=stored.definition)
            if awaited and awaited == _schedule_awaited_by(entry):
                waiting.append(name)
        self._keep_places(drafts, waiting)
        conflicts = self._storage.change_entries(list(drafts.values())).conflicts
        for entry in own:
            entry.save()
        return [name for name, told in zip(drafts, conflicts, strict=True) if told != ""]

    def _keep_places(self, drafts: dict[str, Draft], names: list[str]) -> None:
        """Leave entries due when their writer said; one round trip, none for no names."""
        scores = self._storage.read_scores([drafts[name].key for name in names])
        for name, score in zip(names, scores, strict=True):
            if score is not None and score >= 0 and may_be_written(score):
                drafts[name] = drafts[name]._replace(score=score)

    def _named(self, name: str, entry: Any) -> RedBeatSchedulerEntry:
        if isinstance(entry, Mapping):
            return self.build(name, entry)
        if not isinstance(entry, RedBeatSchedulerEntry):
            raise EntryError(
                f"Entry {name!r} must be a RedBeatSchedulerEntry or a dict as in beat_schedule, "
                f"got {entry!r}"
            )
        if entry.name == name:
            return entry
        named = copy.copy(entry)
        named.name = name
        return named

    def build(self, name: str, fields: Mapping[str, Any]) -> RedBeatSchedulerEntry:
        """An entry made of a dict as in `beat_schedule`, not stored; raises `EntryError`."""
        try:
            return self.entry_class(**{**fields, "name": name}, app=self.app)
        except Exception as exc:
            message = f"Entry {name!r} cannot be built from {dict(fields)!r}: {exc}"
            raise EntryError(message) from exc

    def find(self, names: Iterable[str]) -> dict[str, RedBeatSchedulerEntry | None]:
        """The entries of these names that the schedule has; `None`: one that cannot be read.

        Two round trips per 500 names.
        """
        keys = {self._key(name): name for name in names}
        found = self._look_up(keys)
        return {keys[each.key]: each.entry for each in found if each.state != "gone"}

    def _look_up(self, keys: Iterable[str]) -> Iterator[Listing]:
        """What the schedule has of these keys, in their order; two round trips per 500."""
        for page in paged(keys):
            scores, stored = self._storage.read_scores(page), self._storage.read_entries(page)
            for key, score, fields in zip(page, scores, stored, strict=True):
                if score is not None:
                    yield self._listing(Member(key, score), fields)

    # What stands in it

    def listings(self, match: str = "*", task: str | None = None) -> Iterator[Listing]:
        """Every entry, readable or not, in order, whose name is like ``match``, as in a shell.

        ``task``: only those with such a task; what cannot be read has none. Three round trips per
        page of 500, one less where no name matches: only those that do are loaded. With ``task``
        one more where there are such tasks.
        """
        return (
            listing
            for page in self._pages()
            for listing in self._read(
                [m for m in page if fnmatchcase(self._name(m.key), match)], task
            )
        )

    def listings_by_name(self) -> Iterator[Listing]:
        """Every entry, readable or not, in the order of names, of which it holds all.

        Two round trips per page of 500 names before the first, and two more per page of entries.
        """
        keys = sorted(member.key for page in self._pages() for member in page)
        # One that moved while they were read was met again.
        return self._look_up(key for key, _ in groupby(keys))

    def listing(self, name: str) -> Listing:
        """One entry, readable or not; two round trips. Raises `KeyError` if there is none."""
        key = self._key(name)
        (score,) = self._storage.read_scores([key])
        (stored,) = self._storage.read_entries([key])
        if score is None and stored.is_gone:
            raise KeyError(name)
        return self._listing(Member(key, FINISHED if score is None else score), stored)

    def overdue(self) -> Iterator[Listing]:
        """The entries that are due and have not run yet."""
        return self._list_between(BEGINNING, time.time())

    def paused(self) -> Iterator[Listing]:
        """The entries that are disabled; every entry is read."""
        return (listing for listing in self.listings() if listing.state == "paused")

    def finished(self) -> Iterator[Listing]:
        """The entries with nothing left to run."""
        return (listing for listing in self._list_between(*NEVER) if listing.state == "finished")

    def set_aside(self) -> Iterator[Listing]:
        """The entries that cannot run, with the reasons."""
        return self._list_between(SET_ASIDE, SET_ASIDE)

    def failing(self) -> Iterator[Listing]:
        """The entries whose last run failed: the message could not be built, or was refused.

        Without those that are paused, set aside or broken. Those whose failure is the longest ago
        come first, up to 1000. Three round trips.
        """
        failed_at = {
            each.key: each.score for each in self._storage.notes.read_failing(MOST_FAILING)
        }
        return (
            listing
            for listing in self._look_up(failed_at)
            if listing.state in ("waiting", "overdue", "finished")
            and _has_not_run_since(listing.entry, failed_at[listing.key])
        )

    def lost_at(self) -> datetime | None:
        """When beat found that Redis had lost the schedule (UTC), if that was not long ago.

        ``None`` if it did not in the last five minutes. One round trip.
        """
        return lost_at(self._storage.notes.read_loss())

    def _list_between(self, low: float, high: float) -> Iterator[Listing]:
        return (listing for page in self._pages_between(low, high) for listing in self._read(page))

    def _read(self, page: list[Member], task: str | None = None) -> Iterator[Listing]:
        if task is None or _reads_definitions_itself(self.entry_class):
            candidates = page
        else:
            candidates = self._with_task(page, task)
        stored = self._storage.read_entries([member.key for member in candidates])
        for member, fields in zip(candidates, stored, strict=True):
            listing = self._listing(member, fields)
            if task is None or _has_task(listing.entry, task):
                yield listing

    def _with_task(self, page: list[Member], pattern: str) -> list[Member]:
        """The members that may have such a task: to build all entries costs many times this look.

        One round trip.
        """
        definitions = self._storage.read_definitions([member.key for member in page])
        return [
            member
            for member, definition in zip(page, definitions, strict=True)
            if definition is not None and _may_have_task(definition, pattern)
        ]

    def _pages(self) -> Iterator[list[Member]]:
        yield from self._pages_between(BEGINNING, END)
        yield from self._pages_between(*NEVER)

    def _pages_between(self, low: float, high: float) -> Iterator[list[Member]]:
        page = self._storage.read_page(low, high, PAGE)
        while len(page) == PAGE:
            yield page
            page = self._storage.read_page(low, high, PAGE, after=page[-1])
        if page:
            yield page

    def _listing(self, member: Member, stored: Stored) -> Listing:
        entry, reason = self._read_entry(member.key, stored)
        state = _state(member.score, stored, entry)
        if state == "set aside":
            reason = _reason(stored) or reason
        return Listing(
            self._name(member.key),
            member.key,
            state,
            _moment(member.score),
            stored,
            entry,
            reason,
        )

    def _read_entry(self, key: str, stored: Stored) -> tuple[RedBeatSchedulerEntry | None, str]:
        """The entry, or why there is none."""
        try:
            entry = self.entry_class.from_stored(key, stored, app=self.app)
        except KeyError:
            return None, "no hash with a definition is stored at its key"
        except Exception as exc:
            return None, f"{type(exc).__name__}: {exc}"
        if not hasattr(entry.schedule, "remaining_estimate"):
            return None, f"its schedule must be one of Celery's or seconds, got {entry.schedule!r}"
        return self._under(key, entry), ""

    def _under(self, key: str, entry: RedBeatSchedulerEntry) -> RedBeatSchedulerEntry:
        """The entry by the name of its key: saved, it must not become another one.

        Other languages may write any name into a definition.
        """
        if entry.key != key:
            entry.name = self._name(key)
        return entry

    # What is to come

    def upcoming(self, limit: int | None = None, until: datetime | None = None) -> Iterator[Run]:
        """The next runs of all entries in order, an entry as often as it is due.

        A preview: nothing is written. Ends after `limit` runs and at `until` (naive: UTC), without
        either never, if an entry repeats for ever. Paused entries are left out. Reads as many pages
        as it needs.
        """
        end = None if until is None else as_utc(until)
        for run in islice(self._merged(), limit):
            if end is not None and run.due_at > end:
                return
            yield run

    def _merged(self) -> Iterator[Run]:
        """A heap of each entry's next run; entries join as their due times come near."""
        now = datetime.now(timezone.utc)
        queue: list[tuple[datetime, str, RedBeatSchedulerEntry]] = []
        for listing in self._list_between(BEGINNING, END):
            if listing.entry is None or listing.due_at is None or not listing.entry.enabled:
                continue
            while queue and queue[0][0] < listing.due_at:
                yield _pop_run(queue)
            try:
                due_at = _next_run(listing.entry, now, listing.due_at)
            except Exception:
                # Beat sets an entry aside whose schedule raises: it does not run.
                continue
            if due_at is not None:
                heapq.heappush(queue, (due_at, listing.name, listing.entry))
        while queue:
            yield _pop_run(queue)

    # What can be done with it

    def pause(self, *names: str) -> None:
        """Do not run these entries until they are resumed; costs and raises what `edit` does."""
        self.edit(names, _pause)

    def resume(self, *names: str) -> None:
        """Run these entries again, as their schedules say; costs and raises what `edit` does.

        One that missed a run while it was paused, or several, runs once and at once.
        """
        self.edit(names, _resume)

    def run(self, name: str) -> Any:
        """Send the entry's task to the broker now, outside its timetable, which stays as it is.

        It is sent as the application's scheduler (`beat_scheduler`) would send it. If that has an
        `apply_async` or a `send_task` of its own, one is built for this, with `lazy=True` as Celery
        does for a look: it takes no lock and stores nothing, but it checks the server. One that is
        only named to `celery beat -S` is not known here.

        Returns Celery's `AsyncResult`. One round trip to Redis, three with a scheduler that is
        built for it, and what publishing costs. Raises `KeyError`, and
        `celery.beat.SchedulingError` if the message cannot be sent.
        """
        entry = take_lazy_functions(self[name], self._conf.schedule)
        scheduler = _scheduler_of(self.app)
        sender = scheduler if _sends_itself(scheduler) else Scheduler
        return sender(self.app, lazy=True).apply_async(entry, advance=False)

    def statics(self) -> set[str]:
        """The names that are in `beat_schedule`, of this process or of a beat; one round trip."""
        return {str(name) for name in self._conf.schedule} | self._storage.notes.read_statics()

    def prunable(self) -> Iterator[Listing]:
        """What nothing will come of: finished entries, and members without a hash.

        Entries of `beat_schedule` are kept, since beat would store them anew and run them again.
        """
        statics = self._storage.notes.read_statics()
        return (
            listing
            for listing in self.listings()
            if listing.state in ("finished", "gone") and listing.name not in statics
        )

    def prune(self) -> list[str]:
        """Remove what nothing will come of, see `prunable`; returns the names of what went."""
        return self.discard(list(self.prunable()))

    def discard(self, listings: Iterable[Listing]) -> list[str]:
        """Remove what is listed, unless it was stored anew or ran since; the names of what went.

        A key that holds no entry only loses its place in the schedule. One round trip per 500.
        """
        gone: list[str] = []
        for page in paged(listings):
            removed = self._storage.discard([Seen(each.key, each.stored) for each in page])
            gone += (each.name for each, is_gone in zip(page, removed, strict=True) if is_gone)
        return gone

    # Who runs it

    def longest_overdue(self) -> Member | None:
        """The entry that has been due for longest, by name and due time (seconds since the epoch).

        `None` if nothing is due. One that others stored as due *at once*, by a score of zero, is
        not overdue yet. One round trip.
        """
        first = next(iter(self._storage.read_page("(0", time.time(), 1)), None)
        return None if first is None else first._replace(key=self._name(first.key))

    def counts(self) -> dict[State, int]:
        """How many entries are waiting (or paused), overdue, finished and set aside."""
        now = time.time()
        waiting, overdue, never, set_aside = self._storage.count_between(
            (f"({now!r}", END), (BEGINNING, now), NEVER, (SET_ASIDE, SET_ASIDE)
        )
        return {
            "waiting": waiting,
            "overdue": overdue,
            "finished": never - set_aside,
            "set aside": set_aside,
        }

    def leader(self) -> Holder | None:
        """Who leads: host, pid, since when, last sign of life; `None`: nobody. One round trip.

        `None` as well where `redbeat_lock_key` is `None` and beats share the work.
        """
        key = self._conf.lock_key
        return read_holder(self._storage, key) if key else None

    def reports(self) -> dict[str, Report]:
        """What beats tell of their work, by `host:pid`; one round trip."""
        return decode_reports(self._storage.notes.read_reports())


class ValuesView(ValuesViewBase[RedBeatSchedulerEntry]):
    """The entries of a timetable, read by the page."""

    _mapping: Timetable

    def __iter__(self) -> Iterator[RedBeatSchedulerEntry]:
        return (entry for _, entry in self._mapping.items())


class ItemsView(ItemsViewBase[str, RedBeatSchedulerEntry]):
    """The names and entries of a timetable, read by the page."""

    _mapping: Timetable

    def __iter__(self) -> Iterator[tuple[str, RedBeatSchedulerEntry]]:
        for listing in self._mapping.listings():
            if listing.entry is not None:
                yield listing.name, listing.entry


def _scheduler_of(app: Any) -> type[RedBeatScheduler]:
    """The class that the setting `beat_scheduler` names, if it is one of ours."""
    named = app.conf.beat_scheduler
    is_path = isinstance(named, str) and ("." in named or ":" in named)
    scheduler = symbol_by_name(named) if is_path else named  # type: ignore[no-untyped-call]  # kombu
    if isinstance(scheduler, type) and issubclass(scheduler, RedBeatScheduler):
        return scheduler
    return RedBeatScheduler


def _sends_itself(scheduler: type[RedBeatScheduler]) -> bool:
    """Whether it sends otherwise than Celery's own."""
    return (scheduler.apply_async, scheduler.send_task) != (
        Scheduler.apply_async,
        Scheduler.send_task,
    )


@contextmanager
def _told_by_name(name: str) -> Iterator[None]:
    """What cannot be read in this block is told by the name of the entry."""
    try:
        yield
    except KeyError:
        raise KeyError(name) from None
    except (TypeError, ValueError) as exc:
        raise EntryError(f"Entry {name!r} cannot be read: {exc}") from exc


def _reads_definitions_itself(entry_class: type[RedBeatSchedulerEntry]) -> bool:
    """Whether a class makes of a definition what only it knows."""
    names, ours = ("from_stored", "load_definition", "decode_definition"), RedBeatSchedulerEntry
    return any(getattr_static(entry_class, n) is not getattr_static(ours, n) for n in names)


def _may_have_task(definition: str, pattern: str) -> bool:
    """Whether it takes the whole entry to tell that it has such a task, or that it has not."""
    try:
        task = json.loads(definition)["task"]
    except (KeyError, RecursionError, TypeError, ValueError):
        # A decoder of the application's own may read it.
        return True
    return not isinstance(task, str) or fnmatchcase(task, pattern)


def _has_task(entry: RedBeatSchedulerEntry | None, pattern: str) -> bool:
    return entry is not None and fnmatchcase(str(entry.task), pattern)


def _saves_itself(entry: RedBeatSchedulerEntry) -> bool:
    """Whether its class has a `save` of its own, which may store more than we know of."""
    return type(entry).save is not RedBeatSchedulerEntry.save


def _pause(entry: RedBeatSchedulerEntry) -> None:
    entry.enabled = False


def _resume(entry: RedBeatSchedulerEntry) -> None:
    entry.enabled = True


def paged(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of 500 of the items, the last one perhaps of fewer."""
    remaining = iter(items)
    while page := list(islice(remaining, PAGE)):
        yield page


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


def _moment(score: float) -> datetime | None:
    """The due time that a score tells; `None` if there is none that a datetime can hold."""
    if score < BEGINNING:
        return None
    try:
        return datetime.fromtimestamp(score, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None


def _has_not_run_since(entry: RedBeatSchedulerEntry | None, moment: float) -> bool:
    """Whether an entry has not run after a moment, in seconds since the epoch."""
    last_run_at = entry and entry.last_run_at
    return last_run_at is None or as_utc(last_run_at).timestamp() <= moment


def _reason(stored: Stored) -> str:
    try:
        return str(json.loads(stored.set_aside or "")["reason"])
    except (KeyError, TypeError, ValueError):
        return ""


def _schedule_awaited_by(entry: RedBeatSchedulerEntry) -> str:
    """The schedule of an entry that never ran, as JSON; nothing of one that did.

    Nor of one whose class decides when it is due, or writes its schedule in a way of its own.
    """
    if entry.last_run_at is not None or entry.has_own_score:
        return ""
    try:
        return encode_json(entry.schedule)
    except TypeError:
        return ""


def _next_run(
    entry: RedBeatSchedulerEntry, now: datetime, stored_due_at: datetime
) -> datetime | None:
    """When the entry runs next: not before its place in the schedule, nor before now."""
    awaited = None
    if entry.last_run_at is None:
        awaited = awaited_from(entry.schedule, stored_due_at.timestamp(), now)
    due = entry.next_due(now) if awaited is None else next_due(entry.schedule, awaited, now)
    return None if due is None else max(due, stored_due_at, now)


def _pop_run(queue: list[tuple[datetime, str, RedBeatSchedulerEntry]]) -> Run:
    """Take the first run out; its entry's next one takes its place."""
    due_at, name, entry = queue[0]
    following = _following(entry.schedule, due_at)
    if following is None or following <= due_at:
        heapq.heappop(queue)
    else:
        heapq.heapreplace(queue, (following, name, entry))
    return Run(name, due_at, entry)


def is_too_late(listing: Listing, slack: timedelta) -> bool:
    """Whether an entry is due later, by more than ``slack``, than if it had run just now.

    One that never ran may be written to begin at any time.
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


def _following(schedule: Any, due_at: datetime) -> datetime | None:
    """The run after the one at `due_at`, which is made a moment later, as beat makes it.

    `due_at` may itself be a moment early: a schedule that answers by a clock of its own reads that
    clock after we read ours, and would name the same moment again.
    """
    ran_at = due_at if is_plain_interval(schedule) else due_at + UNCERTAINTY
    return next_due(schedule, ran_at, datetime.now(timezone.utc))
