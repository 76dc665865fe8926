"""A schedule as a file of JSON Lines: one entry a line, with its ``name`` and its fields.

Schedules and datetimes are written as they are in Redis, so an exported entry comes back as it was,
including its runs. A file of the old form, one JSON object with the fields of each entry under its
name, can still be read.

Both directions work a page of entries at a time and hold the names of all. An import also holds
what it has to change, since that is one change: the whole file is checked before anything is
stored.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ..decoder import as_data, with_zones
from ..errors import EntryError
from ..schedulers import RedBeatSchedulerEntry, encode_json, json_decoder
from ..store.escaping import printable_json
from ..timetable import Timetable
from ..timetable.listings import paged

#: Fields about past runs; an import takes them for new entries only.
HISTORY = ("last_run_at", "total_run_count")

#: Fields that hold whatever a user's task takes.
DATA = ("args", "kwargs", "options")

#: What the reader of a bad file needs to know.
EXPECTED = "Expected one JSON object per line, as `celery redbeat export` writes them."

#: The old and the new text of each field that an import changes.
Fields = dict[str, tuple[str, str]]


def dump(entries: Iterable[tuple[str, RedBeatSchedulerEntry]]) -> Iterator[str]:
    """The lines of a file with these entries; they can be encoded as UTF-8, whatever names hold."""
    for name, entry in entries:
        fields = {"name": name, **_fields(entry)}
        yield f"{printable_json(encode_json(fields, ensure_ascii=False))}\n"


def _fields(entry: RedBeatSchedulerEntry) -> dict[str, Any]:
    definition = entry.decode_definition(entry.encode_definition())
    del definition["name"]
    definition |= {name: as_data(definition[name]) for name in DATA if name in definition}
    if zones := entry.encode_zones():
        definition["schedule"] = with_zones(definition["schedule"], json.loads(zones))
    return {**definition, **entry.decode_meta(entry.encode_meta())}


def why_unwritable(entry: RedBeatSchedulerEntry) -> str:
    """Why a stored entry cannot be written as JSON; empty if it can.

    It may be nested too deeply to be written but not to be read, for example.
    """
    try:
        _fields(entry)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
    return ""


@dataclass(frozen=True)
class Written:
    """An entry as it is written in a file: where, and its JSON."""

    place: str
    text: str

    def read(self, timetable: Timetable) -> RedBeatSchedulerEntry:
        """Build the entry. Raises ``EntryError``, which begins with the place, if that fails."""
        try:
            json.loads(self.text, object_pairs_hook=_unique)
            return _build(json_decoder().decode(self.text), timetable)
        except json.JSONDecodeError as exc:
            message = f"{self.place}, column {exc.colno}: {exc.msg}. {EXPECTED}"
        except RecursionError:
            message = f"{self.place}: nested too deeply to be read"
        except Exception as exc:
            # Errors of entries name the entry; so does the place in a file of the old form.
            message = str(exc)
            if not message.startswith(self.place):
                message = f"{self.place}: {message}"
        raise EntryError(message)


def _build(fields: Any, timetable: Timetable) -> RedBeatSchedulerEntry:
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        shown = f"{fields!r:.100}"
        raise EntryError(f"expected an object with the name and fields of an entry, got {shown}")
    name = fields.pop("name")
    if not name:
        raise EntryError("the name of the entry is empty")
    entry = timetable.build(name, fields)
    if not isinstance(entry.enabled, bool | int | None):
        # Any text would count as true.
        raise EntryError(f"Entry {name!r}: enabled must be true or false, got {entry.enabled!r}")
    if "last_run_at" in fields:
        entry.last_run_at = fields["last_run_at"]
    try:
        # A lone surrogate may stand for a byte of a key, but most stand for none.
        entry.key.encode("utf-8", "surrogateescape")
        entry.draft(entry.now())
    except EntryError:
        raise
    except Exception as exc:
        raise EntryError(f"Entry {name!r}: {exc}") from exc
    return entry


def read_file(lines: Iterable[str]) -> Iterator[Written]:
    """The entries of a file, one by one; a file of the old form is held as a whole.

    Raises ``EntryError`` if the file is empty, or has the old form and is not valid JSON.
    """
    remaining, head = iter(lines), []
    for line in remaining:
        head.append(line)
        if line.strip():
            break
    else:
        raise EntryError(f"The file is empty. {EXPECTED}")
    if _begins_old_form(head[-1]):
        yield from _read_old_form("".join([*head, *remaining]))
        return
    for number, line in enumerate(chain(head, remaining), start=1):
        if line.strip():
            yield Written(f"Line {number}", line)


def _begins_old_form(line: str) -> bool:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return '"name"' not in line
    if not isinstance(value, dict) or _is_entry(value):
        return False
    return isinstance(next(iter(value.values()), {}), dict)


def _read_old_form(text: str) -> Iterator[Written]:
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as exc:
        place = f"Line {exc.lineno}, column {exc.colno}"
        raise EntryError(f"{place}: {exc.msg}. {EXPECTED}") from exc
    except RecursionError:
        raise EntryError("The file is nested too deeply to be read") from None
    if not isinstance(entries, dict) or _is_entry(entries):
        raise EntryError(f"Line 1: {EXPECTED}")
    for name, fields in entries.items():
        named = {**fields, "name": name} if isinstance(fields, dict) else fields
        yield Written(f"Entry {name!r}", json.dumps(named))


def _is_entry(value: dict[str, Any]) -> bool:
    """Whether an object is one entry, and not those of a file of the old form."""
    return isinstance(value.get("name"), str) or isinstance(value.get("task"), str)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values; raises ``EntryError`` if a name is repeated."""
    read: dict[str, Any] = {}
    for name, value in pairs:
        if name in read:
            raise EntryError(f"{name!r} is in an object twice; keep one of them")
        read[name] = value
    return read


@dataclass
class Plan:
    """What an import would change."""

    added: dict[str, RedBeatSchedulerEntry] = field(default_factory=dict)
    changed: dict[str, RedBeatSchedulerEntry] = field(default_factory=dict)
    #: What differs in each changed entry.
    differences: dict[str, Fields] = field(default_factory=dict)
    unchanged: int = 0
    #: All names in the file.
    names: set[str] = field(default_factory=set)

    @property
    def written(self) -> list[RedBeatSchedulerEntry]:
        """The entries that the import stores."""
        return [*self.added.values(), *self.changed.values()]


def plan_import(lines: Iterable[str], timetable: Timetable) -> Plan:
    """Compare the entries of a file with the stored ones; nothing is changed yet.

    Two round trips per page of 500. Raises ``EntryError`` if the file is not one of entries; or, at
    its end, if some of them cannot be stored: with the first of them and how many more there are.
    """
    plan, first_error, errors = Plan(), None, 0
    for page in paged(read_file(lines)):
        entries = {}
        for written in page:
            try:
                entry = written.read(timetable)
                if entry.name in plan.names:
                    raise EntryError(
                        f"{written.place}: {entry.name!r} is in the file twice; keep one of them"
                    )
            except EntryError as exc:
                first_error, errors = first_error or exc, errors + 1
            else:
                plan.names.add(entry.name)
                entries[entry.name] = entry
        stored = timetable.find(entries)
        for name, entry in entries.items():
            if name not in stored:
                plan.added[name] = entry
            elif differences := _differences(stored[name], entry):
                plan.changed[name] = entry
                plan.differences[name] = differences
            else:
                plan.unchanged += 1
    if errors > 1:
        raise EntryError(f"{first_error} ({errors - 1} more cannot be stored)")
    if first_error:
        raise first_error
    return plan


def _differences(before: RedBeatSchedulerEntry | None, after: RedBeatSchedulerEntry) -> Fields:
    old = {} if before is None or why_unwritable(before) else _encoded_fields(before)
    new = _encoded_fields(after)
    return {
        name: (old.get(name, "-"), new.get(name, "-"))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def _encoded_fields(entry: RedBeatSchedulerEntry) -> dict[str, str]:
    return {
        name: encode_json(value, ensure_ascii=False)
        for name, value in _fields(entry).items()
        if name not in HISTORY
    }


def find_others(names: Container[str], timetable: Timetable) -> list[str]:
    """The names of stored entries that are not among these; one round trip per page of 500."""
    return sorted({name for name in timetable if name not in names})
