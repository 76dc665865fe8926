"""What may be stored as an entry, and the arguments that the code computes at each run.

Celery computes those in ``args`` and ``kwargs``, and no deeper. Redis holds only the names of their
functions: the functions themselves come from ``beat_schedule``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from celery.beat import BeatLazyFunc
from celery.schedules import schedule as interval

from ..decoder import LAZY, StoredLazyFunc, as_data, with_zones
from ..errors import EntryError

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


def require_runnable(entry: Any) -> None:
    """Raise :exc:`~redbeat.errors.EntryError` if beat could never send this entry."""
    for field, is_right, wanted in RUNNABLE:
        value = getattr(entry, field)
        if not is_right(value):
            raise EntryError(
                f"Entry {entry.name!r} cannot be stored: its {field} must be {wanted}, got "
                f"{value!r}"
            )


def require_complete(entry: Any) -> None:
    """Raise :exc:`~redbeat.errors.EntryError` if an entry has no task or no schedule."""
    if not entry.task:
        raise EntryError(f"Entry {entry.name!r} cannot be stored: it has no task")
    if not hasattr(entry.schedule, "remaining_estimate"):
        raise EntryError(
            f"Entry {entry.name!r} cannot be stored: its schedule must be one of Celery's, a "
            f"timedelta or seconds, got {entry.schedule!r}"
        )


def require_pauses(schedule: Any) -> None:
    """Refuse an interval of 0 seconds or less, which would never pause."""
    if type(schedule) is interval and schedule.run_every <= timedelta():
        raise EntryError(
            f"its schedule must be more than 0 seconds, got {schedule.run_every.total_seconds()}"
        )


def require_bounded(key: str, field: str) -> None:
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
    require_bounded(entry.key, definition)
    return definition


def _unstorable(entry: Any, field: str, exc: Exception) -> EntryError:
    return EntryError(f"Entry {entry.name!r} cannot be stored: JSON cannot hold its {field}: {exc}")


def zoned(definition: dict[str, Any], zones: str | None) -> dict[str, Any]:
    """The fields of a definition, with the time zones that are stored beside it."""
    if not zones or not isinstance(definition, dict):
        return definition
    try:
        schedule = with_zones(definition.get("schedule"), dict(json.loads(zones)))
    except (TypeError, ValueError) as exc:
        raise EntryError(f"its zones cannot be read: {exc}. Save it again.") from exc
    return {**definition, "schedule": schedule}


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


def take_lazy_functions(entry: Any, beat_schedule: Mapping[Any, Any]) -> Any:
    """The entry, with the functions of its lazy arguments, as far as ``beat_schedule`` has them."""
    names = [name for name in ("args", "kwargs") if _has_lazy(getattr(entry, name))]
    if names:
        static = [given for name, given in beat_schedule.items() if str(name) == entry.name]
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
