"""A schedule as a file: JSON that a person can read and compare, one entry a block.

An object with an entry's fields under each name, in the order of names. Schedules and datetimes are
written as they are in Redis, so what is exported comes back as it was, runs included.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .decoder import RedBeatJSONDecoder, RedBeatJSONEncoder
from .errors import EntryError
from .schedulers import RedBeatSchedulerEntry
from .storage import printable
from .timetable import Timetable

#: Fields that tell of runs; an import takes them for new entries only.
HISTORY = ("last_run_at", "total_run_count")

Entries = dict[str, RedBeatSchedulerEntry]


@dataclass(frozen=True)
class Difference:
    """What an import would change: names, and for changed ones the fields with old and new text."""

    added: Entries
    changed: dict[str, tuple[RedBeatSchedulerEntry, dict[str, tuple[str, str]]]]
    same: Entries
    removed: list[str]

    @property
    def written(self) -> list[RedBeatSchedulerEntry]:
        """The entries that an import writes."""
        return [*self.added.values(), *(entry for entry, _ in self.changed.values())]


def dump(entries: Mapping[str, RedBeatSchedulerEntry]) -> Iterator[str]:
    """The lines of the file for these entries; fit for UTF-8, whatever the names hold."""
    encoder = RedBeatJSONEncoder(indent=2, ensure_ascii=False)
    opening = "{"
    for name in sorted(entries):
        block = encoder.encode(_fields(entries[name]))
        text = f"{opening}\n{json.dumps(name, ensure_ascii=False)}: {block}"
        yield printable(text)
        opening = ","
    yield "{}\n" if opening == "{" else "\n}\n"


def _fields(entry: RedBeatSchedulerEntry) -> dict[str, Any]:
    definition = entry.decode_definition(entry.encode_definition())
    del definition["name"]
    return {**definition, **entry.decode_meta(entry.encode_meta())}


def parse(text: str) -> dict[str, Any]:
    """The blocks of a file by name, not looked into yet.

    Raises `EntryError` (a `ValueError`), which names the place and what was expected there.
    """
    try:
        _require_names_once(json.loads(text, object_pairs_hook=list))
        blocks = RedBeatJSONDecoder().decode(text)
    except json.JSONDecodeError as exc:
        raise EntryError(
            f"Line {exc.lineno}, column {exc.colno}: {exc.msg}. Expected is JSON as "
            "`celery redbeat export` writes it."
        ) from exc
    except EntryError:
        raise
    except (ValueError, RecursionError) as exc:
        raise EntryError(str(exc)) from exc
    if not isinstance(blocks, dict):
        raise EntryError("Line 1, column 1: expected is an object with an entry under each name.")
    return blocks


def _require_names_once(pairs: Any) -> None:
    """A JSON reader keeps the last of two values under one name, and loses the other."""
    names = Counter(pair[0] for pair in pairs if isinstance(pair, tuple))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise EntryError(
            f"Entry {twice[0]!r} stands in the file more than once. Leave one of them."
        )


def build(blocks: Iterable[tuple[str, Any]], timetable: Timetable) -> Entries:
    """The entries of which these are the names and fields.

    Raises `EntryError` with the first one that is wrong, and how many more are.
    """
    entries, wrong = {}, []
    for name, fields in blocks:
        try:
            entries[name] = _entry(name, fields, timetable)
        except EntryError as exc:
            wrong.append(exc)
    if wrong:
        more = f" ({len(wrong) - 1} more are wrong)" if len(wrong) > 1 else ""
        raise EntryError(f"{wrong[0]}{more}")
    return entries


def _entry(name: str, fields: Any, timetable: Timetable) -> RedBeatSchedulerEntry:
    if not isinstance(fields, dict):
        raise EntryError(f"Entry {name!r}: expected is an object with its fields, got {fields!r}")
    entry = timetable.build(name, fields)
    if "last_run_at" in fields:
        entry.last_run_at = fields["last_run_at"]
    try:
        entry.draft(datetime.now(timezone.utc))
    except EntryError:
        raise
    except Exception as exc:
        raise EntryError(f"Entry {name!r}: {exc}") from exc
    return entry


def compare(entries: Entries, timetable: Timetable, is_whole: bool) -> Difference:
    """What storing the entries would change; `is_whole`: what they lack is to be removed."""
    stored = timetable.find(entries)
    added = {name: entry for name, entry in entries.items() if name not in stored}
    changed, same = {}, {}
    for name in entries.keys() - added.keys():
        entry, before = entries[name], stored[name]
        fields = _changed_fields(before, entry)
        if fields:
            changed[name] = (entry, fields)
        else:
            same[name] = entry
    removed = sorted(set(timetable) - entries.keys()) if is_whole else []
    return Difference(added, changed, same, removed)


def _changed_fields(
    before: RedBeatSchedulerEntry | None, after: RedBeatSchedulerEntry
) -> dict[str, tuple[str, str]]:
    old = {} if before is None else _encoded_fields(before)
    new = _encoded_fields(after)
    names = sorted(old.keys() | new.keys())
    return {
        name: (old.get(name, "-"), new.get(name, "-"))
        for name in names
        if old.get(name) != new.get(name)
    }


def _encoded_fields(entry: RedBeatSchedulerEntry) -> dict[str, str]:
    encoder = RedBeatJSONEncoder(ensure_ascii=False)
    return {
        name: encoder.encode(value) for name, value in _fields(entry).items() if name not in HISTORY
    }
