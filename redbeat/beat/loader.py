"""From what is stored to entries that can run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import EntryError
from ..store.records import Member, Outcome, Stored
from ..store.storage import Storage
from .batch import Build
from .fault_log import NAMED, fingerprint, first_names
from .repeats import Repeats


class Loader:
    """Builds entries with ``make``, which may raise anything."""

    def __init__(self, make: Build, get_storage: Callable[[], Storage], log: Repeats) -> None:
        self._make = make
        self._get_storage = get_storage
        self._log = log

    def build(self, key: str, stored: Stored) -> Any:
        """The entry with this hash; raises if it cannot run."""
        entry = self._make(key, stored)
        if not isinstance(entry.task, str) or not entry.task:
            raise EntryError(f"{key}: its task must be the name of one, got {entry.task!r}")
        if not isinstance(entry.total_run_count, int):
            raise EntryError(
                f"{key}: its total_run_count must be a number, got {entry.total_run_count!r}"
            )
        return entry

    def load(self, members: Sequence[Member]) -> Iterable[Any]:
        """The entries of these members; one round trip, and one for each that is gone.

        An entry that cannot be built is logged, a member without a hash removed.
        """
        stored = self._get_storage().read_entries([member.key for member in members])
        for member, fields in zip(members, stored, strict=True):
            try:
                yield self.build(member.key, fields)
            except KeyError:
                self.drop(member.key, member.score)
            except Exception as exc:
                about = ("load", member.key, fingerprint(fields))
                self._log.error(about, exc, "beat: Failed to load %s: %r", member.key, exc)

    def drop(self, key: str, score: float) -> bool:
        """Remove a member without a hash, unless its score has changed; one round trip.

        Returns whether it was there.
        """
        was_there = self._get_storage().commit(score, [Outcome(key, None)]) > 0
        if was_there:
            self.report_gone([key])
        return was_there

    def report_gone(self, keys: Sequence[str]) -> None:
        """Log that members have no hash and are removed; many of them in one line."""
        if len(keys) > NAMED:
            self._log.logger.error(
                "beat: Failed to load %d entries: their hashes are gone: %s and others. Removing "
                "them.",
                len(keys),
                first_names(keys),
            )
            return
        for key in keys:
            self._log.logger.error("beat: Failed to load %s: its hash is gone. Removing it.", key)
