"""The package joined to Celery: its settings, the client, entries, the scheduler and its hook."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import MINYEAR, datetime
from functools import cached_property, partial
from typing import Any

import celery.schedules
from celery.app import app_or_default
from celery.beat import ScheduleEntry, Scheduler, Service
from celery.schedules import BaseSchedule, schedstate
from celery.signals import beat_embedded_init, beat_init
from celery.utils.log import get_logger
from celery.utils.time import humanize_seconds
from redis import Redis
from redis.exceptions import LockNotOwnedError
from redis.sentinel import Sentinel

from .beat import entries
from .beat.batch import Claim
from .beat.broker import connect_once
from .beat.faults import BrokerAwayError, raised_first
from .beat.greenlets import is_in_event_loop
from .beat.guarantees import foresee
from .beat.holder import Holder, read_holder
from .beat.identity import Run, run_of
from .beat.interrupts import hold_back_signals
from .beat.loop import STANDBY_INTERVAL, prepare_process
from .beat.parts import Parts
from .beat.publishing import connection_for_sending, preparing_class
from .beat.rest import Outlook
from .beat.settings import Settings
from .beat.statics import Stage
from .decoder import RedBeatJSONDecoder, RedBeatJSONEncoder, to_timestamp, without_zones, zones_of
from .errors import EntryError
from .schedules import bound
from .store.access import REDIS_ERRORS
from .store.clients import Classes, ForkSafeLock, connect
from .store.commands import text
from .store.escaping import escape_log, one_line
from .store.records import Draft, Stored
from .store.retrying import RetryingConnection, is_of_one_key, patience, without_secrets
from .store.scripts import EXTEND_TO
from .store.sentinels import HOLDING_INTERVAL
from .store.storage import Storage
from .store.urls import sanitized
from .timing.due import due_state, interval_due_at, next_due, own_now
from .timing.history import last_run_of_new, run_to_count_from
from .timing.instants import as_utc

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

#: Celery's own default of ``beat_max_loop_interval``, in seconds; 2.x has it here.
DEFAULT_MAX_INTERVAL = 300

#: Seconds until a disabled entry is looked at again.
DISABLED_CHECK_INTERVAL = 5.0

#: The attributes of an entry that say under what it runs, and not what it is.
OF_ONE_RUN = ("claim", "_made_by", "_made_in")


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
        with _client_lock.current:
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


def get_storage(app: Any = None) -> Storage:
    """The application's schedule in Redis, for the client and the keys that it has now."""
    app = app_or_default(app)
    conf, client = ensure_conf(app), get_redis(app)
    storage: Storage | None = getattr(app, "redbeat_storage", None)
    if storage is None or storage.client is not client or storage.keys != conf.own_keys:
        storage = app.redbeat_storage = Storage(client, conf.own_keys)
    return storage


# Entries


class RedBeatSchedulerEntry(ScheduleEntry):  # type: ignore[misc]  # Celery has no types
    """What runs and when: a task, its arguments and a schedule, stored under a name.

    ``schedule`` is a Celery schedule or seconds; ``last_run_at`` may be naive (UTC) or ``None``
    (never run). ``clsargs`` go to :class:`celery.beat.ScheduleEntry`. Making an entry costs no
    round trip; nothing is stored before :meth:`save`.
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

    #: The claim under which a tick made the run after which this is the entry; and that run, where
    #: runs are identified.
    _made_by: Claim | None = None
    _made_in: Run | None = None

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
            # Celery sets the app, and leaves the time zone that a schedule took from another one.
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
        """When it runs, as a schedule bound to the entry's app.

        Seconds or a ``timedelta`` that are assigned become an interval.
        """
        fields = self.__dict__
        schedule, app = fields.get("schedule"), fields.get("app")
        # Celery's `update` writes it into the instance, and the app may have changed since.
        if app is not None and getattr(schedule, "_app", None) is not app:
            schedule = fields["schedule"] = bound(schedule, app)
        return schedule

    @schedule.setter
    def schedule(self, schedule: Any) -> None:
        self.__dict__["schedule"] = bound(schedule, self.__dict__.get("app"))

    # Reading

    @staticmethod
    def generate_key(app: Any, name: str) -> str:
        """The key of the hash of the entry with this name."""
        return ensure_conf(app).key_prefix + name

    @property
    def key(self) -> str:
        """The key of this entry's hash."""
        return self.generate_key(app=self.app, name=self.name)

    @staticmethod
    def decode_definition(definition: str) -> dict[str, Any]:
        """The fields in a stored ``definition``, as text or bytes.

        Raises ``ValueError`` if it is malformed.
        """
        return entries.decode_fields(text(definition), json_decoder())

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
        return entries.zoned(cls.decode_definition(stored.definition), stored.zones)

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

        ``key`` may be bytes. Raises ``KeyError(key)`` if there is no entry; ``ValueError`` or
        ``TypeError`` if it is malformed, or if the ACL of Redis refuses the key.
        """
        (stored,) = get_storage(app).read_entries([text(key)])
        return cls.from_stored(key, stored, app)

    @classmethod
    def from_stored(cls, key: str, stored: Stored, app: Any = None) -> RedBeatSchedulerEntry:
        """The entry whose hash at ``key`` has been read; raises as :meth:`from_key` does."""
        return entries.build(cls, key, stored, app, ensure_conf(app).key_prefix)  # type: ignore[no-any-return]

    # Time

    def now(self) -> datetime:
        """The schedule's clock: aware, UTC."""
        return as_utc(self.default_now())

    @property
    def due_at(self) -> datetime | None:
        """When this entry is due, aware; now if it is overdue, ``None`` if nothing is left."""
        now = self.now()
        is_plain = type(self.schedule) is celery.schedules.schedule and not self.schedule.relative
        if self.last_run_at is not None and is_plain:
            return interval_due_at(self.schedule, self.last_run_at, now)
        due = self.next_due(now)
        return None if due is None else max(due, now)

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
        if not self.enabled:
            state: tuple[bool, float | None] = schedstate(False, DISABLED_CHECK_INTERVAL)
        else:
            state = due_state(self.schedule, self._run_to_count_from, now)
        return state

    # Writing

    def save(self) -> RedBeatSchedulerEntry:
        """Store this entry and return it; one round trip if it is new, else two.

        What is stored about its runs stays, and the next due time follows from that: saving an
        entry again does not reset its timer. Raises :exc:`~redbeat.errors.EntryError` (a
        ``TypeError`` and a ``ValueError``), with nothing written, if it has no application, no
        task, something that JSON cannot hold or that can never be sent, or a name whose key is
        reserved.
        """
        if self._made_by is not None and self._made_by.advanced is self:
            # An override saves what a tick has advanced and not committed: its run counts.
            self._store_run()
        entries.store(lambda: get_storage(self.app), [self], as_utc(app_or_default(self.app).now()))
        return self

    def draft(self, now: datetime, seen_meta: str = "") -> Draft:
        """This entry as it is to be stored at ``now`` (aware); raises as :meth:`save` does.

        ``seen_meta`` is what is stored about its runs: it overrides what this entry says of them.
        """
        if self.app is None and not _has_current_app():
            raise EntryError(
                f"Entry {self.name!r} cannot be stored: it has no app. Give it app=..., or make an "
                "application current first."
            )
        ensure_conf(self.app).refuse_own_key(self.name, self.key)
        return entries.draft(self, now, seen_meta)

    def _is_stored_as(self, stored: RedBeatSchedulerEntry) -> bool:
        """Whether saving would change nothing; never, if a subclass has a ``save`` of its own."""
        return (
            type(self).save is RedBeatSchedulerEntry.save
            and self.encode_definition() == stored.encode_definition()
            and self.encode_zones() == stored.encode_zones()
        )

    @property
    def has_own_score(self) -> bool:
        """Whether a subclass decides when its entries are due."""
        ours, its = RedBeatSchedulerEntry, type(self)
        return its.score is not ours.score or its.due_at is not ours.due_at

    def _score_at(self, now: datetime) -> int:
        """What :attr:`score` is at ``now``, for many entries with one reading of the clock.

        An interval is due a whole interval after its last run, however long ago ``now`` was read.
        """
        if self.has_own_score:
            return self.score
        due = self.next_due(now)
        return -1 if due is None else to_timestamp(max(due, own_now(self.schedule, now)))

    def delete(self) -> None:
        """Remove this entry for good; one round trip.

        Raises :exc:`~redbeat.errors.EntryError` if its key is reserved.
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
        made_in = run_of(self) if ensure_conf(self.app).identify_runs else None
        if self.claim is not None:
            last_run_at = last_run_at or self.claim.ran_at
        advanced: RedBeatSchedulerEntry = super()._next_instance(last_run_at=last_run_at)
        if only_update_last_run_at:
            advanced.total_run_count = self.total_run_count
        if self.claim is not None:
            self.claim.advanced = advanced
            advanced._made_by, advanced._made_in = self.claim, made_in
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

    # JSON

    def encode_definition(self) -> str:
        """The ``definition`` to be stored; raises :exc:`~redbeat.errors.EntryError`."""
        return entries.encode_definition(self, without_zones(self.schedule), encode_json)

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

    def __repr__(self) -> str:
        return one_line(super().__repr__())

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), dict(self))

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """The fields from which Celery makes the next instance, without those of a single run."""
        return ((name, value) for name, value in vars(self).items() if name not in OF_ONE_RUN)


def _rebuild(cls: type[RedBeatSchedulerEntry], fields: dict[str, Any]) -> RedBeatSchedulerEntry:
    entry = cls(**fields)
    entry.last_run_at = fields["last_run_at"]
    return entry


def _unbound(method: Any) -> Any:
    """The function of a class method, which is bound again at each access; else what it is."""
    return getattr(method, "__func__", method)


_FROM_KEY = _unbound(RedBeatSchedulerEntry.from_key)


def make_entry(cls: Any, key: str, stored: Stored, app: Any) -> Any:
    """The entry of this class at ``key``; one round trip if it has a ``from_key`` of its own."""
    if _unbound(cls.from_key) is _FROM_KEY:
        entry = cls.from_stored(key, stored, app=app)
    else:
        entry = cls.from_key(key, app=app)
    return entries.take_lazy_functions(entry, ensure_conf(app))


def json_decoder() -> Any:
    """A decoder of the class that :data:`RedBeatJSONDecoder` in this module is now."""
    hook = getattr(RedBeatJSONDecoder, "dict_to_object", None)
    return entries.decoder_of(RedBeatJSONDecoder, hook)


def encode_json(value: Any, **options: Any) -> str:
    """JSON by the class that :data:`RedBeatJSONEncoder` in this module is now.

    ``options`` are those of :func:`json.dumps`.
    """
    encoder = RedBeatJSONEncoder(**options) if options else entries.encoder_of(RedBeatJSONEncoder)
    encoded: str = encoder.encode(value)
    return encoded


def _has_current_app() -> bool:
    """Whether the current app is one that somebody made: Celery makes up an unconfigured one."""
    app = app_or_default()
    return (
        app.main != "default"
        or getattr(app, REDBEAT_REDIS_KEY, None) is not None
        or ensure_conf(app).redis_url is not None
    )


# The scheduler


class RedBeatScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types
    """Runs what is due in Redis; several may run, of which the holder of the lock leads.

    ``lock_key``, ``lock_timeout`` (seconds) and ``lock`` may be assigned, and count from the next
    tick on. Other keywords go to :class:`celery.beat.Scheduler`.
    """

    Entry = RedBeatSchedulerEntry

    #: The lock this scheduler holds, ``None`` until it leads.
    lock: Any = None

    #: What the last tick left behind; ``None``: only overrides have run.
    outlook: Outlook | None = None

    #: A ``tick`` that was assigned to this scheduler and not defined in its class.
    _assigned_tick: Callable[[], Any] | None = None

    _is_closed = False
    #: Whether the constructor is done: only then does `setup_schedule` remove anything.
    _is_built = False

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
        self.redbeat_parts = Parts(
            self,
            lambda: ensure_conf(app),
            lambda: get_redis(app),
            lambda: get_storage(app),
            lambda key, stored: make_entry(self.Entry, key, stored, app),
            logger,
        )
        super().__init__(app, lazy=True, **kwargs)
        self.Producer: Any = preparing_class(self.Producer)
        configured = conf.usable_lock_timeout(self.lock_key)
        self.lock_timeout = lock_timeout or configured or self.max_interval * 5
        if not lazy:
            # Celery's handlers would build a second scheduler in the middle of this one.
            with hold_back_signals():
                self.redbeat_parts.statics.store_at_start()
        if self._may_connect and self.redbeat_parts.server.is_reached is None:
            self.redbeat_parts.server.check()
        self._is_built = True

    @property
    def key_expiry_findings(self) -> list[str]:
        """What the server may do to the schedule; see :func:`redbeat.checks.check_key_expiry`."""
        return self.redbeat_parts.server.findings

    @key_expiry_findings.setter
    def key_expiry_findings(self, findings: list[str]) -> None:
        self.redbeat_parts.server.findings = findings

    @property
    def info(self) -> str:
        """Lines of the start-up banner, on the server, the lock, the delivery and what is wrong.

        One round trip to ask who holds the lock, and up to two to ask whether the broker is on the
        same server.
        """
        lines = [f"redis -> {sanitized(ensure_conf(self.app).redis_url)}"]
        if self.lock_key:
            timeout = humanize_seconds(self.lock_timeout)
            lines.append(f"lock -> `{self.lock_key}` {timeout} ({self.lock_timeout:g}s)")
            # A banner must not keep beat from starting.
            with suppress(Exception):
                holder = self._read_leader() if self._may_connect else None
                lines += [f"leader -> {holder}"] if holder else []
        lines.append(f"delivery -> {self._foresee_delivery()}")
        lines += [f"WARNING: {finding}" for finding in self.key_expiry_findings]
        return "\n".join(f"       . {one_line(line)}" for line in lines)

    def _foresee_delivery(self) -> str:
        with suppress(Exception):
            if self._may_connect:
                access = get_storage(self.app).access
                with access.turn():
                    return foresee(self.app, access.direct).value
        return "to be found out with the first run"

    def _read_leader(self) -> Holder | None:
        return read_holder(get_storage(self.app), self.lock_key) if self.lock_key else None

    @property
    def _may_connect(self) -> bool:
        """Whether the client is known: a `setup_schedule` of a subclass may bring its own."""
        has_client = getattr(self.app, REDBEAT_REDIS_KEY, None) is not None
        return has_client or _unbound(type(self).setup_schedule) is _SETUP_SCHEDULE

    # Static entries

    def setup_schedule(self) -> None:
        """Store ``beat_schedule``, and remove what was stored from an earlier one.

        In the constructor nothing is removed, for a program that only looks at the schedule may
        have a different ``beat_schedule`` from beat's; and while another beat leads, nothing is
        stored. That is the leader's business.
        """
        conf = ensure_conf(self.app)
        if self.redbeat_parts.server.is_reached is None:
            self.redbeat_parts.server.check()
        self.install_default_entries(conf.schedule)
        if not self._is_built and (leader := self._read_leader()):
            self.redbeat_parts.statics.stage = Stage.DEFERRED
            logger.info(
                "beat: beat_schedule is not stored: %s leads. This beat stores its own as soon as "
                "it leads.",
                leader,
            )
            return
        self.redbeat_parts.statics.store(may_remove=self._is_built)

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Store entries given as in ``beat_schedule``; one that cannot be built is left out."""
        scores = self.redbeat_parts.statics.read_scores(dict_)
        for name, fields in dict_.items():
            try:
                entry = self.redbeat_parts.statics.store_one(name, fields, scores.get(name))
                logger.debug("beat: Stored entry: %s", entry)
            except Exception as exc:
                if isinstance(exc, REDIS_ERRORS) and not is_of_one_key(exc):
                    raise
                logger.error(ADD_ENTRY_ERROR, name, exc, fields)

    # The schedule

    @property
    def schedule(self) -> dict[str, RedBeatSchedulerEntry]:
        """The due entries and the first that is due within ``max_interval``, by name.

        A view, two round trips: changing it stores nothing. A key without an entry is removed.
        """
        now = as_utc(self.app.now()).timestamp()
        members = get_storage(self.app).read_due(now, now + self.max_interval)
        return {entry.name: entry for entry in self.redbeat_parts.loader.load(members)}

    @schedule.setter
    def schedule(self, schedule: Any) -> None:
        """Celery's base class assigns one; ours is in Redis."""

    def _own_schedule(self) -> dict[str, Any] | None:
        """What a ``schedule`` of a subclass shows, by key; ``None`` if it is ours.

        Such a class decides there what may run, as it could with 2.x.
        """
        if type(self).schedule is _SCHEDULE:
            return None
        return {entry.key: entry for entry in self.schedule.values()}

    # One tick

    def tick(self, min: Callable[..., Any] = min, **kwargs: Any) -> float:
        """Run all that is due, and return the seconds until the next tick is wanted.

        A beat that does not lead runs nothing. While Redis or the broker is away, what is due stays
        due, and the pauses grow up to half a minute.
        """
        self._end_if_closed()
        self.redbeat_parts.leadership.watchdog.expect(0)
        with patience(self.redbeat_parts.leadership.patience()):
            outlook = self.outlook = self._work(min)
        self.redbeat_parts.leadership.watchdog.expect(outlook.wait)
        return outlook.wait

    def _work(self, min_: Callable[..., Any]) -> Outlook:
        parts = self.redbeat_parts
        parts.broker.begin_tick()
        try:
            if not parts.masters.are_sure():
                return Outlook(HOLDING_INTERVAL)
            parts.dispatcher.settle()
            if not parts.office.lead():
                return Outlook(STANDBY_INTERVAL)
            logger.debug("beat: Selecting tasks")
            outlook = parts.dispatcher.run_due(parts.rest.read_now(self.app.now()), min_)
        except LockNotOwnedError:
            # Only for a lock that was assigned by hand: there is no campaign that could go on.
            raise
        except REDIS_ERRORS as exc:
            return parts.pauses.after(exc)
        except BrokerAwayError as exc:
            parts.broker.disconnect()
            return parts.pauses.after(exc)
        parts.pauses.end()
        parts.broker.renew()
        return outlook

    def _current_tick(self) -> tuple[Callable[[], Any], bool]:
        """The tick that a beat service calls now, and whether it is ours: people replace it."""
        if self._assigned_tick is not None:
            return self._assigned_tick, False
        return partial(type(self).tick, self), type(self).tick is _TICK

    def _end_if_closed(self) -> None:
        """End a beat service whose scheduler is closed.

        Celery's signal handler closes it and raises ``SystemExit`` wherever the program happens to
        be. In a destructor Python drops that, and beat would go on for ever.
        """
        if self.redbeat_parts.office.is_of_service and self._is_closed:
            raise SystemExit

    # One entry's turn

    @property
    def _maybe_due_kwargs(self) -> dict[str, Any]:
        """The keywords that a tick hands to :meth:`maybe_due`."""
        return {"producer": self.producer}

    @cached_property
    def connection(self) -> Any:
        """The connection to the broker, with time-outs."""
        return connection_for_sending(self.app)

    def _forget_producer(self) -> None:
        """Make a new producer, with a new channel, on the next use."""
        self.__dict__.pop("producer", None)

    def _ensure_connected(self) -> Any:
        return connect_once(self.connection)

    def maybe_due(self, entry: RedBeatSchedulerEntry, **kwargs: Any) -> float | None:
        """Send the entry's task if it is due; returns the seconds until it should be asked again.

        ``kwargs`` go to :meth:`celery.beat.Scheduler.apply_async`.
        """
        is_due, wait = entry.is_due()
        claim = getattr(entry, "claim", None)
        if claim is not None:
            claim.was_due = is_due
        elif self.redbeat_parts.office.is_of_service and not (
            # A beat that was frozen in its own loop finds out here that another one leads.
            self.redbeat_parts.office.is_trusted() and self.redbeat_parts.masters.are_sure()
        ):
            return wait
        if is_due:
            self._send(entry, claim, **kwargs)
        return wait

    def _send(self, entry: RedBeatSchedulerEntry, claim: Claim | None, **kwargs: Any) -> None:
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, **kwargs)
        except Exception as exc:
            if claim is not None:
                self.redbeat_parts.broker.require_own_fault(entry, exc)
                # A message that cannot be built counts as a run, and is not tried again and again.
                claim.failure = exc
                if claim.advanced is None:
                    self.reserve(entry)
            about = ("message", entry.name, type(raised_first(exc)))
            self.redbeat_parts.log.error(about, exc, "Scheduler: Message Error: %s", exc)
        else:
            if result is not None and hasattr(result, "id"):
                logger.debug("Scheduler: %s sent. id->%s", entry.task, result.id)
            else:
                logger.debug("Scheduler: %s sent.", entry.task)

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Send the entry's task, see :meth:`celery.beat.Scheduler.apply_async`.

        With ``redbeat_identify_runs``, what a tick sends has the identity of its run.
        """
        # Asked for first: the slot follows from the entry as it is before it is reserved.
        run = run_of(entry) if self._identifies(entry) else None
        if run is None:
            return super().apply_async(entry, *args, **kwargs)
        return self._send_identified(run, entry, *args, **kwargs)

    def _identifies(self, entry: Any) -> bool:
        return isinstance(entry, RedBeatSchedulerEntry) and ensure_conf(self.app).identify_runs

    def _send_identified(
        self, run: Run, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        message = run.message(self.reserve(entry) if advance else entry)
        return super().apply_async(message, producer=producer, advance=False, **kwargs)

    def reserve(self, entry: RedBeatSchedulerEntry) -> RedBeatSchedulerEntry:
        """The entry after this run; see :meth:`RedBeatSchedulerEntry.next`."""
        return next(entry)

    # The beginning and the end

    def join(self, is_service: bool) -> None:
        """Start trying for the lock: once now, then at every tick. Up to two round trips.

        ``is_service``: a running beat service drives the ticks, so a heartbeat keeps the lock, and
        what Celery looks up for each message is put where it is found at once, into ``app.conf``.
        """
        if is_service and not self.redbeat_parts.office.is_of_service:
            self.redbeat_parts.office.is_of_service = True
            self._assigned_tick = vars(self).get("tick")
            # Celery's service looks it up at each turn.
            self.__dict__["tick"] = self.redbeat_parts.loop.turn
            prepare_process(ensure_conf(self.app), self.redbeat_parts.leadership.watchdog)
        self.redbeat_parts.leadership.campaign(with_heartbeat=is_service)

    def close(self) -> None:
        """Release the lock, if it is ours, and what Celery's scheduler holds; safe to repeat.

        Waits at most two seconds for a Redis that does not answer: then the lock expires, and what
        was not committed may repeat. Called by a signal handler in the event loop of gevent or
        eventlet, it does nothing: the service closes once more when it ends.
        """
        if self.redbeat_parts.office.is_of_service and is_in_event_loop():
            return
        self._is_closed = True
        self.redbeat_parts.closing.run()
        self.redbeat_parts.office.leave()
        self.redbeat_parts.rest.close()
        self.redbeat_parts.masters.close()
        super().close()


#: As they were made: subclasses override them, and programs patch them on the class.
_TICK = RedBeatScheduler.tick
_SCHEDULE = RedBeatScheduler.schedule
_SETUP_SCHEDULE = RedBeatScheduler.setup_schedule
OWN_SENDERS = (RedBeatScheduler.apply_async, RedBeatScheduler.send_task)


@beat_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def acquire_distributed_beat_lock(sender: Any = None, **kwargs: Any) -> None:
    """The ``beat_init`` hook: from here on the sender's scheduler tries to lead.

    Takes the lock if it is free. Raises what redis-py raises if Redis is unavailable. Where a beat
    service sends the signal, that is logged instead, in one line: the ticks try again.
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
    """Never end the process of a worker: nobody would start the beat in it again."""
    if isinstance(sender.scheduler, RedBeatScheduler):
        sender.scheduler.redbeat_parts.leadership.watchdog.end_process = None
