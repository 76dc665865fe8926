"""Static entries: those of ``beat_schedule``, which the code of an application owns.

They are stored like all others, their names in a set of their own, so that those removed from the
code can be removed from Redis. Applications that share a prefix leave each other's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Protocol

from celery.utils.log import get_logger
from redis.exceptions import ResponseError

from ..decoder import to_timestamp
from ..store.access import REDIS_ERRORS
from ..store.keys import SET_ASIDE
from ..store.retrying import is_of_one_key
from ..store.storage import Storage
from ..store.urls import sanitized
from ..timing.due import follows_calendar
from ..timing.instants import as_utc
from .claims import latest_lease
from .settings import Settings

logger = get_logger("celery.beat")


class Stage(Enum):
    """What this beat has done about ``beat_schedule``."""

    NOTHING = "nothing yet, because Redis was away"
    DEFERRED = "left to the leader"
    ADDED = "stored, and nothing removed"
    STORED = "stored, and what is gone removed"


class Owner(Protocol):
    """What the static entries need of a scheduler: its configuration and its hooks."""

    app: Any
    Entry: Any

    def setup_schedule(self) -> None:
        """Store ``beat_schedule``."""

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Store entries given as in ``beat_schedule``."""

    def _maybe_entry(self, name: str, entry: Any) -> Any: ...


class StaticEntries:
    """The static entries of one application.

    ``owner`` is the scheduler, ``application`` the application's name as others on the prefix know
    it (empty if it has none), ``progress`` is called before each entry.
    """

    def __init__(
        self,
        owner: Owner,
        get_conf: Callable[[], Settings],
        get_storage: Callable[[], Storage],
        application: str,
        progress: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._get_conf = get_conf
        self._get_storage = get_storage
        self._application = application or None
        self._progress = progress
        self.stage = Stage.NOTHING

    @property
    def _schedule(self) -> Mapping[str, Any]:
        return self._get_conf().schedule

    def _key(self, name: Any) -> str:
        key: str = self._owner.Entry.generate_key(self._owner.app, str(name))
        return key

    def keys(self) -> list[str]:
        """The keys of the entries that the code has."""
        return [self._key(name) for name in self._schedule]

    def store_at_start(self) -> None:
        """Let the scheduler store ``beat_schedule``; if Redis is away, the leader will."""
        try:
            self._owner.setup_schedule()
        except REDIS_ERRORS as exc:
            logger.error(
                "beat: Redis at %s is unavailable, so beat_schedule was not stored: %s",
                sanitized(self._get_conf().redis_url),
                exc,
            )
            return
        if self.stage is Stage.NOTHING:
            # A `setup_schedule` of a subclass that does not call ours has done what it wants.
            self.stage = Stage.STORED

    def store(self, may_remove: bool) -> None:
        """Store ``beat_schedule``; ``may_remove``: and remove what it no longer has."""
        storage = self._get_storage()
        known, names = storage.notes.read_statics(), set(map(str, self._schedule))
        if may_remove:
            self._remove(known - names)
        storage.notes.write_statics(added=names - known, removed=())
        self._owner.update_from_dict(self._schedule)
        self._own(names)
        self.stage = Stage.STORED if may_remove else Stage.ADDED

    def remove_gone(self) -> None:
        """Remove what ``beat_schedule`` no longer has, after it was stored."""
        self._remove(self._get_storage().notes.read_statics() - set(map(str, self._schedule)))
        self.stage = Stage.STORED

    def restore(self, keys: Iterable[str]) -> None:
        """Store again those static entries whose keys are among these, which were lost."""
        gone = set(keys)
        if not gone:
            return
        schedule = self._schedule
        lost = {name: schedule[name] for name in schedule if self._key(name) in gone}
        self._owner.update_from_dict(lost)
        self._own(map(str, lost))

    def read_scores(self, names: Iterable[Any]) -> dict[Any, float | None]:
        """The scores of entries by name; one round trip."""
        keys = {name: self._key(name) for name in names}
        # A mock that stands in for the client knows no scores.
        found = self._get_storage().read_scores(list(keys.values()))
        return dict(zip(keys, found, strict=False))

    def store_one(self, name: Any, fields: Any, score: float | None) -> Any:
        """Store an entry as the code has it, with what Redis knows of its runs; returns it.

        ``score`` is the stored one, ``None`` if there is none. One round trip, three if the entry
        has to be written. An entry that a user paused stays paused, unless the code says whether it
        is enabled.
        """
        self._progress()
        entry = self._owner._maybe_entry(name, fields)
        try:
            stored = self._owner.Entry.from_key(entry.key, app=self._owner.app)
        except (KeyError, TypeError, ValueError):
            stored = None
        if stored is not None:
            entry.last_run_at = stored.last_run_at
            entry.total_run_count = stored.total_run_count
            if isinstance(fields, Mapping) and "enabled" not in fields:
                entry.enabled = stored.enabled
                if not entry.enabled:
                    logger.warning(
                        "beat: %r of beat_schedule is paused in Redis and stays paused. To run it, "
                        "resume it, or set 'enabled': True in the code.",
                        entry.name,
                    )
        is_in_place = score is not None and self._may_stay(entry, score)
        if stored is None or not is_in_place or not entry._is_stored_as(stored):
            entry.save()
        return entry

    def _may_stay(self, entry: Any, score: float) -> bool:
        """Whether a stored score is what the entry's schedule says.

        It is not, for example, after a change of time zone. A claim, and a slot that has passed,
        are left to the ticks.
        """
        if score < 0:
            return score != SET_ASIDE and entry.score < 0
        now = as_utc(self._owner.app.now())
        claimed_until = latest_lease(now.timestamp(), self._get_conf().claim_timeout)
        if not claimed_until < score < float("inf") or entry.has_own_score:
            return True
        if not follows_calendar(entry.schedule):
            return True
        due = entry.next_due(now)
        return due is None or due <= now or to_timestamp(due) == int(score)

    # Ownership

    def _remove(self, names: set[str]) -> None:
        """Remove static entries that the code no longer has, except other applications'."""
        others = {
            name: owner
            for name, owner in self._read_owners(names).items()
            if owner not in (None, self._application)
        }
        if others:
            self._warn_of_sharing("They are left as they are", others)
        gone, storage = names - set(others), self._get_storage()
        for name in sorted(gone):
            logger.info("beat: Removing %r: beat_schedule no longer has it", name)
            try:
                storage.change_entries([], [self._key(name)])
            except ResponseError as exc:
                if not is_of_one_key(exc):
                    raise
                gone = gone - {name}
                logger.error("beat: %r stays: Redis refuses to remove it: %s", name, exc)
        storage.notes.write_statics(added=(), removed=gone)

    def _own(self, names: Iterable[str]) -> None:
        """Note that these static entries are this application's; warn if they were another's."""
        if self._application is None:
            return
        owners = {
            name: owner
            for name, owner in self._read_owners(names).items()
            if owner != self._application
        }
        # Those that Celery adds are the same in each application.
        taken = {
            name: owner
            for name, owner in owners.items()
            if owner and not name.startswith("celery.")
        }
        if taken:
            self._warn_of_sharing("Whichever starts last overwrites them", taken)
        self._get_storage().notes.write_owner(
            [self._key(name) for name in owners], self._application
        )

    def _read_owners(self, names: Iterable[str]) -> dict[str, str | None]:
        """The owners of static entries by name, as far as the entries exist; one round trip."""
        keys = {self._key(name): name for name in sorted(names)}
        owners = self._get_storage().notes.read_owners(list(keys))
        return {keys[key]: owner for key, owner in owners.items()}

    def _warn_of_sharing(self, what_happens: str, owners: Mapping[str, str | None]) -> None:
        logger.warning(
            "beat: The static entries %s belong to the application %s, which shares the prefix %r "
            "with %s. %s. Give each application a prefix of its own (redbeat_key_prefix), or "
            "delete these entries if that application no longer exists.",
            ", ".join(map(repr, owners)),
            ", ".join(sorted({repr(owner) for owner in owners.values()})),
            self._get_conf().key_prefix,
            repr(self._application) if self._application else "this one, which has no name",
            what_happens,
        )
