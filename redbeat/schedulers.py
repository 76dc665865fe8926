"""The package joined to Celery: its settings, the client, entries, the scheduler and its hook."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import MINYEAR, datetime, timedelta
from enum import Enum
from functools import cached_property, lru_cache, partial
from typing import Any

import celery.schedules
from celery.app import app_or_default
from celery.beat import BeatLazyFunc, ScheduleEntry, Scheduler, SchedulingError, Service
from celery.schedules import BaseSchedule, schedstate
from celery.signals import beat_embedded_init, beat_init
from celery.utils.log import get_logger
from celery.utils.time import humanize_seconds
from kombu.exceptions import KombuError, OperationalError
from redis import Redis
from redis.exceptions import (
    LockNotOwnedError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.sentinel import Sentinel

from . import signals
from .beat.clocks import WallClock
from .beat.dispatch import (
    HELD_BACK_DELAY,
    NAMED,
    Batch,
    Claim,
    DeferredSignals,
    claim_batch,
    deferred_signals,
    end_by_hang_up,
    fingerprint,
    first_names,
    latest_lease,
    may_need_zone,
    move_to_zone,
    put_right_after_jump,
    release_abandoned,
    release_lease,
    retry_set_aside,
    unique_lease,
)
from .beat.failing import Failing
from .beat.greenlets import is_in_event_loop
from .beat.heartbeat import Errands
from .beat.holder import Holder, read_holder
from .beat.leadership import Leadership, Timeouts
from .beat.lock import LeaderLock, log_release
from .beat.losses import Memory
from .beat.publishing import (
    batching,
    connection_for_sending,
    is_of_sending,
    require_transport,
    settle_settings,
)
from .beat.repeats import Repeats
from .beat.reports import REPORT_LIFETIME, Reporter, beat_name, decode_reports
from .beat.resting import PULSE, Outlook, Rest
from .beat.settings import SETTINGS, Settings, application_name
from .beat.statistics import REPORT_LIFETIME, Statistics, beat_name, decode_reports
from .checks import check_key_expiry, check_version
from .decoder import (
    LAZY,
    RedBeatJSONDecoder,
    RedBeatJSONEncoder,
    StoredLazyFunc,
    as_data,
    to_timestamp,
    with_zones,
    without_zones,
    zones_of,
)
from .errors import EntryError
from .schedules import (
    bound,
    due_state,
    follows_calendar,
    last_run_of_new,
    next_due,
    own_now,
    run_to_count_from,
)
from .store.clients import Classes, ForkSafeLock, check_options, connect
from .store.escaping import escape_log, one_line
from .store.retrying import (
    RetryingConnection,
    is_of_one_key,
    not_again,
    patience,
    without_secrets,
)
from .store.sentinels import HOLDING_INTERVAL, Address, Master, connection_pool, pool_of_channel
from .store.storage import (
    EXTEND_TO,
    REDIS_ERRORS,
    SET_ASIDE,
    Draft,
    Member,
    Outcome,
    Storage,
    Stored,
    text,
)
from .store.urls import sanitized
from .timing.calendars import as_utc, zone_text

__all__ = [
    "ADD_ENTRY_ERROR",
    "DEFAULT_MAX_INTERVAL",
    "LUA_EXTEND_TO_SCRIPT",
    "MINYEAR",
    "REDBEAT_REDIS_KEY",
    "REDBEAT_SENTINEL_KEY",
    "RedBeatConfig",
    "RedBeatJSONDecoder",
    "RedBeatJSONEncoder",
    "RedBeatScheduler",
    "RedBeatSchedulerEntry",
    "Redis",
    "RetryingConnection",
    "Sentinel",
    "acquire_distributed_beat_lock",
    "ensure_conf",
    "get_logger",
    "get_redis",
    "json",
    "logger",
    "to_timestamp",
]

logger = get_logger("celery.beat")
escape_log(logger)

REDBEAT_REDIS_KEY = "redbeat_redis"
REDBEAT_SENTINEL_KEY = "redbeat_sentinel"
ADD_ENTRY_ERROR = "beat: Cannot store entry %r: %r. It was left out. Its fields: %r"
LUA_EXTEND_TO_SCRIPT = EXTEND_TO.text

#: Seconds at most between two ticks, unless ``beat_max_loop_interval`` says otherwise.
DEFAULT_MAX_INTERVAL = 300

#: Characters at most in a definition and in a meta: one entry must not hold up all others.
LONGEST_FIELD = 2**25

#: Seconds until a disabled entry is looked at again.
DISABLED_CHECK_INTERVAL = 5.0

#: Seconds between a standby's tries to become leader.
STANDBY_INTERVAL = 1.0

#: Less than this, two readings of a clock do not tell apart.
RESOLUTION = timedelta(microseconds=1)

#: How many messages go out one by one before their runs are committed: as many may be repeated.
HANDFUL = 25

#: What a message fails with that cannot be serialised, or whose options do not exist.
OWN_FAULTS = (AttributeError, LookupError, OverflowError, TypeError, ValueError)

#: Seconds at most for which closing waits for Redis.
CLOSING_TIME = 2.0

#: Seconds at most between two tries while the broker is away.
MAX_PAUSE = 30.0


# Settings and the client


class RedBeatConfig(Settings):
    """The settings of one application, read once; a bad value is refused by its name.

    Raises :exc:`~redbeat.errors.SettingError` (a ``ValueError``). Warns, in Python and in the log,
    where a setting of the broker is used instead of one of ours.
    """

    def log(self, message: str) -> None:
        """Log a warning through the ``logger`` of this module, which people patch."""
        logger.warning("beat: %s", message)


def ensure_conf(app: Any = None) -> RedBeatConfig:
    """The application's :class:`RedBeatConfig`, made once and kept as ``app.redbeat_conf``."""
    app = app_or_default(app)
    conf: RedBeatConfig | None = getattr(app, "redbeat_conf", None)
    if conf is None:
        conf = app.redbeat_conf = RedBeatConfig(app)
    return conf


_client_lock = ForkSafeLock()


def get_redis(app: Any = None) -> Any:
    """The client kept in ``app.redbeat_redis``, made on first use, without a round trip.

    Raises :exc:`~redbeat.errors.SettingError` (a ``ValueError``) if the settings name no Redis.
    """
    app = app_or_default(app)
    if getattr(app, REDBEAT_REDIS_KEY, None) is None:
        with _client_lock:
            if getattr(app, REDBEAT_REDIS_KEY, None) is None:
                setattr(app, REDBEAT_REDIS_KEY, _connect(app))
    return getattr(app, REDBEAT_REDIS_KEY)


def _connect(app: Any) -> Any:
    conf = ensure_conf(app)
    # The names of this module, as they are now: people patch them here.
    made = connect(conf, Classes(Redis, Sentinel, RetryingConnection))
    if made.sentinels is not None:
        setattr(app, REDBEAT_SENTINEL_KEY, made.sentinels)
    if made.left_out:
        logger.debug(
            "beat: Options of broker_transport_options that are not passed to the client of the "
            "schedule: %s. To pass them, set redbeat_redis_options.",
            ", ".join(made.left_out),
        )
    for message in made.warnings:
        conf.warn(message)
    return made.client


def require_known_options(app: Any) -> None:
    """Refuse options that redis-py does not know, or cannot use; no round trip.

    Raises :exc:`~redbeat.errors.SettingError` (a ``ValueError``).
    """
    check_options(get_redis(app))


def get_storage(app: Any = None) -> Storage:
    """The application's schedule in Redis, for the client and the keys that it has now."""
    app = app_or_default(app)
    conf, client = ensure_conf(app), get_redis(app)
    storage: Storage | None = getattr(app, "redbeat_storage", None)
    if storage is None or storage.client is not client or storage.keys != conf.own_keys:
        storage = app.redbeat_storage = Storage(client, *conf.own_keys)
    return storage


# Entries


def _is_sequence(value: Any) -> bool:
    """Whether Celery can take arguments out of it; what counts as false means none."""
    try:
        return not value or iter(value) is not None
    except TypeError:
        return False


def _has_items(value: Any) -> bool:
    """Whether Celery can take keywords out of it; what counts as false means none."""
    return not value or hasattr(value, "items")


#: What the fields of an entry must be for beat to send it: name, test, and what is wanted in words.
RUNNABLE: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("task", lambda value: isinstance(value, str), "the name of one"),
    ("args", _is_sequence, "a list"),
    ("kwargs", _has_items, "a dict"),
    ("options", _has_items, "a dict"),
    ("last_run_at", lambda value: isinstance(value, datetime | None), "a datetime or None"),
    ("total_run_count", lambda value: isinstance(value, int), "a whole number"),
)


class RedBeatSchedulerEntry(ScheduleEntry):  # type: ignore[misc]  # Celery has no types
    """What runs and when: a task, its arguments and a schedule, stored under a name.

    ``schedule`` is a Celery schedule or seconds; ``last_run_at`` may be naive (UTC) or ``None``
    (never run). ``clsargs`` go to :class:`celery.beat.ScheduleEntry`. Making one costs no round
    trip; nothing is stored before :meth:`save`.
    """

    name: str
    task: str | None
    args: Any
    kwargs: Any
    options: Any
    last_run_at: datetime | None
    total_run_count: int
    enabled: bool

    #: The claim under which a tick runs this entry; ``None`` outside a tick.
    claim: Claim | None = None

    def __init__(
        self,
        name: Any = None,
        task: str | None = None,
        schedule: Any = None,
        args: Any = None,
        kwargs: Any = None,
        enabled: bool = True,
        options: Any = None,
        **clsargs: Any,
    ) -> None:
        if isinstance(schedule, dict):
            raise EntryError(f"no codec is registered for the schedule {schedule!r}")
        if isinstance(schedule, str):
            raise EntryError(f"a schedule must be one of Celery's, got the text {schedule!r}")
        if isinstance(schedule, BaseSchedule):
            # Celery sets the app, and leaves the zone that a schedule has asked of another one.
            schedule = bound(schedule, clsargs.get("app"))
        super().__init__(
            name=str(name),
            task=task,
            schedule=schedule,
            args=args,
            kwargs=kwargs,
            options=options,
            **clsargs,
        )
        if (made_at := self.last_run_at) and clsargs.get("last_run_at") is None:
            self.last_run_at = last_run_of_new(self.schedule, made_at)
        self.enabled = enabled
        ensure_conf(self.app)

    @property
    def schedule(self) -> Any:
        """When it runs, as a schedule that is bound to the entry's app, whichever was assigned.

        Seconds and a ``timedelta`` become an interval.
        """
        fields = self.__dict__
        schedule, app = fields.get("schedule"), fields.get("app")
        # Celery's `update` writes it where it is kept, and the app may be another one by now.
        if app is not None and getattr(schedule, "_app", None) is not app:
            schedule = fields["schedule"] = bound(schedule, app)
        return schedule

    @schedule.setter
    def schedule(self, schedule: Any) -> None:
        self.__dict__["schedule"] = bound(schedule, self.__dict__.get("app"))

    # Reading

    @staticmethod
    def generate_key(app: Any, name: str) -> str:
        """The key of the entry's hash."""
        return ensure_conf(app).key_prefix + name

    @property
    def key(self) -> str:
        """The key of this entry's hash."""
        return self.generate_key(app=self.app, name=self.name)

    @staticmethod
    def decode_definition(definition: str) -> dict[str, Any]:
        """The fields in a stored ``definition``; raises ``ValueError`` if it is malformed.

        It may be bytes, as a client of the application's own may have read it.
        """
        decoder = json_decoder()
        fields: dict[str, Any] = decoder.decode(text(definition))
        is_left = LAZY in text(definition) and not _reads_lazy(decoder)
        return _with_lazy_read(fields) if is_left else fields

    @classmethod
    def load_definition(
        cls, key: str, app: Any = None, definition: str | None = None
    ) -> dict[str, Any]:
        """The fields of the definition at ``key``; one round trip, none if ``definition`` is given.

        Raises ``KeyError(key)`` if there is none.
        """
        if definition is not None:
            stored = Stored(definition)
        else:
            (stored,) = get_storage(app).read_entries([text(key)])
        if stored.refusal is not None:
            raise stored.refusal
        if not stored.definition:
            raise KeyError(key)
        return _zoned(cls.decode_definition(stored.definition), stored.zones)

    @staticmethod
    def decode_meta(meta: str | None, app: Any = None) -> dict[str, Any]:
        """The fields in a stored ``meta``; raises ``ValueError`` if it is malformed."""
        if not meta:
            return {"last_run_at": None}
        fields: dict[str, Any] = json_decoder().decode(text(meta))
        return fields

    @classmethod
    def load_meta(cls, key: str, app: Any = None) -> dict[str, Any]:
        """The fields of the meta at ``key``; one round trip."""
        return cls.decode_meta(get_storage(app).read_meta(key), app)

    @classmethod
    def from_key(cls, key: str, app: Any = None) -> RedBeatSchedulerEntry:
        """The entry stored at ``key``, ``last_run_at`` exactly as stored; one round trip.

        Raises ``KeyError(key)`` if there is none, ``ValueError`` or ``TypeError`` if it is
        malformed, or if the ACL of Redis refuses the key, which may be bytes.
        """
        (stored,) = get_storage(app).read_entries([text(key)])
        return cls.from_stored(key, stored, app)

    @classmethod
    def from_stored(cls, key: str, stored: Stored, app: Any = None) -> RedBeatSchedulerEntry:
        """The entry whose hash at ``key`` has been read; raises as :meth:`from_key` does."""
        if stored.refusal is not None:
            raise EntryError(
                f"{key}: Redis refuses to read it ({stored.refusal}). Allow the key in the ACL, or "
                "take it out of the schedule."
            )
        if not stored.definition:
            raise KeyError(key)
        for field in (stored.definition, stored.meta or "", stored.zones or ""):
            _require_bounded(key, field)
            field.encode()  # Raises a ValueError if it holds what is no UTF-8.
        definition = cls.load_definition(key, app=app, definition=stored.definition)
        definition = _zoned(definition, stored.zones)
        meta = cls.decode_meta(stored.meta, app=app)
        # Where both say something of runs, as others may write it, the meta is right.
        name = text(key).removeprefix(ensure_conf(app).key_prefix)
        entry = cls(app=app, **{"name": name, **definition, **meta})
        entry.last_run_at = meta.get("last_run_at")
        if not isinstance(entry.last_run_at, datetime | None):
            raise EntryError(f"last_run_at must be a datetime or null, got {entry.last_run_at!r}")
        _require_pauses(entry.schedule)
        return entry

    # Time

    def now(self) -> datetime:
        """The schedule's clock: aware, UTC."""
        return as_utc(self.default_now())

    @property
    def due_at(self) -> datetime | None:
        """When this entry is due, aware; now if it is overdue, ``None`` if nothing is left."""
        now = self.now()
        if self.last_run_at is not None and self._is_of_fixed_length:
            return _interval_due_at(self.schedule, self.last_run_at, now)
        due = self.next_due(now)
        return None if due is None else max(due, now)

    @property
    def _is_of_fixed_length(self) -> bool:
        """Whether the time from one run to the next is always the same."""
        return type(self.schedule) is celery.schedules.schedule and not self.schedule.relative

    def next_due(self, now: datetime) -> datetime | None:
        """The instant (UTC) of the next run, in the past if it is overdue; ``None``: never.

        ``now`` is aware. An interval that never ran is due at ``now``, a calendar at its next slot.
        """
        return next_due(self.schedule, self._run_to_count_from, now)

    @property
    def _run_to_count_from(self) -> datetime | None:
        return run_to_count_from(self.schedule, self.last_run_at, self.total_run_count)

    @property
    def score(self) -> int:
        """:attr:`due_at` in whole seconds since the epoch, rounded down; ``-1`` for ``None``."""
        due = self.due_at
        return -1 if due is None else to_timestamp(due)

    @property
    def rank(self) -> int | None:
        """The position in the schedule, from 0; ``None`` if it is not there. One round trip."""
        return get_storage(self.app).read_rank(self.key)

    def is_due(self) -> tuple[bool, float | None]:
        """Whether to run now, and the seconds until it should be asked again: a ``schedstate``.

        In a tick, *now* is when the tick began.
        """
        now = self.now() if self.claim is None else self.claim.now
        state: tuple[bool, float | None] = (
            due_state(self.schedule, self._run_to_count_from, now)
            if self.enabled
            else schedstate(False, DISABLED_CHECK_INTERVAL)
        )
        return state

    # Writing

    def save(self) -> RedBeatSchedulerEntry:
        """Store this entry and return it; one round trip if it is new, else two.

        What is stored about its runs stays, and the next due time follows from it: saving an entry
        anew does not reset its timer. Raises :exc:`~redbeat.errors.EntryError` (a ``TypeError`` and
        a ``ValueError``), with nothing written, if it has no application, no task, something that
        JSON cannot hold or that can never be sent, or a name whose key is one of ours.
        """
        store_entries(self.app, [self])
        return self

    def draft(self, now: datetime, seen_meta: str = "") -> Draft:
        """This entry as it is to be stored at ``now`` (aware); raises as :meth:`save` does.

        ``seen_meta`` is what is stored of its runs: it overrules what this entry says of them.
        """
        self._require_complete()
        is_readable = not seen_meta or self._adopt(seen_meta)
        definition, meta = self.encode_definition(), self.encode_meta()
        self._require_runnable()
        score = self._score_at(now)
        zones = self.encode_zones()
        return Draft(self.key, definition, seen_meta, meta, score, not is_readable, zones=zones)

    @property
    def has_own_score(self) -> bool:
        """Whether a subclass decides when its entries are due."""
        ours, its = RedBeatSchedulerEntry, type(self)
        return its.score is not ours.score or its.due_at is not ours.due_at

    def _score_at(self, now: datetime) -> int:
        """What :attr:`score` is at ``now``, for many entries with one look at the clock.

        An interval is due a whole interval after its last run, however long ago ``now`` was read.
        """
        if self.has_own_score:
            return self.score
        due = self.next_due(now)
        return -1 if due is None else to_timestamp(max(due, own_now(self.schedule, now)))

    def delete(self) -> None:
        """Remove this entry for good; one round trip.

        Raises :exc:`~redbeat.errors.EntryError` if its key is one of ours.
        """
        ensure_conf(self.app).refuse_own_key(self.name, self.key)
        get_storage(self.app).change_entries([], [self.key])

    def _next_instance(
        self, last_run_at: datetime | None = None, only_update_last_run_at: bool = False
    ) -> RedBeatSchedulerEntry:
        """The entry after a run at ``last_run_at`` (default: now), stored too; one round trip.

        Beat calls it as ``next(entry)``. In a tick, *now* is when the tick began, and nothing is
        written here: the tick commits the whole batch.
        """
        if self.claim is not None:
            last_run_at = last_run_at or self.claim.ran_at
        advanced: RedBeatSchedulerEntry = super()._next_instance(last_run_at=last_run_at)
        if only_update_last_run_at:
            advanced.total_run_count = self.total_run_count
        if self.claim is not None:
            self.claim.advanced = advanced
        else:
            advanced._store_run()
        return advanced

    #: One function, as in Celery: an override of one may call any of the others by `super()`.
    next = __next__ = _next_instance

    def reschedule(self, last_run_at: datetime | None = None) -> None:
        """Count the time to the next run from ``last_run_at`` (default: now); one round trip."""
        self.last_run_at = last_run_at or self.default_now()
        self._store_run()

    def _store_run(self) -> None:
        ensure_conf(self.app).refuse_own_key(self.name, self.key)
        score = self._score_at(as_utc(app_or_default(self.app).now()))
        get_storage(self.app).write_run(self.key, self.encode_meta(), score)

    def _adopt(self, stored: str) -> bool:
        """Take over what is stored of the runs; ``False`` if nobody can read it."""
        try:
            meta = self.decode_meta(stored, app=self.app)
            last_run_at, runs = meta.get("last_run_at"), meta.get("total_run_count", 0)
        except (AttributeError, TypeError, ValueError):
            return False
        if not isinstance(last_run_at, datetime | None) or not isinstance(runs, int):
            return False
        if last_run_at is not None:
            self.last_run_at, self.total_run_count = last_run_at, runs
        return True

    # JSON

    def encode_definition(self) -> str:
        """The ``definition`` to be stored; raises :exc:`~redbeat.errors.EntryError`."""
        fields = {
            "name": self.name,
            "task": self.task,
            "args": self._as_data("args", _with_each(StoredLazyFunc.of, self.args)),
            "kwargs": self._as_data("kwargs", _with_each(StoredLazyFunc.of, self.kwargs)),
            "options": self._as_data("options", self.options),
            "schedule": without_zones(self.schedule),
            "enabled": self.enabled,
        }
        try:
            definition = encode_json(fields)
        except (TypeError, ValueError, RecursionError):
            for field, value in fields.items():
                self._require_encodable(field, value)
            raise
        _require_bounded(self.key, definition)
        return definition

    def encode_zones(self) -> str:
        """The ``zones`` to be stored beside the definition, which 2.x reads: empty for most."""
        zones = zones_of(self.schedule)
        return json.dumps(zones) if zones else ""

    def encode_meta(self) -> str:
        """The ``meta`` of this entry as it is stored."""
        meta: dict[str, Any] = {"last_run_at": self.last_run_at}
        if self.total_run_count:
            meta["total_run_count"] = self.total_run_count
        return encode_json(meta)

    def _as_data(self, field: str, value: Any) -> Any:
        try:
            return as_data(value)
        except (TypeError, ValueError, RecursionError) as exc:
            raise self._unstorable(field, exc) from exc

    def _require_encodable(self, field: str, value: Any) -> None:
        try:
            encode_json(value)
        except (TypeError, ValueError, RecursionError) as exc:
            raise self._unstorable(field, exc) from exc

    def _unstorable(self, field: str, exc: Exception) -> EntryError:
        return EntryError(
            f"Entry {self.name!r} cannot be stored: JSON cannot hold its {field}: {exc}"
        )

    def _require_complete(self) -> None:
        if self.app is None and not _has_current_app():
            raise EntryError(
                f"Entry {self.name!r} cannot be stored: it has no app. Give it app=..., or make an "
                "application current first."
            )
        ensure_conf(self.app).refuse_own_key(self.name, self.key)
        if not self.task:
            raise EntryError(f"Entry {self.name!r} cannot be stored: it has no task")
        if not hasattr(self.schedule, "remaining_estimate"):
            raise EntryError(
                f"Entry {self.name!r} cannot be stored: its schedule must be one of Celery's, a "
                f"timedelta or seconds, got {self.schedule!r}"
            )

    def _require_runnable(self) -> None:
        for field, is_right, wanted in RUNNABLE:
            value = getattr(self, field)
            if not is_right(value):
                raise EntryError(
                    f"Entry {self.name!r} cannot be stored: its {field} must be {wanted}, got "
                    f"{value!r}"
                )

    def __repr__(self) -> str:
        return one_line(super().__repr__())

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), dict(self))

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """The fields of which Celery makes the next instance; a claim is for one run only."""
        return ((field, value) for field, value in vars(self).items() if field != "claim")


def _unbound(method: Any) -> Any:
    """The function of a class method, which is bound anew at each access; else what it is."""
    return getattr(method, "__func__", method)


_FROM_KEY = _unbound(RedBeatSchedulerEntry.from_key)


def store_entries(
    app: Any, entries: Sequence[RedBeatSchedulerEntry], deleted: Sequence[str] = ()
) -> int:
    """Store entries and remove those at the keys ``deleted``, as one change; how many went.

    Two round trips at the most, more while runs are recorded in between. Nothing is written if one
    of them cannot be stored; raises as :meth:`RedBeatSchedulerEntry.save` does. What a ``save`` of
    a subclass does beside is not done.
    """
    now = as_utc(app_or_default(app).now())
    drafts = [entry.draft(now) for entry in entries]
    changed = get_storage(app).change_entries(drafts, deleted)
    while any(changed.conflicts):
        told = zip(entries, changed.conflicts, strict=True)
        entries, metas = zip(*((entry, meta) for entry, meta in told if meta), strict=True)
        drafts = [entry.draft(now, meta) for entry, meta in zip(entries, metas, strict=True)]
        changed = changed._replace(conflicts=get_storage(app).change_entries(drafts).conflicts)
    return changed.deleted


# Arguments that the code computes: Celery does it for those in `args` and `kwargs`, and no deeper.


def _with_each(change: Callable[[Any], Any], arguments: Any) -> Any:
    """The arguments, each as `change` has it."""
    if isinstance(arguments, dict):
        return {name: change(value) for name, value in arguments.items()}
    if isinstance(arguments, (list, tuple)):
        return [change(value) for value in arguments]
    return arguments


def _reads_lazy(decoder: Any) -> bool:
    """Whether a decoder knows these objects of ours."""
    return isinstance(decoder.decode(f'{{"__type__": "{LAZY}", "function": ""}}'), StoredLazyFunc)


def _with_lazy_read(definition: Any) -> Any:
    """The fields of a definition, also where a decoder leaves objects of ours as they are."""
    if not isinstance(definition, dict):
        return definition
    given = {name: definition[name] for name in ("args", "kwargs") if name in definition}
    return {**definition, **{name: _with_each(_lazy_read, each) for name, each in given.items()}}


def _lazy_read(value: Any) -> Any:
    is_left = isinstance(value, dict) and value.get("__type__") == LAZY
    return StoredLazyFunc(str(value.get("function"))) if is_left else value


def take_lazy_functions(entry: RedBeatSchedulerEntry) -> RedBeatSchedulerEntry:
    """The entry, with the functions of its arguments from ``beat_schedule``, as far as it has them.

    Redis holds only their names.
    """
    names = [name for name in ("args", "kwargs") if _has_lazy(getattr(entry, name))]
    if names:
        schedule = ensure_conf(entry.app).schedule
        static = next((schedule[name] for name in schedule if str(name) == entry.name), None)
        get = static.get if isinstance(static, Mapping) else partial(getattr, static)
        for name in names:
            setattr(entry, name, _with_functions(getattr(entry, name), get(name, None)))
    return entry


def _has_lazy(arguments: Any) -> bool:
    values = arguments.values() if isinstance(arguments, dict) else arguments
    return isinstance(arguments, (dict, list, tuple)) and any(
        isinstance(value, StoredLazyFunc) for value in values
    )


def _with_functions(stored: Any, given: Any) -> Any:
    """The stored arguments; those that the code computes by what stands in its place there."""
    is_dict = isinstance(stored, dict)
    pairs = dict(stored.items() if is_dict else enumerate(stored))
    own = dict((given or {}).items() if is_dict else enumerate(given or ()))
    for place, value in pairs.items():
        if isinstance(value, StoredLazyFunc) and isinstance(own.get(place), BeatLazyFunc):
            pairs[place] = own[place]
    return pairs if is_dict else list(pairs.values())


def _zoned(definition: dict[str, Any], zones: str | None) -> dict[str, Any]:
    """The fields of a definition, with the zones that are stored beside it."""
    if not zones or not isinstance(definition, dict):
        return definition
    try:
        schedule = with_zones(definition.get("schedule"), dict(json.loads(zones)))
    except (TypeError, ValueError) as exc:
        raise EntryError(f"its zones cannot be read: {exc}. Save it anew.") from exc
    return {**definition, "schedule": schedule}


def _rebuild(cls: type[RedBeatSchedulerEntry], fields: dict[str, Any]) -> RedBeatSchedulerEntry:
    entry = cls(**fields)
    entry.last_run_at = fields["last_run_at"]
    return entry


def _interval_due_at(
    interval: celery.schedules.schedule, last_run_at: datetime, now: datetime
) -> datetime | None:
    """The clock plus what remains, so that the time since ``now`` was read is not counted twice."""
    due = next_due(interval, last_run_at, now)
    if due is None:
        return None
    if due <= now:
        return now
    try:
        remaining: timedelta = interval.remaining_estimate(last_run_at)
        return now + remaining
    except OverflowError:
        return due


def _require_pauses(schedule: Any) -> None:
    """Refuse an interval of no time, as Celery makes one of any number: it would never pause."""
    if type(schedule) is celery.schedules.schedule and schedule.run_every <= timedelta():
        raise EntryError(
            f"its schedule must be more than 0 seconds, got {schedule.run_every.total_seconds()}"
        )


def _require_bounded(key: str, field: str) -> None:
    if len(field) > LONGEST_FIELD:
        raise EntryError(
            f"{key} is too large: {len(field)} characters, and {LONGEST_FIELD} may be stored. "
            "Store what the task needs elsewhere, and where it is in the arguments."
        )


def json_decoder() -> Any:
    """A decoder of the class that is :data:`RedBeatJSONDecoder` in this module by now."""
    return _decoder_of(RedBeatJSONDecoder, getattr(RedBeatJSONDecoder, "dict_to_object", None))


def encode_json(value: Any, **options: Any) -> str:
    """JSON by the class that is :data:`RedBeatJSONEncoder` in this module by now.

    ``options`` are those of :func:`json.dumps`.
    """
    encoder = RedBeatJSONEncoder(**options) if options else _encoder_of(RedBeatJSONEncoder)
    text: str = encoder.encode(value)
    return text


# Making them costs as much as using them, so one of each class is kept.


@lru_cache(maxsize=8)
def _decoder_of(cls: Any, hook: Any) -> Any:
    # A hook that was patched on its class is taken up by a new decoder only.
    return cls()


@lru_cache(maxsize=8)
def _encoder_of(cls: Any) -> Any:
    return cls()


def _has_current_app() -> bool:
    """Whether the current app is one that somebody made; Celery makes up an unconfigured one."""
    app = app_or_default()
    return (
        app.main != "default"
        or getattr(app, REDBEAT_REDIS_KEY, None) is not None
        or ensure_conf(app).redis_url is not None
    )


# The scheduler


class _BrokerAwayError(Exception):
    """The broker cannot be reached: what is due stays due."""


class _NotSentError(Exception):
    """The broker is there, and one entry could not be sent: it alone is put off."""

    def __init__(self, told: str, seconds: float, is_news: bool = True) -> None:
        super().__init__(told)
        self.seconds = seconds
        #: Whether this tick has not met the same with another entry.
        self.is_news = is_news


class _TooLateError(Exception):
    """What a batch has prepared must not be sent any more: it is given back."""


class Statics(Enum):
    """What this beat has done of ``beat_schedule``; ``None``: nothing yet, as Redis was away."""

    DEFERRED = "left to the leader"
    ADDED = "stored, and nothing removed"
    STORED = "stored, and what is gone removed"


class RedBeatScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types
    """Runs what is due in Redis; several may run, of which the holder of the lock leads.

    ``lock_key``, ``lock_timeout`` (seconds) and ``lock`` count from the next tick on when they are
    assigned. Other keywords go to :class:`celery.beat.Scheduler`.
    """

    Entry = RedBeatSchedulerEntry

    #: The lock this scheduler holds, ``None`` until it leads.
    lock: Any = None

    #: The leadership term in which the office was taken, and what was found and done in it.
    _term: int | None = None
    _is_in_office = False
    _statics: Statics | None = None
    _retries_set_aside_at = 0.0

    #: Seconds by which the clock was set back, as long as entries have not been put right.
    _set_back_by = 0.0
    _retried: Member | None = None

    _is_service = False
    _is_closed = False
    _has_reported = False

    #: Whether the constructor is done: only then `setup_schedule` removes anything.
    _is_built = False

    # What the last tick of ours left behind; ``None``: an override has not called it.
    outlook: Outlook | None = None

    #: Whether nobody knows yet that the broker's transport can be imported.
    _requires_transport = True

    #: A ``tick`` that was assigned to this scheduler and not defined in its class.
    _assigned_tick: Callable[[], Any] | None = None

    #: What a tick has sent and Redis does not know yet, and the lease of the last claim.
    _uncommitted: Batch | None = None
    _lease: float | None = None

    #: The channel on which this tick publishes; it has no connection once that is lost.
    _channel: Any = None
    _has_doubtful_channel = False

    #: The master on which the last batch was claimed; ``None`` without sentinels.
    _claimed_on: Address | None = None

    #: Whether a new connection to the broker could be made in this tick; ``None``: nobody tried.
    _broker_answers: bool | None = None

    #: Whether the broker has refused a message of a batch, so that they go one by one.
    _sends_singly = False

    #: Whether the broker has had no room for a message of this tick.
    _is_broker_full = False

    _wind_up: threading.Thread | None = None
    _has_let_go = False

    def __init__(
        self,
        app: Any,
        lock_key: str | None = None,
        lock_timeout: float | None = None,
        lazy: bool = False,
        **kwargs: Any,
    ) -> None:
        conf = ensure_conf(app)
        self.lock_key = lock_key or conf.lock_key
        self.statistics = Reporter(lambda: get_storage(app))
        self.told = Repeats(logger)
        self.failing = Failing(lambda: get_storage(app))
        self.memory = Memory(lambda: get_storage(app), self._read_static_keys)
        self.leadership = Leadership(
            self,
            lambda: get_storage(app),
            Timeouts(conf.failover_timeout, conf.stall_timeout),
            application_name(app),
            Errands(self._report, lambda: self._schedule_master.look()),
        )
        self.clock = WallClock()
        self.rest = Rest(
            lambda: get_storage(app), self.leadership, lambda: conf.poll_interval, self.clock
        )
        self._schedule_master = Master(
            lambda: connection_pool(getattr(app, REDBEAT_REDIS_KEY, None))
        )
        self._broker_master = Master(lambda: pool_of_channel(self._channel))
        #: Tries in a row that failed, by what they failed of.
        self._outages: Counter[type[Exception]] = Counter()
        #: The keys of entries in batches that broke off. Nobody knows which the broker has taken,
        #: and it is not to take those again and again: they go one by one until they have run.
        self._doubtful: set[str] = set()
        #: Whether the server was reached, so that what is known of it stands; ``None``: not asked.
        self._is_server_checked: bool | None = None
        self.key_expiry_findings: list[str] = []
        super().__init__(app, lazy=True, **kwargs)
        self.Producer: Any = batching(self.Producer)
        configured = _usable_lock_timeout(conf, self.lock_key)
        self.lock_timeout = lock_timeout or configured or self.max_interval * 5
        if not lazy:
            # Celery's handlers would build a second scheduler in the middle of this one.
            with deferred_signals():
                self._begin_with_statics()
        if self._may_connect and self._is_server_checked is None:
            self._check_server()
        self._is_built = True

    @property
    def info(self) -> str:
        """Lines of the start-up banner, on where the schedule lives, the lock, what is wrong.

        One round trip, for who holds the lock.
        """
        lines = [f"redis -> {sanitized(ensure_conf(self.app).redis_url)}"]
        if self.lock_key:
            timeout = humanize_seconds(self.lock_timeout)
            lines.append(f"lock -> `{self.lock_key}` {timeout} ({self.lock_timeout:g}s)")
            lines += [f"leader -> {holder}" for holder in self._read_holders()]
        lines += [f"WARNING: {finding}" for finding in self.key_expiry_findings]
        return "\n".join(f"       . {one_line(line)}" for line in lines)

    def _read_holders(self) -> list[Holder]:
        """The holder of the lock, if there is one and Redis can be asked."""
        if not self._may_connect:
            return []
        try:
            holder = self._read_leader()
        except Exception:
            # A banner must not keep beat from starting.
            return []
        return [holder] if holder else []

    # Static entries

    @property
    def _may_connect(self) -> bool:
        """Whether the client is known: a `setup_schedule` of a subclass may bring its own."""
        has_client = getattr(self.app, REDBEAT_REDIS_KEY, None) is not None
        return has_client or _unbound(type(self).setup_schedule) is _SETUP_SCHEDULE

    def _check_server(self) -> None:
        self._is_server_checked, self.key_expiry_findings = _check_server(self.app)

    def _begin_with_statics(self) -> None:
        """Store ``beat_schedule`` in the constructor; if Redis is away, the leader will."""
        try:
            self.setup_schedule()
            # One of a subclass that does not call ours has done what it wants.
            self._statics = self._statics or Statics.STORED
        except REDIS_ERRORS as exc:
            logger.error(
                "beat: Cannot reach Redis at %s to store beat_schedule: %s",
                sanitized(ensure_conf(self.app).redis_url),
                exc,
            )

    def setup_schedule(self) -> None:
        """Store ``beat_schedule``, and remove what was stored from an earlier one.

        In the constructor it removes nothing, for a program that only looks at the schedule may
        have another ``beat_schedule`` than beat; and while another beat leads, it stores nothing.
        That is the leader's.
        """
        conf = ensure_conf(self.app)
        if self._is_server_checked is None:
            self._check_server()
        storage = get_storage(self.app)
        self.install_default_entries(conf.schedule)
        if not self._is_built and (leader := self._read_leader()):
            self._statics = Statics.DEFERRED
            logger.info(
                "beat: beat_schedule is not stored: %s leads. This beat stores its own as soon as "
                "it leads.",
                leader,
            )
            return
        known, names = storage.read_statics(), set(map(str, conf.schedule))
        if self._is_built:
            self._remove_statics(known - names)
        storage.write_statics(added=names - known, removed=())
        self.update_from_dict(conf.schedule)
        self._own(names)
        self._statics = Statics.STORED if self._is_built else Statics.ADDED

    def _read_leader(self) -> Holder | None:
        return read_holder(get_storage(self.app), self.lock_key) if self.lock_key else None

    def _remove_statics(self, names: set[str]) -> None:
        """Remove static entries that the code does not have any more, but for those of others."""
        gone, storage = names - self._find_owned_by_others(names), get_storage(self.app)
        for name in sorted(gone):
            logger.info("beat: Removing %r: beat_schedule does not have it any more", name)
            try:
                storage.change_entries([], [self.Entry.generate_key(self.app, name)])
            except ResponseError as exc:
                if not is_of_one_key(exc):
                    raise
                gone = gone - {name}
                logger.error("beat: %r stays, since Redis refuses to remove it: %s", name, exc)
        storage.write_statics(added=(), removed=gone)

    @property
    def _owner(self) -> str | None:
        """What this application is known by to another one on the same prefix."""
        return application_name(self.app) or None

    def _read_owners(self, names: Iterable[str]) -> dict[str, str | None]:
        """The owners of static entries, by name, as far as there are such entries."""
        keys = {self.Entry.generate_key(self.app, name): name for name in sorted(names)}
        owners = get_storage(self.app).read_owners(list(keys))
        return {keys[key]: owner for key, owner in owners.items()}

    def _find_owned_by_others(self, names: Iterable[str]) -> set[str]:
        """Those of the names that another application on this prefix has; warns of them."""
        others = {
            name: owner
            for name, owner in self._read_owners(names).items()
            if owner not in (None, self._owner)
        }
        if others:
            self._warn_of_sharing("They are left as they are", others)
        return set(others)

    def _own(self, names: Iterable[str]) -> None:
        """Note that these static entries are this application's; warns if they were another's."""
        if self._owner is None:
            return
        owners = {
            name: owner for name, owner in self._read_owners(names).items() if owner != self._owner
        }
        # Those that Celery adds are the same in each application.
        taken = {
            name: owner
            for name, owner in owners.items()
            if owner and not name.startswith("celery.")
        }
        if taken:
            self._warn_of_sharing("Whoever starts last overwrites them", taken)
        keys = [self.Entry.generate_key(self.app, name) for name in owners]
        get_storage(self.app).write_owner(keys, self._owner)

    def _warn_of_sharing(self, what_happens: str, owners: Mapping[str, str | None]) -> None:
        logger.warning(
            "beat: The static entries %s belong to the application %s, which shares the prefix %r "
            "with %s. %s. Give each application a prefix of its own (redbeat_key_prefix), or "
            "delete these entries if there is no such application any more.",
            ", ".join(map(repr, owners)),
            ", ".join(sorted({repr(owner) for owner in owners.values()})),
            ensure_conf(self.app).key_prefix,
            repr(self._owner) if self._owner else "this one, which has no name",
            what_happens,
        )

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Store entries given as in ``beat_schedule``; one that cannot be built is left out."""
        keys = {name: self.Entry.generate_key(self.app, str(name)) for name in dict_}
        # A mock that stands in for the client knows no scores.
        found = get_storage(self.app).read_scores(list(keys.values()))
        scores = dict(zip(keys, found, strict=False))
        for name, fields in dict_.items():
            # There may be thousands, and a standby waits for no thread that hangs.
            self.leadership.watchdog.expect(0)
            try:
                entry = self._maybe_entry(name, fields)
                self._store_static(entry, fields, scores.get(name))
            except Exception as exc:
                if isinstance(exc, REDIS_ERRORS) and not is_of_one_key(exc):
                    raise
                logger.error(ADD_ENTRY_ERROR, name, exc, fields)

    def _store_static(self, entry: RedBeatSchedulerEntry, fields: Any, score: float | None) -> None:
        """Store an entry as the code has it, with what Redis knows of it, unless it is there.

        One round trip, three if it has to be written. An entry that a user has paused stays so,
        unless the code says whether it is enabled.
        """
        try:
            stored = self.Entry.from_key(entry.key, app=self.app)
        except (KeyError, TypeError, ValueError):
            stored = None
        if stored is not None:
            entry.last_run_at = stored.last_run_at
            entry.total_run_count = stored.total_run_count
            if isinstance(fields, Mapping) and "enabled" not in fields:
                entry.enabled = stored.enabled
                self._tell_of_pause(entry)
        is_in_place = score is not None and self._may_stay(entry, score)
        if stored is None or not is_in_place or not _is_same(entry, stored):
            entry.save()
        logger.debug("beat: Stored entry: %s", entry)

    def _tell_of_pause(self, entry: RedBeatSchedulerEntry) -> None:
        if not entry.enabled:
            logger.warning(
                "beat: %r of beat_schedule is paused in Redis, and stays so. To run it, resume "
                "it, or give it 'enabled': True in the code.",
                entry.name,
            )

    def _may_stay(self, entry: RedBeatSchedulerEntry, score: float) -> bool:
        """Whether a stored score says of an entry what its schedule does."""
        if score < 0:
            return score != SET_ASIDE and entry.score < 0
        return not self._is_moved(entry, score)

    def _is_moved(self, entry: RedBeatSchedulerEntry, score: float) -> bool:
        """Whether an entry's next slot is elsewhere than its score, as after a change of time zone.

        A claim, and a slot that is past, are left to the ticks.
        """
        now = as_utc(self.app.now())
        claimed_until = latest_lease(now.timestamp(), ensure_conf(self.app).claim_timeout)
        if not claimed_until < score < float("inf") or entry.has_own_score:
            return False
        if not follows_calendar(entry.schedule):
            return False
        due = entry.next_due(now)
        return due is not None and due > now and to_timestamp(due) != int(score)

    # The schedule

    @property
    def schedule(self) -> dict[str, RedBeatSchedulerEntry]:
        """The due entries and the first that is due within ``max_interval``, by name.

        A view, two round trips: changing it stores nothing. A key whose entry is gone is removed.
        """
        storage, now = get_storage(self.app), as_utc(self.app.now()).timestamp()
        members = storage.read_due(now, now + self.max_interval)
        entries = (self._load_member(member, stored) for member, stored in self._read(members))
        return {entry.name: entry for entry in entries if entry is not None}

    @schedule.setter
    def schedule(self, schedule: Any) -> None:
        """Celery's base class assigns one; ours is in Redis."""

    def _read(self, members: list[Member]) -> Iterator[tuple[Member, Stored]]:
        return zip(
            members,
            get_storage(self.app).read_entries([member.key for member in members]),
            strict=True,
        )

    def _load_member(self, member: Member, stored: Stored) -> RedBeatSchedulerEntry | None:
        try:
            return self._build(member.key, stored)
        except KeyError:
            self._drop(member.key, member.score)
        except Exception as exc:
            about = ("load", member.key, fingerprint(stored))
            self.told.error(about, exc, "beat: Failed to load %s: %r", member.key, exc)
        return None

    def _made_of(self, key: str, stored: Stored) -> RedBeatSchedulerEntry:
        """The entry; one round trip if its class has a ``from_key`` of its own, else none."""
        if _unbound(self.Entry.from_key) is not _FROM_KEY:
            return take_lazy_functions(self.Entry.from_key(key, app=self.app))
        return take_lazy_functions(self.Entry.from_stored(key, stored, app=self.app))

    def _drop(self, key: str, score: float) -> bool:
        """Remove from the schedule what has no entry, unless it was saved or deleted by now."""
        was_there = get_storage(self.app).commit(score, [Outcome(key, None)]) > 0
        if was_there:
            _report_gone([key])
        return was_there

    def _build(self, key: str, stored: Stored) -> RedBeatSchedulerEntry:
        entry = self._made_of(key, stored)
        if not isinstance(entry.task, str) or not entry.task:
            raise EntryError(f"{key}: its task must be the name of one, got {entry.task!r}")
        if not isinstance(entry.total_run_count, int):
            raise EntryError(
                f"{key}: its total_run_count must be a number, got {entry.total_run_count!r}"
            )
        return entry

    # One tick

    def tick(self, min: Callable[..., Any] = min, **kwargs: Any) -> float:
        """Run all that is due, and return the seconds until the next tick is wanted.

        One that does not lead runs nothing. While Redis or the broker is away, what is due stays
        due, and the pauses grow up to half a minute.
        """
        self._end_if_closed()
        self.leadership.watchdog.expect(0)
        with patience(self.leadership.patience()):
            outlook = self.outlook = self._run_tick(min)
        self.leadership.watchdog.expect(outlook.wait)
        return outlook.wait

    def _serve(self) -> float:
        """One turn of a running beat service: a tick, whoever wrote it, and the rest after it.

        It rests here and not in Celery's service, so that a change can end the rest.
        """
        self._end_if_closed()
        if self._requires_transport:
            require_transport(self.app)
            self._requires_transport = False
        self._note_jump(self.clock.read_jump())
        self.rest.take(self._take_turn(), self.max_interval)
        return 0.0

    def _note_jump(self, jump: float) -> None:
        """Log that the clock was set; what ran while it was ahead is put right by the leader."""
        if not jump:
            return
        logger.warning(
            "beat: The clock of this host was set %s by %.0f seconds. Entries are due by the "
            "clock; keep it right (NTP).",
            "ahead" if jump > 0 else "back",
            abs(jump),
        )
        # Set ahead again before that was done, they are in the past, where they belong.
        self._set_back_by = max(self._set_back_by - jump, 0.0)

    def _take_turn(self) -> Outlook:
        """Tick; an override, which may not ask who leads, only while this beat does."""
        # What it told ended the last rest, and must not end this turn's.
        self.leadership.lost.clear()
        is_ours = self._assigned_tick is None and type(self).tick is _TICK
        try:
            if not is_ours and not self._is_sure_of_masters():
                return Outlook(HOLDING_INTERVAL)
            if not is_ours and not self._has_lead():
                return Outlook(STANDBY_INTERVAL)
            self.outlook = None
            answer = self._assigned_tick() if self._assigned_tick else type(self).tick(self)
        except LockNotOwnedError as exc:
            if not isinstance(self.lock, LeaderLock):
                raise
            self.leadership.lose(self.lock, str(exc))
            return Outlook(0.0)
        except REDIS_ERRORS as exc:
            return self._pause(exc, ensure_conf(self.app).poll_interval)
        if self.outlook is not None:
            return self.outlook if answer is None else self.outlook.answered(answer)
        self._outages.clear()
        return Outlook(answer or 0.0, first_due=time.time() + (answer or 0.0))

    def _has_lead(self) -> bool:
        """Whether this beat may dispatch now; no round trip if it has just made sure of that."""
        self.leadership.watchdog.expect(0)
        leads = self._is_in_office and self._term == self.leadership.term
        if leads and self.leadership.ensure_trusted():
            return True
        with patience(self.leadership.patience()):
            return self._lead_or_wait()

    def _end_if_closed(self) -> None:
        """A service whose scheduler is closed is to end.

        Celery's signal handler closes it and raises ``SystemExit`` where the program happens to be.
        In a destructor Python drops that, and beat would go on for ever.
        """
        if self._is_service and self._is_closed:
            raise SystemExit

    def _run_tick(self, min: Callable[..., Any]) -> Outlook:
        self._broker_answers = None
        self._is_broker_full = False
        try:
            if not self._is_sure_of_masters():
                return Outlook(HOLDING_INTERVAL)
            self._settle()
            if not self._lead_or_wait():
                return Outlook(STANDBY_INTERVAL)
            outlook = self._run_due(min)
        except LockNotOwnedError:
            # Only of a lock that was given by hand: there is no campaign that could go on.
            raise
        except REDIS_ERRORS as exc:
            return self._pause(exc, ensure_conf(self.app).poll_interval)
        except _BrokerAwayError as exc:
            self._forget_connection()
            return self._pause(exc, MAX_PAUSE)
        self._outages.clear()
        if self._has_doubtful_channel:
            self._has_doubtful_channel = False
            self._forget_channel()
        return outlook

    def _lead_or_wait(self) -> bool:
        """Whether this beat may dispatch; a new leader first takes office."""
        leads = self.leadership.lead_or_wait()
        if not leads or self._term != self.leadership.term:
            self._leave_office()
        if not leads:
            self._statics = Statics.DEFERRED
            if self.memory.age >= ensure_conf(self.app).poll_interval:
                # A loss is kept in mind for the day on which this beat leads.
                self.memory.finds_loss(means_loss=False)
            return False
        if not self._is_in_office:
            self._take_office()
        if self._set_back_by:
            self._put_right(self._set_back_by)
            self._set_back_by = 0.0
        return True

    def _put_right(self, seconds: float) -> None:
        """Let runs that the clock, set back by so much, has still to come to count as earlier."""
        conf, count = ensure_conf(self.app), 0
        for put_right in put_right_after_jump(
            get_storage(self.app),
            as_utc(self.app.now()),
            timedelta(seconds=seconds),
            # Where beats share the work, others hold claims.
            0.0 if self.lock_key else conf.claim_timeout,
            conf.batch_size,
            self._build,
        ):
            self.leadership.watchdog.expect(0)
            count += put_right
        logger.warning(
            "beat: %s had run at times that are still to come. They count as run %.0f seconds "
            "earlier, so that they are not silent until then.",
            "1 entry" if count == 1 else f"{count} entries",
            seconds,
        )

    def _take_office(self) -> None:
        """Store the static entries, and look once for what a dead leader had claimed.

        First of all check a server that was away when this scheduler was built.
        """
        if not self._is_server_checked:
            self._check_server()
        conf, storage = ensure_conf(self.app), get_storage(self.app)
        if self._is_service:
            storage.undisturbed = deferred_signals
        is_back = self._term is not None
        if self.memory.finds_loss(means_loss=is_back):
            self._tell_of_loss()
        if is_back or self._statics in (None, Statics.DEFERRED):
            self.setup_schedule()
            self._statics = Statics.STORED
        elif self._statics is Statics.ADDED:
            self._remove_statics(storage.read_statics() - set(map(str, conf.schedule)))
            self._statics = Statics.STORED
        if self.lock_key:
            now = as_utc(self.app.now())
            released = release_abandoned(
                storage, now, conf.claim_timeout, conf.batch_size, self._build
            )
            if released:
                logger.info("beat: %d entries that another beat had claimed run now", released)
        self._follow_zone()
        self.memory.learn()
        self._forget_reports_of_the_gone()
        self.failing.load()
        self._term = self.leadership.term
        self._is_in_office = True
        signals.leadership_acquired.send(self)

    def _read_static_keys(self) -> list[str]:
        names = map(str, ensure_conf(self.app).schedule)
        return [self.Entry.generate_key(self.app, name) for name in names]

    def _tell_of_loss(self) -> None:
        """Log that the schedule is lost, unless another beat has just done so."""
        if self.memory.may_tell(beat_name()):
            logger.error(
                "beat: Redis has lost the schedule %s. The entries of beat_schedule are stored "
                "again; those that programs had saved are gone.",
                ensure_conf(self.app).schedule_key,
            )

    def _follow_zone(self) -> None:
        """Move entries to their new times if the application's zone is not the last leader's.

        One round trip, one more to note it, and if it changed, three per page of entries.
        """
        storage, conf = get_storage(self.app), ensure_conf(self.app)
        before, zone = storage.read_zone(), zone_text(self.app.timezone)
        if zone == before:
            return
        # A program that only ticks leaves nothing of ours where nothing depends on the zone.
        is_needed = before is not None or self._is_service
        if not is_needed and not may_need_zone(storage, conf.batch_size):
            return
        if before is not None:
            now, moved = as_utc(self.app.now()), 0
            for count in move_to_zone(
                storage, now, conf.claim_timeout, conf.batch_size, before, self._build
            ):
                self.leadership.watchdog.expect(0)
                moved += count
            logger.info(
                "beat: The application's time zone is %s, and was %s: %d entries without one of "
                "their own were moved to their new times",
                zone,
                before,
                moved,
            )
        storage.write_zone(zone)

    def _leave_office(self) -> None:
        if self._is_in_office:
            self._is_in_office = False
            signals.leadership_lost.send(self)

    def _pause(self, exc: Exception, longest: float) -> Outlook:
        """What is due stays due, for a time that grows with each try that fails alike."""
        kind = _BrokerAwayError if isinstance(exc, _BrokerAwayError) else RedisError
        pause: float = min(2.0 ** min(self._outages[kind], 10), longest)
        self._outages[kind] += 1
        told = str(exc).rstrip(".")
        logger.error("beat: %s. Nothing is lost; trying again in %g seconds", told, pause)
        return Outlook(pause)

    def _run_due(self, min_: Callable[..., Any]) -> Outlook:
        """Run batch after batch.

        The wait is the smallest of what ``maybe_due`` gave for the entries that were looked at.
        """
        logger.debug("beat: Selecting tasks")
        now, began = self._read_clock(), _clocks()
        ticked_at = now.timestamp()
        shown = self._read_own_schedule()
        waits: list[float | None] = []
        first_due = first_again = float("inf")
        from_end = False
        while True:
            with deferred_signals() as stop:
                batch = self._claim(now, age=_passed_since(began), from_end=from_end)
                if batch.has_set_aside:
                    self._retry_set_aside(batch.now)
                if not batch.is_empty:
                    self.memory.remember(claim.key for claim in batch.claims)
                    self._run_batch(batch, stop, waits, shown)
            if self._has_lost_the_schedule(batch):
                self._leave_office()
                return Outlook(0.0, first_due=ticked_at, ticked_at=ticked_at)
            first_due = min(first_due, batch.first_due())
            first_again = min(first_again, batch.first_again(PULSE))
            leaves_more, is_garbage = batch.leaves_more, batch.is_garbage
            batch.release()
            if stop or not leaves_more or not self._is_sure_of_masters():
                break
            if not self._lead_or_wait():
                break
            if is_garbage and from_end and self._is_service:
                # The rest has its turn at once, with what becomes due meanwhile.
                waits.append(0.0)
                first_due = ticked_at
                break
            # What lies behind garbage has waited for one page of it: it comes from the other end.
            from_end ^= is_garbage
        if shown and not stop:
            waits += self._run_unclaimed(shown.values())
        return Outlook(
            min_([self.max_interval, *(wait for wait in waits if wait is not None)]),
            first_due,
            ticked_at,
            first_again,
            may_find_more=batch.has_set_aside,
        )

    def _has_lost_the_schedule(self, batch: Batch) -> bool:
        """Whether Redis has lost the schedule under this beat, which still has its lock or none.

        Up to two round trips where nothing is due for long; without a lock, one per poll interval.
        """
        conf = ensure_conf(self.app)
        # With the database a lock goes as well, which is noticed without looking for it.
        is_time = not self.lock_key and self.memory.age >= conf.poll_interval
        if not batch.is_empty and not (is_time and self._is_service):
            return False
        has_statics = bool(conf.schedule)
        if not self._is_service and (self.lock_key or not has_statics):
            return False
        return self.memory.finds_loss(means_loss=has_statics)

    def _read_clock(self) -> datetime:
        """The tick's *now*: when it was meant to be, if that was only just before.

        Else an entry that is due at the end of a pulse would run now in this one, now in the next.
        """
        read: datetime = self.app.now()
        # In UTC: arithmetic in a zone knows nothing of the change of its clocks.
        now = as_utc(read)
        late = now.timestamp() - self.rest.wakes_at
        if 0 <= late < PULSE:
            now += RESOLUTION - timedelta(seconds=late)
        return now.astimezone(read.tzinfo)

    def _claim(self, now: datetime, age: float, from_end: bool) -> Batch:
        """Claim a batch; the reading of the clock is ``age`` seconds old.

        ``from_end``: what became due last.
        """
        conf = ensure_conf(self.app)
        # Taken down first: a signal may end this process before the claim comes back.
        self._lease = unique_lease(as_utc(now).timestamp() + age, conf.claim_timeout)
        before = self._schedule_master.address
        batch = claim_batch(
            get_storage(self.app),
            now,
            self._lease,
            conf.batch_size,
            self.max_interval,
            conf.claim_timeout,
            from_end,
            self.told,
        )
        self._claimed_on = before or self._schedule_master.address
        return batch

    def _read_own_schedule(self) -> dict[str, Any] | None:
        """What a ``schedule`` of a subclass shows, by key; ``None`` if it is ours.

        Such a class decides there what may run, as it could with 2.x.
        """
        if type(self).schedule is _SCHEDULE:
            return None
        return {entry.key: entry for entry in self.schedule.values()}

    def _run_unclaimed(self, entries: Iterable[Any]) -> Iterator[float | None]:
        """Run what a ``schedule`` of a subclass shows beside what is due in Redis."""
        for entry in entries:
            try:
                yield self.maybe_due(entry, **self._reach_broker())
            except (_BrokerAwayError, *REDIS_ERRORS):
                raise
            except Exception as exc:
                about = ("unclaimed", getattr(entry, "name", None))
                self.told.error(about, exc, "beat: %s did not run: %r", entry, exc)

    def _run_batch(
        self,
        batch: Batch,
        stop: DeferredSignals,
        waits: list[float | None],
        shown: dict[str, Any] | None,
    ) -> None:
        self._uncommitted = batch
        try:
            loaded, gone = batch.load(self._build), batch.gone()
            if shown is not None:
                loaded = batch.restrict(shown)
            _report_gone(gone)
            if loaded:
                logger.debug("beat: Loading %d tasks", len(loaded))
                self._publish(batch, loaded, stop, waits)
        except Exception:
            # Where beat is told to end, and that is no Exception, closing it commits.
            self._settle()
            raise
        self._settle()
        self._restore_statics(gone)
        if batch.peeked and shown is None:
            waits.append(self._look_ahead(batch.peeked))

    def _settle(self) -> None:
        """Commit the last batch and tell of it; while Redis is away, it is kept for later."""
        batch = self._uncommitted
        if batch is None:
            return
        batch.commit()
        self._uncommitted = self._lease = None
        if runs := batch.runs():
            self._doubtful.difference_update(run.key for run in runs)
            # Some got through: if others did not, the pause begins anew.
            del self._outages[_BrokerAwayError]
        self.statistics.count(time.time(), *batch.tally())
        self.failing.note(
            [run.key for run in runs if run.failure is not None],
            [run.key for run in runs if run.failure is None],
        )
        batch.announce(self)

    def _publish(
        self, batch: Batch, loaded: list[Claim], stop: DeferredSignals, waits: list[float | None]
    ) -> None:
        """Run the loaded entries: as one batch where the transport can, else one by one."""
        kwargs = self._reach_broker()
        producer: Any = kwargs.get("producer")
        has_batches = getattr(producer, "supports_batch_publish", False) is True
        is_doubtful = not self._doubtful.isdisjoint(claim.key for claim in loaded)
        if self._sends_singly or is_doubtful or not has_batches:
            handfuls = (loaded[start : start + HANDFUL] for start in range(0, len(loaded), HANDFUL))
            for handful in handfuls:
                if not self._run_claims(batch, handful, kwargs, stop, waits):
                    return
                batch.commit_runs()
            return
        try:
            with producer.batch(max_size=sys.maxsize):
                self._run_claims(batch, loaded, kwargs, stop, waits)
                # Between the messages and their commit nothing is left to be worked out.
                batch.decide_runs()
                if not self._may_send(batch):
                    raise _TooLateError
        except _TooLateError:
            batch.retract()
        except LockNotOwnedError:
            batch.retract()
            raise
        except Exception as exc:
            runs = batch.runs()
            batch.retract()
            if not self._is_refusal(_raised_first(exc)):
                self._doubtful.update(run.key for run in runs)
                raise _broker_away(exc) from exc
            self._send_singly(exc)
        except BaseException:
            batch.retract()
            raise

    def _send_singly(self, exc: Exception) -> None:
        """Let the message that the broker refused fail alone, now and whenever it comes again.

        The others of its batch may have gone out, so they must not share a batch with it twice.
        """
        self._sends_singly = True
        logger.error(
            "beat: The broker refused a message of a batch (%s), and may have taken the others, "
            "which are sent again. Until beat is restarted, messages go one by one. Mend what is "
            "at that key in the broker, or let this user write it.",
            _told(exc),
        )

    def _run_claims(
        self,
        batch: Batch,
        loaded: list[Claim],
        kwargs: dict[str, Any],
        stop: DeferredSignals,
        waits: list[float | None],
    ) -> bool:
        """Give each claim its turn; ``False`` if the rest has to wait for another batch."""
        for claim in loaded:
            if stop or not self._may_send(batch):
                waits.append(0.0)
                return False
            waits.append(self._run_claim(claim, kwargs))
            if not batch.may_grow:
                return False
        return True

    def _run_claim(self, claim: Claim, kwargs: dict[str, Any]) -> float | None:
        """One entry's turn; whatever is wrong with it stays its own."""
        claim.had_turn = True
        try:
            claim.wait = self.maybe_due(claim.entry, **kwargs)
        except _NotSentError as exc:
            claim.put_off(exc.seconds)
            self._has_doubtful_channel = True
            if exc.is_news:
                told = "beat: %s. It stays due; trying again in %g seconds"
                about = ("not sent", claim.key, type(exc.__cause__))
                self.told.error(about, exc, told, exc, exc.seconds)
        except _BrokerAwayError:
            claim.advanced = None
            raise
        except (OSError, *REDIS_ERRORS) as exc:
            # An override asked a service that is away; the next try may find it.
            told = "beat: %s did not run, trying again: %r"
            self.told.error(("did not run", claim.key, type(exc)), exc, told, claim.entry, exc)
        except Exception as exc:
            claim.set_aside(exc)
        except BaseException:
            # Beat is told to end, and nobody knows whether the message is on its way.
            claim.advanced = None
            raise
        return claim.wait

    def _may_send(self, batch: Batch) -> bool:
        """Whether nobody else can run these entries; where one beat leads, only that one claims."""
        self.leadership.watchdog.expect(0)
        may_send = self.leadership.ensure_trusted() if self.lock_key else batch.may_be_sent
        return may_send and self._is_sure_of_masters() and self._is_where_it_claimed()

    def _is_sure_of_masters(self) -> bool:
        """Whether no sentinel names another master than those that beat writes to, or is about to.

        No round trip without sentinels.
        """
        return self._schedule_master.is_sure() and self._broker_master.is_sure()

    def _is_where_it_claimed(self) -> bool:
        """Whether the claims were made on this master: another one may not know of them."""
        return self._claimed_on == self._schedule_master.address

    def _may_send_unclaimed(self) -> bool:
        """Whether an override of `tick`, which claims nothing, may go on with its loop.

        A beat that was frozen in the midst of it finds here that another one leads.
        """
        self.leadership.watchdog.expect(0)
        return self.leadership.ensure_trusted() and self._is_sure_of_masters()

    def _look_ahead(self, peeked: Claim) -> float | None:
        """The wait for an entry that is due later; it is not ours to run yet."""
        if peeked.is_gone:
            if self._drop(peeked.key, peeked.score):
                self._restore_statics([peeked.key])
            return 0.0
        if peeked.was_just_given_back:
            return None
        try:
            # An override of `maybe_due` may send whatever says that it is due.
            if peeked.entry is not None and not peeked.entry.is_due()[0]:
                wait: float | None = self.maybe_due(peeked.entry, **self._reach_broker())
                return wait
        except Exception as exc:
            # It is told when the entry is due.
            logger.debug("beat: Cannot look ahead to %s: %r", peeked.entry, exc)
        return max(peeked.score - time.time(), 0.0)

    def _restore_statics(self, keys: Sequence[str]) -> None:
        """Store anew those of the keys that belong to entries of ``beat_schedule``."""
        if not keys:
            return
        schedule, gone = ensure_conf(self.app).schedule, set(keys)
        lost = {
            name: schedule[name]
            for name in schedule
            if self.Entry.generate_key(self.app, str(name)) in gone
        }
        self.update_from_dict(lost)
        self._own(map(str, lost))

    def _retry_set_aside(self, now: datetime) -> None:
        """Give entries that were set aside another try, once their definition is another one.

        A page of them per poll interval, in turn.
        """
        if time.monotonic() >= self._retries_set_aside_at:
            self._retries_set_aside_at = time.monotonic() + ensure_conf(self.app).poll_interval
            self._retried = retry_set_aside(get_storage(self.app), now, self._retried)

    def _reach_broker(self) -> dict[str, Any]:
        """What goes to :meth:`maybe_due`; making it connects to the broker."""
        try:
            kwargs = self._maybe_due_kwargs
            self._channel = getattr(kwargs.get("producer"), "channel", None)
        except Exception as exc:
            raise _broker_away(exc) from exc
        return kwargs

    @cached_property
    def connection(self) -> Any:
        """The connection to the broker, which ends a wait for an answer."""
        return connection_for_sending(self.app)

    def _forget_channel(self) -> None:
        """Let the next tick make a producer with a new channel: a closed one stays closed."""
        self._channel = None
        self.__dict__.pop("producer", None)

    def _forget_connection(self) -> None:
        """Let the next tick connect anew, and declare the queues: the broker may have lost them."""
        self._forget_channel()
        if "connection" in self.__dict__:
            self.connection.collect()

    def _ensure_connected(self) -> Any:
        return _connect_once(self.connection)

    # One entry's turn

    @property
    def _maybe_due_kwargs(self) -> dict[str, Any]:
        """The keywords that a tick hands to :meth:`maybe_due`."""
        return {"producer": self.producer}

    def maybe_due(self, entry: RedBeatSchedulerEntry, **kwargs: Any) -> float | None:
        """Send the entry's task if it is due; returns the seconds until it should be asked again.

        ``kwargs`` go to :meth:`celery.beat.Scheduler.apply_async`.
        """
        is_due, wait = entry.is_due()
        claim = getattr(entry, "claim", None)
        if claim is not None:
            claim.was_due = is_due
        elif self._is_service and not self._may_send_unclaimed():
            return wait
        if not is_due:
            return wait
        self._send(entry, claim, **kwargs)
        return wait

    def _send(self, entry: RedBeatSchedulerEntry, claim: Claim | None, **kwargs: Any) -> None:
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, **kwargs)
        except Exception as exc:
            if claim is not None:
                self._require_own_fault(entry, exc)
                self._count_failed(entry, claim, exc)
            about = ("message", entry.name, type(_raised_first(exc)))
            self.told.error(about, exc, "Scheduler: Message Error: %s", exc)
        else:
            if result is not None and hasattr(result, "id"):
                logger.debug("Scheduler: %s sent. id->%s", entry.task, result.id)
            else:
                logger.debug("Scheduler: %s sent.", entry.task)

    def _count_failed(self, entry: RedBeatSchedulerEntry, claim: Claim, exc: Exception) -> None:
        """A message that cannot be built is a run all the same, and not tried again and again."""
        claim.failure = exc
        if claim.advanced is None:
            self.reserve(entry)

    def _require_own_fault(self, entry: RedBeatSchedulerEntry, exc: Exception) -> None:
        """Return if the message cannot be built or serialised; raise if all else failed.

        What failed on its way leaves the run due, whatever the transport made of the error.
        """
        first = _raised_first(exc)
        if self._is_refusal(first) and not _is_of_files(exc):
            told = f"The broker refuses {entry.name} ({_told(exc)})"
            raise _NotSentError(told, MAX_PAUSE) from exc
        if isinstance(first, OutOfMemoryError) and not self._is_broker_full:
            # Perhaps for this message only: the next one shows.
            self._is_broker_full = True
            told = f"The broker has no room for {entry.name} ({_told(exc)})"
            raise _NotSentError(told, MAX_PAUSE) from exc
        is_news = self._broker_answers is None
        if not self._is_broker_away(exc):
            if _is_of_the_message(exc):
                return
            raise _NotSentError(f"{entry.name} was not sent ({_told(exc)})", MAX_PAUSE) from exc
        if (isinstance(first, OSError) or _is_of_files(exc)) and self._answers():
            # Of the old connection, or of a service that the task's own code asked.
            told = f"{entry.name} was not sent ({_told(exc)}), though the broker can be reached"
            raise _NotSentError(told, HELD_BACK_DELAY, is_news) from exc
        raise _broker_away(exc) from exc

    def _is_refusal(self, exc: BaseException) -> bool:
        """Whether the broker refuses this message, and no others for that."""
        if isinstance(exc, RedisError):
            return is_of_one_key(exc)
        # Some transports count the same errors among both.
        return isinstance(exc, self.connection.channel_errors) and not isinstance(
            exc, self.connection.connection_errors
        )

    def _is_broker_away(self, exc: BaseException) -> bool:
        """Whether the connection is what failed, and not the message.

        For kombu a ``KeyError``, of an unknown compression perhaps, and a file that is not found
        are lost connections. And it may connect anew while it declares a queue, and go on with the
        old, closed channel: the error of that says nothing about a connection.
        """
        if self._channel is not None and self._channel.connection is None:
            return True
        first = _raised_first(exc)
        if isinstance(first, LookupError):
            return False
        if _is_of_files(exc):
            return True
        if getattr(first, "filename", None) is not None:
            return False
        errors = (OperationalError, *self.connection.connection_errors)
        return any(isinstance(cause, errors) for cause in _causes(exc))

    def _answers(self) -> bool:
        """Whether the broker can be reached anew; asked once in a tick."""
        if self._broker_answers is None:
            try:
                with connection_for_sending(self.app) as probe:
                    _connect_once(probe)
                self._broker_answers = True
            except Exception:
                self._broker_answers = False
        return self._broker_answers

    def reserve(self, entry: RedBeatSchedulerEntry) -> RedBeatSchedulerEntry:
        """The entry after this run; see :meth:`RedBeatSchedulerEntry.next`."""
        return next(entry)

    # What this beat tells of its work

    def _report(self) -> None:
        """Tell what has changed, and from time to time that nothing has; one round trip."""
        report = self.statistics.news(time.time())
        if report is None:
            return
        try:
            get_storage(self.app).write_report(beat_name(), report.encode())
            self._has_reported = True
        except REDIS_ERRORS as exc:
            logger.debug("beat: The report of this beat was not written: %s", exc)

    def _withdraw_report(self) -> None:
        """A beat that has ended is not to be taken for one that is still there."""
        if self._has_reported:
            try:
                with patience(not_again):
                    get_storage(self.app).forget_reports([beat_name()])
            except REDIS_ERRORS as exc:
                logger.debug("beat: The report of this beat was not removed: %s", exc)

    def _forget_reports_of_the_gone(self) -> None:
        """A leader's only equals are gone; a beat that shares the work waits for a while."""
        storage, now = get_storage(self.app), time.time()
        lifetime = 0.0 if self.lock_key else REPORT_LIFETIME
        try:
            reports = decode_reports(storage.read_reports())
            gone = [name for name, report in reports.items() if not report.is_fresh(now, lifetime)]
            storage.forget_reports([name for name in gone if name != beat_name()])
        except REDIS_ERRORS as exc:
            logger.debug("beat: The reports of beats that are gone were not removed: %s", exc)

    # The lock

    def join(self, is_service: bool) -> None:
        """Begin to try for the lock: once now, then at every tick. Up to two round trips.

        ``is_service``: a running beat service drives the ticks, so a heartbeat keeps the lock, and
        what Celery looks up for each message is put where it is found at once, into ``app.conf``.
        """
        if is_service and not self._is_service:
            self._is_service = True
            settle_settings(self.app.conf)
            end_by_hang_up()
            self._assigned_tick = vars(self).get("tick")
            # Celery's service looks it up at each turn.
            self.__dict__["tick"] = self._serve
            if ensure_conf(self.app).exit_when_stalled and _is_main_thread():
                self.leadership.watchdog.end_process = os._exit
            _spare_what_stays()
        self.leadership.campaign(with_heartbeat=is_service)

    def stay_when_stalled(self) -> None:
        """Never end this process: it is not only beat's, or nobody would start it again."""
        self.leadership.watchdog.end_process = None

    def close(self) -> None:
        """Release the lock, if it is ours, and what Celery's scheduler holds; safe to repeat.

        A Redis that does not answer holds the end up for ``CLOSING_TIME`` (2) seconds at the most:
        then the lock expires of itself, and what was not committed may repeat.

        Called by a signal handler in the event loop of gevent or eventlet, it does nothing: the
        service closes once more when it ends.
        """
        if self._is_service and is_in_event_loop():
            return
        self._is_closed = True
        if not isinstance(self.lock, LeaderLock):
            # One that was given by hand knows only the thread that took it.
            self.leadership.release()
        if self._wind_up is None or not self._wind_up.is_alive():
            self._wind_up = threading.Thread(target=self._let_go, daemon=True)
            self._wind_up.start()
            self._wind_up.join(CLOSING_TIME)
        if self._wind_up.is_alive():
            self.leadership.abandon()
            logger.warning("beat: Redis does not answer. The lock was left to expire.")
        elif self._has_let_go:
            log_release()
        self._leave_office()
        self.rest.close()
        self._schedule_master.close()
        self._broker_master.close()
        if self._is_service:
            _spare_no_more()
        super().close()

    def _let_go(self) -> None:
        """Commit, and let the lock go, without a word if all is well.

        The main thread may have been told to end while it was logging: then others cannot log.
        """
        self._has_let_go = False
        try:
            with patience(not_again):
                self._settle()
                if self._lease is not None:
                    limit, now = ensure_conf(self.app).batch_size, as_utc(self.app.now())
                    release_lease(get_storage(self.app), self._lease, limit, now)
            self._has_let_go = self.leadership.let_go()
        except Exception as exc:
            self.leadership.abandon()
            logger.warning("beat: The last runs were not committed, they may repeat: %s", exc)
        else:
            self._withdraw_report()


#: As they were made: subclasses override them, and programs patch them on the class.
_TICK = RedBeatScheduler.tick
_SCHEDULE = RedBeatScheduler.schedule
_SETUP_SCHEDULE = RedBeatScheduler.setup_schedule


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _spare_what_stays() -> None:
    """Let garbage collections pass over what is there by now: the program and its modules.

    Looking through all of it takes longer than a tick.
    """
    # PyPy's collector has no such stop.
    if hasattr(gc, "freeze"):
        gc.collect()
        gc.freeze()


def _spare_no_more() -> None:
    """What is not needed any more, as a scheduler that is closed, can be collected again.

    Finalizers run in the collector's order, and alone ``unfreeze`` puts what is old behind what is
    new: then a socket would go, with a warning, before the connection that closes it. So all that
    is new is made one generation, frozen behind the old, and thawed with it.
    """
    if hasattr(gc, "unfreeze"):
        gc.collect()
        gc.freeze()
        gc.unfreeze()


def _usable_lock_timeout(conf: RedBeatConfig, lock_key: str | None) -> float | None:
    """The configured one; where there is no lock, one that cannot work counts as none."""
    setting, value = SETTINGS["redbeat_lock_timeout"], conf.lock_timeout
    if lock_key:
        setting.check(value)
    return value if setting.accepts(value) else None


def _report_gone(keys: Sequence[str]) -> None:
    """Log that members of the schedule have no entry, and go; many of them in one line."""
    if len(keys) > NAMED:
        logger.error(
            "beat: Failed to load %d entries: their hashes are gone: %s and others. Removing them.",
            len(keys),
            first_names(keys),
        )
        return
    for key in keys:
        logger.error("beat: Failed to load %s: its hash is gone. Removing it.", key)


def _check_server(app: Any) -> tuple[bool, list[str]]:
    """Whether the server was reached, and what :func:`~redbeat.checks.check_key_expiry` found."""
    conf = ensure_conf(app)
    try:
        client = get_redis(app)
    except REDIS_ERRORS as exc:
        # Of a cluster: another client connects with its first command.
        if conf.key_expiry_check == "raise":
            raise
        logger.error("beat: Cannot reach Redis at %s: %s", sanitized(conf.redis_url), exc)
        return False, []
    require_known_options(app)
    with get_storage(app).turn():
        return check_version(client), check_key_expiry(client, conf.key_expiry_check)


def _is_same(entry: RedBeatSchedulerEntry, stored: RedBeatSchedulerEntry) -> bool:
    """Whether saving would change nothing; what a ``save`` of a subclass stores is not known."""
    return (
        type(entry).save is RedBeatSchedulerEntry.save
        and entry.encode_definition() == stored.encode_definition()
        and entry.encode_zones() == stored.encode_zones()
    )


def _connect_once(connection: Any) -> Any:
    """Connect in one try: the ticks pace the tries, and nothing stays claimed in between."""
    return connection.ensure_connection(max_retries=1, interval_start=0)


def _broker_away(exc: BaseException) -> _BrokerAwayError:
    answers = isinstance(_raised_first(exc), ResponseError)
    failure = "takes no messages" if answers else "cannot be reached"
    return _BrokerAwayError(f"The broker {failure} ({_told(exc)})")


def _clocks() -> tuple[float, float]:
    """The clock that may be set, and the one that may stand still while the machine sleeps."""
    return time.time(), time.monotonic()


def _passed_since(began: tuple[float, float]) -> float:
    """The seconds since :func:`_clocks` read so, by the one of them that says more."""
    return max(now - then for now, then in zip(_clocks(), began, strict=True))


def _told(exc: BaseException) -> str:
    """What an error says, without secrets."""
    reason: BaseException = exc
    while reason.__cause__ is not None:
        reason = reason.__cause__
    if type(reason) is ValueError:
        # What the URL parser says may quote a part of the password.
        return "its URL is malformed"
    first = _raised_first(reason)
    if isinstance(first, AttributeError) and "'NoneType' object" in str(first):
        # kombu went on with a channel whose connection is gone.
        return "the connection was lost"
    return str(without_secrets(reason)) or type(reason).__name__


def _raised_first(exc: BaseException) -> BaseException:
    """The error that Celery and kombu have wrapped into their own."""
    wrappers = (SchedulingError, KombuError)
    return next((cause for cause in _causes(exc) if not isinstance(cause, wrappers)), exc)


def _is_of_the_message(exc: BaseException) -> bool:
    """Whether a message cannot be built or serialised; some transports serialise as they send."""
    is_of_transport = any(map(is_of_sending, _causes(exc)))
    return not is_of_transport or isinstance(_raised_first(exc), OWN_FAULTS)


def _is_of_files(exc: BaseException) -> bool:
    """Whether a broker that consists of files could not be written, as while its folder is away."""
    causes = list(_causes(exc))
    return any(map(is_of_sending, causes)) and any(
        isinstance(cause, OSError) and cause.filename is not None for cause in causes
    )


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


@beat_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def acquire_distributed_beat_lock(sender: Any = None, **kwargs: Any) -> None:
    """The ``beat_init`` hook: from here on the sender's scheduler tries to lead.

    Takes the lock if it is free. Raises what redis-py raises if Redis cannot be reached. Where a
    beat service sends the signal it is logged instead, in one line: the ticks try again.
    """
    # A stand-in that only passes for a service does not drive ticks from a loop of its own.
    is_service = issubclass(type(sender), Service)
    try:
        if isinstance(sender.scheduler, RedBeatScheduler):
            ensure_conf(sender.scheduler.app).repeat_warnings()
            sender.scheduler.join(is_service)
    except REDIS_ERRORS as exc:
        if is_service and "signal" in kwargs:
            # The service looks at no answer, and Celery would log a traceback.
            logger.error(
                "beat: Redis at %s is unavailable: %s. This beat stands by and tries again at "
                "every tick.",
                sanitized(ensure_conf(sender.scheduler.app).redis_url),
                str(without_secrets(exc)).rstrip("."),
            )
            return
        # Celery logs it with its traceback; what redis-py did inside says nothing more.
        raise exc.with_traceback(None) from None


@beat_embedded_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _keep_embedded_beat(sender: Any = None, **kwargs: Any) -> None:
    """In a worker nobody starts a beat again that has ended."""
    if isinstance(sender.scheduler, RedBeatScheduler):
        sender.scheduler.stay_when_stalled()
