"""Changes stored entries without losing what others change at the same time.

Each write is conditional on the definition that was read. Where another writer was faster, the
entry is read again, and changed again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import ResponseError

from ..errors import EntryError
from ..schedulers import RedBeatSchedulerEntry, encode_json
from ..store.keys import may_be_written
from ..store.records import Draft
from ..store.retrying import is_of_one_key
from ..timing.instants import as_utc
from .listings import Reader

Change = Callable[[RedBeatSchedulerEntry], object]


def edit(reader: Reader, names: Iterable[str], change: Change) -> None:
    """Call ``change`` with each entry, and store what it leaves; see ``Timetable.edit``."""
    pending = list(dict.fromkeys(names))
    while pending:
        pending = _try_edit(reader, pending, change)


def _try_edit(reader: Reader, names: list[str], change: Change) -> list[str]:
    """Edit entries; returns the names of those to edit again, since others changed them."""
    now, drafts, own, waiting = as_utc(reader.app.now()), {}, [], []
    keys = [reader.key(name) for name in names]
    for name, key, stored in zip(names, keys, reader.storage.read_entries(keys), strict=True):
        with errors_by_name(name):
            entry = reader.under(key, reader.entry_class.from_stored(key, stored, app=reader.app))
        awaited = _awaited_schedule(entry)
        change(entry)
        if saves_itself(reader.under(key, entry)):
            own.append(entry)
            continue
        draft = entry.draft(now, stored.meta or "")
        drafts[name] = draft._replace(seen_definition=stored.definition)
        if awaited and awaited == _awaited_schedule(entry):
            waiting.append(name)
    _keep_places(reader, drafts, waiting)
    conflicts = reader.storage.change_entries(list(drafts.values())).conflicts
    for entry in own:
        entry.save()
    return [name for name, conflict in zip(drafts, conflicts, strict=True) if conflict != ""]


def _awaited_schedule(entry: RedBeatSchedulerEntry) -> str:
    """The schedule of an entry that never ran, as JSON; empty if it ran.

    Empty too if its class decides when it is due, or writes its schedule in its own way.
    """
    if entry.last_run_at is not None or entry.has_own_score:
        return ""
    try:
        return encode_json(entry.schedule)
    except TypeError:
        return ""


def _keep_places(reader: Reader, drafts: dict[str, Draft], names: list[str]) -> None:
    """Leave these entries due when their writer said; one round trip, none for no names."""
    scores = reader.storage.read_scores([drafts[name].key for name in names])
    for name, score in zip(names, scores, strict=True):
        if score is not None and score >= 0 and may_be_written(score):
            drafts[name] = drafts[name]._replace(score=score)


def store_new(reader: Reader, entry: RedBeatSchedulerEntry) -> bool:
    """Store an entry unless its name has just been taken; whether it was. One round trip."""
    if saves_itself(entry):
        entry.save()
        return True
    now, meta = as_utc(reader.app.now()), ""
    while True:
        draft = entry.draft(now, meta)._replace(seen_definition="")
        (conflict,) = reader.storage.change_entries([draft]).conflicts
        if not conflict:
            return conflict is not None
        meta = conflict


def named(name: str, entry: Any) -> RedBeatSchedulerEntry:
    """The entry, or a copy of it if it has another name; raises ``EntryError`` if it is not one."""
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


def clear(reader: Reader) -> None:
    """Remove all entries; see ``Timetable.clear``."""
    refusal: ResponseError | None = None
    for page in reader.pages():
        try:
            reader.storage.change_entries([], [member.key for member in page])
        except ResponseError as exc:
            if not is_of_one_key(exc):
                raise
            refusal = refusal or exc
    if refusal is not None:
        raise refusal


def saves_itself(entry: RedBeatSchedulerEntry) -> bool:
    """Whether the class has its own ``save``, which may store more than we know of."""
    return type(entry).save is not RedBeatSchedulerEntry.save


@contextmanager
def errors_by_name(name: str) -> Iterator[None]:
    """Let errors of reading an entry carry its name, not its key."""
    try:
        yield
    except KeyError:
        raise KeyError(name) from None
    except (TypeError, ValueError) as exc:
        raise EntryError(f"Entry {name!r} cannot be read: {exc}") from exc
