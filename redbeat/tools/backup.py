"""A schedule as a file: JSON that a person can read and compare, one entry a block.

An object with an entry's fields under each name, in the order of names. Schedules and datetimes are
written as they are in Redis, so what is exported comes back as it was, runs included.

What is written or read is held a page at a time, beside the names of all. What an import has to
change is held, since it is one change: all of a file is looked at before anything is stored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from ..decoder import as_data, with_zones
from ..errors import EntryError
from ..schedulers import RedBeatSchedulerEntry, encode_json, json_decoder
from ..store.escaping import printable_json
from ..timetable import Timetable, paged
from .blocks import read_pairs

#: Fields that tell of runs; an import takes them for new entries only.
HISTORY = ("last_run_at", "total_run_count")

#: Fields that hold whatever a user's task takes.
DATA = ("args", "kwargs", "options")

#: Characters of a file that are read together.
PIECE = 1 << 16

Entries = dict[str, RedBeatSchedulerEntry]


@dataclass(frozen=True)
class Difference:
    """What a part of an import changes: of changed entries the fields with old and new text."""

    added: Entries = field(default_factory=dict)
    changed: dict[str, tuple[RedBeatSchedulerEntry, dict[str, tuple[str, str]]]] = field(
        default_factory=dict
    )
    same: int = 0
    removed: Sequence[str] = ()

    @property
    def written(self) -> list[RedBeatSchedulerEntry]:
        """The entries that an import writes."""
        return [*self.added.values(), *(entry for entry, _ in self.changed.values())]

    @property
    def counts(self) -> Counter[str]:
        """How many entries of the file are `added`, `changed` and the `same`."""
        return Counter(added=len(self.added), changed=len(self.changed), same=self.same)


def dump(entries: Iterable[tuple[str, RedBeatSchedulerEntry]]) -> Iterator[str]:
    """The text of the file for these entries, one by one; fit for UTF-8, whatever names hold."""
    opening = "{"
    for name, entry in entries:
        block = encode_json(_fields(entry), indent=2, ensure_ascii=False)
        text = f"{opening}\n{json.dumps(name, ensure_ascii=False)}: {block}"
        yield printable_json(text)
        opening = ","
    yield "{}\n" if opening == "{" else "\n}\n"


def _fields(entry: RedBeatSchedulerEntry) -> dict[str, Any]:
    definition = entry.decode_definition(entry.encode_definition())
    del definition["name"]
    definition |= {name: as_data(definition[name]) for name in DATA if name in definition}
    if zones := entry.encode_zones():
        definition["schedule"] = with_zones(definition["schedule"], json.loads(zones))
    return {**definition, **entry.decode_meta(entry.encode_meta())}


def why_unwritable(entry: RedBeatSchedulerEntry) -> str:
    """Why a stored entry cannot be written in its turn; empty if it can.

    One may be nested too deeply for that and not for reading, for example.
    """
    try:
        _fields(entry)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
    return ""


def read_pieces(file: TextIO) -> Iterator[str]:
    """The text of a file, a piece at a time."""
    return iter(lambda: file.read(PIECE), "")


class Import:
    """A file on its way in, read once; nothing is stored here."""

    def __init__(self, pieces: Iterable[str], timetable: Timetable) -> None:
        self._pieces = pieces
        self._timetable = timetable
        #: The names in the file, as far as it has been read.
        self.names: set[str] = set()
        self._wrong = 0
        self._first_wrong: EntryError | None = None

    def differences(self) -> Iterator[Difference]:
        """What storing the entries in the file would change, page by page.

        Two round trips per page of 500. Raises `EntryError` (a `ValueError`): where the file is
        none of entries, with the place; at its end, if there are entries that cannot be stored,
        with the first of them and how many more there are.
        """
        for page in paged(read_pairs(self._pieces, json_decoder())):
            yield _compare(dict(self._entries(page)), self._timetable)
        if self._wrong:
            more = f" ({self._wrong - 1} more are wrong)" if self._wrong > 1 else ""
            raise EntryError(f"{self._first_wrong}{more}")

    def _entries(
        self, pairs: Iterable[tuple[str, Any]]
    ) -> Iterator[tuple[str, RedBeatSchedulerEntry]]:
        """The entries among the pairs; what is wrong with the others is noted."""
        for name, fields in pairs:
            if name in self.names:
                raise EntryError(
                    f"Entry {name!r} stands in the file more than once. Leave one of them."
                )
            self.names.add(name)
            try:
                yield name, _entry(name, fields, self._timetable)
            except EntryError as exc:
                self._wrong += 1
                self._first_wrong = self._first_wrong or exc


def _entry(name: str, fields: Any, timetable: Timetable) -> RedBeatSchedulerEntry:
    if not isinstance(fields, dict):
        raise EntryError(f"Entry {name!r}: expected is an object with its fields, got {fields!r}")
    if not name:
        raise EntryError("An entry in the file has an empty name")
    entry = timetable.build(name, fields)
    if not isinstance(entry.enabled, bool | int | None):
        # Any text would count as true.
        raise EntryError(f"Entry {name!r}: enabled must be true or false, got {entry.enabled!r}")
    if "last_run_at" in fields:
        entry.last_run_at = fields["last_run_at"]
    try:
        # A lone surrogate may stand for a byte of a key, and most stand for none.
        entry.key.encode("utf-8", "surrogateescape")
        entry.draft(entry.now())
    except EntryError:
        raise
    except Exception as exc:
        raise EntryError(f"Entry {name!r}: {exc}") from exc
    return entry


def _compare(entries: Entries, timetable: Timetable) -> Difference:
    stored = timetable.find(entries)
    added = {name: entry for name, entry in entries.items() if name not in stored}
    fields = {name: _changed_fields(before, entries[name]) for name, before in stored.items()}
    changed = {name: (entries[name], fields[name]) for name in fields if fields[name]}
    return Difference(added, changed, same=len(stored) - len(changed))


def find_others(names: Container[str], timetable: Timetable) -> list[str]:
    """The names of stored entries that are not among these; two round trips per page of 500."""
    return sorted({name for name in timetable if name not in names})


def _changed_fields(
    before: RedBeatSchedulerEntry | None, after: RedBeatSchedulerEntry
) -> dict[str, tuple[str, str]]:
    old = {} if before is None or why_unwritable(before) else _encoded_fields(before)
    new = _encoded_fields(after)
    names = sorted(old.keys() | new.keys())
    return {
        name: (old.get(name, "-"), new.get(name, "-"))
        for name in names
        if old.get(name) != new.get(name)
    }


def _encoded_fields(entry: RedBeatSchedulerEntry) -> dict[str, str]:
    return {
        name: encode_json(value, ensure_ascii=False)
        for name, value in _fields(entry).items()
        if name not in HISTORY
    }
