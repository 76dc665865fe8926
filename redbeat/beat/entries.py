"""Entries on their way to Redis and back, and the arguments that the code computes at each run.

Celery computes arguments in ``args`` and ``kwargs``, and no deeper. Redis holds only the names of
their functions: the functions themselves come from ``beat_schedule``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any

from celery.beat import BeatLazyFunc
from celery.schedules import schedule as interval

from ..decoder import LAZY, StoredLazyFunc, as_data, with_zones
from ..errors import EntryError, MissingEntryError
from ..store.commands import text
from ..store.records import Draft, Stored
from ..store.storage import Storage
from .settings import Settings

#: Longest definition or meta, in characters: one entry must not hold up all others.
LONGEST_FIELD = 2**25


def _is_sequence(value: Any) -> bool:
    """Whether Celery can take positional arguments from it; what is false means none."""
    try:
        return not value or iter(value) is not None
    except TypeError:
        return False


def _has_items(value: Any) -> bool:
    """Whether Celery can take keyword arguments from it; what is false means none."""
    return not value or hasattr(value, "items")


#: What the fields of an entry must be for beat to send it: name, test, and the expected type.
RUNNABLE: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("task", lambda value: isinstance(value, str), "the name of one"),
    ("args", _is_sequence, "a list"),
    ("kwargs", _has_items, "a dict"),
    ("options", _has_items, "a dict"),
    ("last_run_at", lambda value: isinstance(value, datetime | None), "a datetime or None"),
    ("total_run_count", lambda value: isinstance(value, int), "a whole number"),
)


def _require_runnable(entry: Any) -> None:
    """Raise :exc:`~redbeat.errors.EntryError` if beat could never send this entry."""
    for field, is_right, wanted in RUNNABLE:
        value = getattr(entry, field)
        if not is_right(value):
            raise EntryError(
                f"Entry {entry.name!r} cannot be stored: its {field} must be {wanted}, got "
                f"{value!r}"
            )


def _require_complete(entry: Any) -> None:
    """Raise :exc:`~redbeat.errors.EntryError` if an entry has no task or no schedule."""
    if not entry.task:
        raise EntryError(f"Entry {entry.name!r} cannot be stored: it has no task")
    if not hasattr(entry.schedule, "remaining_estimate"):
        raise EntryError(
            f"Entry {entry.name!r} cannot be stored: its schedule must be one of Celery's, a "
            f"timedelta or seconds, got {entry.schedule!r}"
        )


def _require_bounded(key: str, field: str) -> None:
    """Refuse a definition or meta of more than ``LONGEST_FIELD`` characters."""
    if len(field) > LONGEST_FIELD:
        raise EntryError(
            f"{key} is too large: {len(field)} characters, but at most {LONGEST_FIELD} can be "
            "stored. Store what the task needs elsewhere, and pass its location in the arguments."
        )


def encode_definition(entry: Any, schedule: Any, encode: Callable[[Any], str]) -> str:
    """The definition of an entry as JSON, its schedule in the form that 2.x reads.

    Raises :exc:`~redbeat.errors.EntryError` that names the field which JSON cannot hold.
    """
    fields: dict[str, Any] = {"name": entry.name, "task": entry.task}
    field = "args"
    try:
        fields["args"] = as_data(_with_each(StoredLazyFunc.of, entry.args))
        field = "kwargs"
        fields["kwargs"] = as_data(_with_each(StoredLazyFunc.of, entry.kwargs))
        field = "options"
        fields["options"] = as_data(entry.options)
    except (TypeError, ValueError, RecursionError) as exc:
        raise _unstorable(entry, field, exc) from exc
    fields |= {"schedule": schedule, "enabled": entry.enabled}
    try:
        definition = encode(fields)
    except (TypeError, ValueError, RecursionError):
        for field, value in fields.items():
            try:
                encode(value)
            except (TypeError, ValueError, RecursionError) as exc:
                raise _unstorable(entry, field, exc) from exc
        raise
    _require_bounded(entry.key, definition)
    return definition


def _unstorable(entry: Any, field: str, exc: Exception) -> EntryError:
    return EntryError(f"Entry {entry.name!r} cannot be stored: JSON cannot hold its {field}: {exc}")


# Making them costs as much as using them, so one of each class is kept.


@lru_cache(maxsize=8)
def decoder_of(cls: Any, hook: Any) -> Any:
    """A decoder of this class; another one once its ``hook`` has been patched on the class."""
    return cls()


@lru_cache(maxsize=8)
def encoder_of(cls: Any) -> Any:
    """An encoder of this class."""
    return cls()


def zoned(definition: dict[str, Any], zones: str | None) -> dict[str, Any]:
    """The fields of a definition, with the time zones that are stored beside it."""
    if not zones or not isinstance(definition, dict):
        return definition
    try:
        schedule = with_zones(definition.get("schedule"), dict(json.loads(zones)))
    except (TypeError, ValueError) as exc:
        raise EntryError(f"its zones cannot be read: {exc}. Save it again.") from exc
    return {**definition, "schedule": schedule}


def draft(entry: Any, now: datetime, seen_meta: str = "") -> Draft:
    """What to store for an entry at ``now`` (aware).

    ``seen_meta`` is what is stored about its runs, and overrides what the entry says of them.

    Raises:
        EntryError: The entry cannot be stored, or could never be sent.
    """
    _require_complete(entry)
    is_readable = not seen_meta or _adopt_runs(entry, seen_meta)
    definition, meta = entry.encode_definition(), entry.encode_meta()
    _require_runnable(entry)
    score, zones = entry._score_at(now), entry.encode_zones()
    return Draft(entry.key, definition, seen_meta, meta, score, not is_readable, zones=zones)


def _adopt_runs(entry: Any, meta: str) -> bool:
    """Let an entry say what is stored about its runs; ``False`` if that cannot be read."""
    try:
        fields = entry.decode_meta(meta, app=entry.app)
        last_run_at, runs = fields.get("last_run_at"), fields.get("total_run_count", 0)
    except (AttributeError, TypeError, ValueError):
        return False
    if not isinstance(last_run_at, datetime | None) or not isinstance(runs, int):
        return False
    if last_run_at is not None:
        entry.last_run_at, entry.total_run_count = last_run_at, runs
    return True


def store(
    get_storage: Callable[[], Storage],
    entries: Sequence[Any],
    now: datetime,
    deleted: Sequence[str] = (),
) -> int:
    """Store entries and remove those at the keys ``deleted``, as one change; how many went.

    At most two round trips, more while runs are recorded in between. Nothing is written if one of
    them cannot be stored. A ``save`` of a subclass is not called.

    Raises:
        EntryError: An entry cannot be stored.
    """
    drafts = [entry.draft(now) for entry in entries]
    # Asked for last: it may connect, and what cannot be stored is refused before.
    storage = get_storage()
    changed = storage.change_entries(drafts, deleted)
    while any(changed.conflicts):
        seen = zip(entries, changed.conflicts, strict=True)
        entries, metas = zip(*((entry, meta) for entry, meta in seen if meta), strict=True)
        drafts = [entry.draft(now, meta) for entry, meta in zip(entries, metas, strict=True)]
        changed = changed._replace(conflicts=storage.change_entries(drafts).conflicts)
    return changed.deleted


def build(cls: Any, key: str, stored: Stored, app: Any, prefix: str) -> Any:
    """The entry of this class whose hash at ``key`` has been read.

    Raises:
        KeyError: There is none.
        EntryError: Redis refuses the key, or something in the hash is malformed.
        ValueError, TypeError: The JSON is malformed.
    """
    if stored.refusal is not None:
        raise EntryError(
            f"{key}: Redis refuses to read it ({stored.refusal}). Allow the key in the ACL, or "
            "remove it from the schedule."
        )
    if not stored.definition:
        raise MissingEntryError(key, prefix)
    for field in (stored.definition, stored.meta or "", stored.zones or ""):
        _require_bounded(key, field)
        field.encode()  # Raises a ValueError if it contains what is not UTF-8.
    definition = cls.load_definition(key, app=app, definition=stored.definition)
    meta = cls.decode_meta(stored.meta, app=app)
    # Other languages may write about runs in both: then the meta counts.
    fields = {"name": text(key).removeprefix(prefix), **zoned(definition, stored.zones), **meta}
    entry = cls(app=app, **fields)
    entry.last_run_at = meta.get("last_run_at")
    if not isinstance(entry.last_run_at, datetime | None):
        raise EntryError(f"last_run_at must be a datetime or null, got {entry.last_run_at!r}")
    schedule = entry.schedule
    if type(schedule) is interval and schedule.run_every <= timedelta():
        # Celery makes one of any number; it would never pause.
        raise EntryError(
            f"its schedule must be more than 0 seconds, got {schedule.run_every.total_seconds()}"
        )
    return entry


# Arguments that the code computes


def _with_each(change: Callable[[Any], Any], arguments: Any) -> Any:
    if isinstance(arguments, dict):
        return {name: change(value) for name, value in arguments.items()}
    if isinstance(arguments, (list, tuple)):
        return [change(value) for value in arguments]
    return arguments


def decode_fields(definition: str, decoder: Any) -> dict[str, Any]:
    """The fields of a definition by a JSON decoder, which may not know lazy arguments."""
    fields: dict[str, Any] = decoder.decode(definition)
    if LAZY not in definition or not isinstance(fields, dict) or _reads_lazy(decoder):
        return fields
    given = {name: fields[name] for name in ("args", "kwargs") if name in fields}
    return {**fields, **{name: _with_each(_lazy_read, each) for name, each in given.items()}}


def _reads_lazy(decoder: Any) -> bool:
    return isinstance(decoder.decode(f'{{"__type__": "{LAZY}", "function": ""}}'), StoredLazyFunc)


def _lazy_read(value: Any) -> Any:
    is_left = isinstance(value, dict) and value.get("__type__") == LAZY
    return StoredLazyFunc(str(value.get("function"))) if is_left else value


def take_lazy_functions(entry: Any, conf: Settings) -> Any:
    """The entry, with the functions of its lazy arguments, as far as ``beat_schedule`` has them."""
    names = [name for name in ("args", "kwargs") if _has_lazy(getattr(entry, name))]
    if names:
        static = [given for name, given in conf.schedule.items() if str(name) == entry.name]
        given = static[0] if static else None
        get = given.get if isinstance(given, Mapping) else partial(getattr, given)
        for name in names:
            setattr(entry, name, _with_functions(getattr(entry, name), get(name, None)))
    return entry


def _has_lazy(arguments: Any) -> bool:
    values = arguments.values() if isinstance(arguments, dict) else arguments
    return isinstance(arguments, (dict, list, tuple)) and any(
        isinstance(value, StoredLazyFunc) for value in values
    )


def _with_functions(stored: Any, given: Any) -> Any:
    """The stored arguments, with the functions in their place in the given ones."""
    is_dict = isinstance(stored, dict)
    pairs = dict(stored.items() if is_dict else enumerate(stored))
    own = dict((given or {}).items() if is_dict else enumerate(given or ()))
    for place, value in pairs.items():
        if isinstance(value, StoredLazyFunc) and isinstance(own.get(place), BeatLazyFunc):
            pairs[place] = own[place]
    return pairs if is_dict else list(pairs.values())
