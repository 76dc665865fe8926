"""The schedule in Redis: every key, every command and every script of the package.

An entry is a hash, ``<prefix><name>``, with the fields ``definition`` and ``meta`` (JSON that other
modules write and read); ``zones``, JSON too, if the definition cannot say all of its time zones;
while it is set aside ``set_aside``; and, if it came from the ``beat_schedule`` of an application,
``owner``: the name of that. The schedule is one sorted set of
these keys by due time, in seconds since the epoch, UTC. A score below zero is never due: ``-1`` for
an entry with nothing left to run, ``-2`` for one that is set aside.

What must be atomic is a Lua script (``redbeat/store/lua``), called by its digest and loaded again
when the server has forgotten it. A server without scripting gets the same steps as plain commands,
with one warning: two beats that share a schedule on it may then run an entry twice.

A user of Redis needs the commands that celery-redbeat 2.x needs. All others are optional: where its
ACL refuses one, the feature is off, with one warning per command (:data:`OPTIONAL`).

A key that Redis refuses, by its ACL or since it holds no hash, concerns itself alone: the unit is
done again without it, and tells of it (:class:`Written`), warns, or raises in the end. Only what is
stored as one change is stored as a whole or not at all. The error names the key.

A script touches the keys of one slot. Where the hashes and the schedule live in different slots (a
Redis Cluster, or a proxy before one, and a prefix without a ``{hash tag}``), a change to both takes
two steps, in the order that loses nothing: hash first, schedule second.

Each method of :class:`Storage` that talks to Redis is one *unit*: when the connection breaks in the
midst of it, nobody knows whether the server has done it, so it is done again as a whole
(``retrying.py`` says when, and for how long). That it may be done twice:

* what reads changes nothing; deleting, discarding, rescheduling and setting statics end in the same
  state;
* saving finds its own meta the second time, and its caller saves once more with that; an edit that
  compares definitions knows its own again;
* a claim bears a lease of its own: asked for again with the same one, it gives the same entries. If
  it is given up instead, they are due again when the lease ends;
* a commit compares with the lease, which the first one has taken away, and with the meta that was
  loaded;
* who takes, takes over or renews the lock bears a token of its own, and knows it again.

Only releasing the lock is tried once: a beat that is told to end must not wait.

A client may be limited to a few connections. Where they are fewer than a beat can use at once, the
threads of a process take turns, a unit each; with a single one there is no subscription.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, wraps
from importlib import resources
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from celery.utils.log import get_logger
from redis.client import NEVER_DECODE
from redis.exceptions import (
    ClusterCrossSlotError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from .escaping import one_line
from .retrying import SAYS, direct, error_code, is_of_one_key, run_unit, said

logger = get_logger("celery.beat")

#: What lies between the two leases of a claim, see :func:`lease_of`.
OTHER_LEASE = 0.5

FINISHED = -1.0
SET_ASIDE = -2.0

#: A redis-py client, plain, cluster or sentinel; a fake of one; or a wrapper around one.
Client = Any

Key = str | bytes

#: All that redis-py raises: of a cluster it has a second root.
REDIS_ERRORS = (RedisError, RedisClusterException)

Result = TypeVar("Result")
Item = TypeVar("Item")

#: How many entries one script changes at the most: other clients wait for its end.
SCRIPT_SIZE = 1000

#: How many entries are read first where nobody knows how large they are, and by which factor more
#: the next time, if those are small.
FIRST_PART = 4
GROWTH = 16
Arguments = ParamSpec("Arguments")

#: A hash tag: keys with the same one share a slot. See
#: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags.
HASH_TAG = re.compile(r"[^{]*\{([^}]+)\}")

#: What a claim says of its bound: some was left for it, or nobody knows.
CUT, SIZES_UNKNOWN = 1, 2

#: Where in a script an error came up, as a server tells it: that helps nobody who reads of a key.
SCRIPT_PLACE = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.?$|^.*@user_script: ?\d+: ")

#: Seconds at the most for forgetting changes that the next tick sees anyway.
DRAIN_TIME = 0.05

#: Seconds between two questions whether a subscription is alive: an idle beat sends few commands.
#: Seconds for the answer: less than the default poll interval, which is how long a sleep lasts.
ASKING_INTERVAL = 30.0
ANSWERING_TIME = 3.0

#: Commands that a user of Redis may lack, and what is lost without each.
OPTIONAL = {
    "HGETALL": "what beats report of their work, as their runs and delays, cannot be read",
    "PUBLISH": "beat notices what is changed here within redbeat_poll_interval, not at once",
    "SUBSCRIBE": "beat notices changes within redbeat_poll_interval, not at once",
}

#: How many connections a beat uses at once: its main thread, the heartbeat, the subscription, and
#: the thread that closes it, while the main thread was interrupted.
CONNECTIONS_AT_ONCE = 4

#: For redis-py: leave a reply as bytes. Others may have written what is no UTF-8, and one such
#: entry must not keep the rest from being read.
UNDECODED = {NEVER_DECODE: True}


class Script(NamedTuple):
    """A Lua script, the SHA-1 digest under which a server knows it, its file, and what it does."""

    text: str
    digest: str
    name: str
    step: str


def load_script(name: str, step: str) -> Script:
    """Read ``redbeat/store/lua/<name>.lua``."""
    text = resources.files("redbeat.store").joinpath("lua", f"{name}.lua").read_text()
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), name, step)


#: What a server may refuse a script with, as redis-py raises it.
REFUSALS = (ResponseError, NoPermissionError, OutOfMemoryError, ReadOnlyError)

#: How many keys of a refused script are named.
NAMED_KEYS = 3

#: A script with its keys and arguments.
Call = tuple[Script, Sequence[Key], Sequence[Any]]

CHECK = load_script("check", "find out which entries may be written")
CLAIM = load_script("claim", "claim what is due")
ADVANCE = load_script("advance", "write the next due times")
RECORD = load_script("record", "write what became of runs")
SAVE = load_script("save", "store entries")
DELETE = load_script("delete", "remove entries")
DISCARD = load_script("discard", "remove entries")
OWN = load_script("own", "note whose entries these are")
RESCHEDULE = load_script("reschedule", "store a run")
EXTEND_TO = load_script("extend_to", "renew the lock")
RELEASE = load_script("release", "release the lock")
TAKE_OVER = load_script("take_over", "take over the lock")


class Member(NamedTuple):
    """One member of the schedule: an entry's key and its score."""

    key: str
    score: float


class OwnKeys(NamedTuple):
    """What a schedule goes by in Redis beside its entries; no entry is at one of them."""

    schedule_key: str
    statics_key: str
    channel: str
    reports_key: str
    lock_key: str | None
    zone_key: str | None = None
    failing_key: str = ""
    lost_key: str = ""

    @classmethod
    def of(cls, owner: Any) -> OwnKeys:
        """Those of a configuration or of a storage, which have them as attributes."""
        return cls(*(getattr(owner, name) for name in cls._fields))


class Trace(NamedTuple):
    """What shows whether Redis has lost the schedule.

    ``members`` are the first of the schedule, ``has_note`` says whether a leader's time zone is
    noted, and ``told`` is the note of a loss that was told, ``None`` if there is none.
    """

    members: list[str]
    has_note: bool
    told: str | None


class Stored(NamedTuple):
    """The fields of an entry's hash, ``None`` where there is none.

    ``refusal`` is what Redis said if its ACL keeps the key from being read: nothing is known then;
    or if it keeps it from being written.
    """

    definition: str | None = None
    meta: str | None = None
    set_aside: str | None = None
    refusal: ResponseError | None = None
    zones: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether there is certainly no such entry."""
        return self.definition is None and self.refusal is None

    @property
    def size(self) -> int:
        """How many characters there are in the fields."""
        return sum(map(len, filter(None, (self.definition, self.meta, self.zones))))


#: What is read of an entry's hash.
FIELDS = ("definition", "meta", "set_aside", "zones")


class Seen(NamedTuple):
    """An entry as it was read: what is to go unless it is another one by now."""

    key: str
    stored: Stored

    def is_at(self, stored: Stored) -> bool:
        """Whether this is what is stored by now, or nothing is."""
        return stored.definition is None or stored == self.stored


class Draft(NamedTuple):
    """An entry that is to be stored.

    ``seen_meta`` is the stored meta that ``score`` was computed from, ``""`` for a new entry. A
    stored meta stays, unless nobody can read it (``replaces_meta``); ``meta`` is that of a new one.
    ``seen_definition`` is the stored definition that this one was made of, ``""`` if there must be
    none; ``None``: whatever is stored goes. ``zones`` are written beside the definition; ``""``
    removes those that are there.
    """

    key: str
    definition: str
    seen_meta: str
    meta: str
    score: float
    replaces_meta: bool = False
    seen_definition: str | None = None
    zones: str = ""

    def replaces(self, definition: str | None) -> bool:
        """Whether a stored definition is the one that was seen, or this one already."""
        return self.seen_definition in (None, definition or "") or definition == self.definition


class Changed(NamedTuple):
    """What became of a change: what stood against each draft, and how many removals there were.

    Nothing did: ``""``; another run: the meta that is stored by now; another edit: ``None``.
    """

    conflicts: list[str | None]
    deleted: int


class Claimed(NamedTuple):
    """What a claim found: leased members with the scores they had, and what is not due now.

    ``has_set_aside``: whether any entry is set aside. ``is_bounded``: whether the leased entries
    are within the bound that was given; ``is_cut``: whether others are due that were left for that.
    """

    due: list[Member]
    later: Member | None
    has_set_aside: bool
    is_bounded: bool = False
    is_cut: bool = False


class Outcome(NamedTuple):
    """What a commit writes for one claimed entry.

    ``score`` is its next due time, ``None`` to drop it from the schedule. ``meta`` is given when it
    ran, with ``seen_meta``, the stored meta that it was computed from: if another one is stored by
    now, that stands. ``reason`` is given when it is set aside; ``clears`` takes an earlier one off.
    """

    key: str
    score: float | None
    meta: str = ""
    seen_meta: str = ""
    reason: str = ""
    clears: bool = False

    @property
    def due_at(self) -> float:
        """When the entry is due from then on, in seconds since the epoch; infinity: never."""
        return float("inf") if self.score is None or self.score < 0 else self.score

    @property
    def changes_hash(self) -> bool:
        """Whether more than the score is to be written."""
        return bool(self.meta or self.reason or self.clears)


class Written(NamedTuple):
    """What a commit wrote: how many entries were still under the lease, and what was refused.

    ``refused`` holds what Redis said of each entry whose hash may not be written, by its key. Such
    an entry is set aside by its score.
    """

    held: int
    refused: dict[str, ResponseError]


def unit(
    method: Callable[Concatenate[Storage, Arguments], Result],
) -> Callable[Concatenate[Storage, Arguments], Result]:
    """A method of :class:`Storage` that may be done twice, and so is when Redis went away in it."""

    def attempt(self: Storage, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with self.turn():
            return method(self, *args, **kwargs)

    @wraps(method)
    def run(self: Storage, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return run_unit(self.client, attempt, self, *args, **kwargs)

    return run


@dataclass
class Storage:
    """The schedule of one application; costs are in round trips to Redis.

    ``schedule_key``, ``statics_key``, ``reports_key``, ``lock_key`` (``None``: nobody leads),
    ``zone_key`` (``None``: nobody notes it), ``failing_key`` and ``lost_key`` are whole keys, and
    ``channel`` is where changes are told. All methods raise what redis-py raises.
    """

    client: Client = field(repr=False)
    schedule_key: str
    statics_key: str
    channel: str
    reports_key: str
    lock_key: str | None = None
    zone_key: str | None = None
    failing_key: str = ""
    lost_key: str = ""
    #: What keeps a process from being told to end while it has the only connection.
    undisturbed: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext, repr=False)
    _direct: Client = field(init=False, repr=False)
    _steps: ScriptedSteps | PlainSteps = field(init=False, repr=False)
    _is_before_cluster: bool = field(default=False, init=False, repr=False)
    #: The optional commands that this user of Redis may not run, as far as they were tried.
    refused: set[str] = field(default_factory=set, init=False, repr=False)
    _has_said_that_it_polls: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self._direct = direct(self.client)
        self._turns, self._turns_of = threading.RLock(), os.getpid()
        self._steps = ScriptedSteps(self)

    @cached_property
    def _connections(self) -> float:
        """How many connections the client may open at once, in a cluster to each node."""
        return _most_connections(self._direct)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """In this block no other thread has a turn, where there are too few connections for all."""
        if self._connections >= CONNECTIONS_AT_ONCE:
            yield
            return
        if self._turns_of != os.getpid():
            # In a forked child the thread that had its turn is not there to end it.
            self._turns, self._turns_of = threading.RLock(), os.getpid()
        with self.undisturbed(), self._turns:
            yield

    @property
    def keys(self) -> OwnKeys:
        """Where no entry is."""
        return OwnKeys.of(self)

    @property
    def is_cluster(self) -> bool:
        """Whether the client is one of Redis Cluster, which knows no transactions over nodes."""
        return hasattr(self._direct, "nodes_manager")

    @property
    def one_slot(self) -> bool:
        """Whether a script may touch an entry's hash and the schedule at once."""
        return not self.is_spread or _hash_tag(self.schedule_key) is not None

    @property
    def is_spread(self) -> bool:
        """Whether keys may live on several nodes, so that a script touches those of one slot."""
        return self._is_before_cluster or self.is_cluster

    def shares_slot(self, key: str) -> bool:
        """Whether a script may touch what is at this key together with the schedule.

        Others may have put keys into the schedule that lack its hash tag.
        """
        if not self.is_spread:
            return True
        tag = _hash_tag(self.schedule_key)
        return tag is not None and tag == _hash_tag(key)

    @property
    def has_transactions(self) -> bool:
        """Whether commands on an entry's hash and on the schedule can be one transaction."""
        return not self.is_spread

    def _atomically(self, operation: Callable[[ScriptedSteps | PlainSteps], Result]) -> Result:
        try:
            return operation(self._steps)
        except ResponseError as exc:
            if not self._adapts_to(exc):
                raise
            return self._atomically(operation)

    def _adapts_to(self, exc: ResponseError) -> bool:
        """Whether what this server refuses can be done in another way, from now on."""
        if not self.is_spread and _crosses_slots(exc):
            logger.warning(
                "beat: Behind this Redis is a cluster (%s): an entry and the schedule change one "
                "after the other. Give all keys in the schedule one slot: redbeat_key_prefix = "
                "'{redbeat}:'.",
                exc,
            )
            self._is_before_cluster = True
            return True
        if isinstance(self._steps, ScriptedSteps) and _refuses_scripts(exc):
            logger.warning(
                "beat: This Redis runs no scripts (%s): using plain commands. Run one beat only: "
                "two of them could run an entry twice.",
                exc,
            )
            self._steps = PlainSteps(self)
            return True
        return False

    def _sparing(
        self,
        keys: Sequence[str],
        operation: Callable[[ScriptedSteps | PlainSteps, Mapping[str, ResponseError]], Result],
    ) -> tuple[Result, dict[str, ResponseError]]:
        """Do something with entries; if Redis refuses a key, once more, knowing what it refuses.

        Returns what came of it, and what Redis said of the keys, which it names.
        """
        try:
            return self._atomically(lambda steps: operation(steps, {})), {}
        except ResponseError as exc:
            if not is_of_one_key(exc):
                raise
            refused = self._atomically(lambda steps: steps.find_refused(keys))
            if not refused:
                raise
        return self._atomically(lambda steps: operation(steps, refused)), refused

    def _warn_of_refused(self, refused: Mapping[str, ResponseError], what_is_lost: str) -> None:
        for exc in refused.values():
            logger.warning("beat: %s: %s.", what_is_lost, str(exc).rstrip("."))

    def do_without(self, command: str, reason: object) -> None:
        """Warn, once, of what is lost because an optional command was refused."""
        if command not in self.refused:
            self.refused.add(command)
            logger.warning(
                "beat: This user of Redis may not run %s (%s): %s. Allow it in the ACL.",
                command,
                text(reason),
                OPTIONAL[command],
            )

    # One entry

    @unit
    def read_definitions(self, keys: Sequence[str]) -> list[str | None]:
        """The definitions, in the order of ``keys``, ``None`` where there is none to be read.

        One round trip, none for no keys.
        """
        if not keys:
            return []
        with self._direct.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.execute_command("HGET", _raw(key), "definition", **UNDECODED)
            return list(map(_optional_text, pipe.execute(raise_on_error=False)))

    @unit
    def read_meta(self, key: str) -> str | None:
        """The entry's ``meta``; one round trip."""
        return _optional_text(self._direct.hget(key, "meta"))

    @unit
    def read_entries(self, keys: Sequence[str]) -> list[Stored]:
        """The hashes of the entries, in the order of ``keys``; one round trip, none for no keys.

        A key that holds something else than a hash reads as one that is not there; one that may
        not be read bears the refusal.
        """
        if not keys:
            return []
        with self._direct.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.execute_command("HMGET", _raw(key), *FIELDS, **UNDECODED)
            return [_stored(reply) for reply in pipe.execute(raise_on_error=False)]

    @unit
    def read_entries_within(self, keys: Sequence[str], most: int) -> list[Stored]:
        """The first of these entries, as many as have so many characters in all, but one at least.

        They are read in parts: what is not known to be small comes in few pieces. One round trip
        for each, two for 68 small entries, three for a thousand.
        """
        found: list[Stored] = []
        part, left, largest = FIRST_PART, most, 1
        while len(found) < len(keys):
            for stored in self.read_entries(keys[len(found) : len(found) + part]):
                if found and stored.size > left:
                    return found
                found.append(stored)
                left -= stored.size
                largest = max(largest, stored.size)
            part = min(part * GROWTH, max(left // largest, 1))
        return found

    @unit
    def change_entries(self, drafts: Sequence[Draft], deleted: Sequence[str] = ()) -> Changed:
        """Store the drafts and remove the entries at the keys ``deleted`` as one change; tell beat.

        One round trip, none for nothing. A draft is not stored if another run was recorded since
        its score was computed: then its place in ``conflicts`` holds the meta that is stored by
        now. Nor is it if it bears a ``seen_definition`` and another one is stored by now: then its
        place holds ``None``. Else ``""``. In a cluster, entries are changed one by one.

        If Redis refuses a key, this raises with the key in the message, and nothing is changed; but
        where there are no drafts, the other entries are removed. More than 1000 drafts cost one
        round trip more.

        What is at one of :attr:`keys` is no entry, and not removed: if the schedule has it as a
        member, it only loses that place, for one more round trip.
        """
        own = [key for key in deleted if key in self.keys]
        if own:
            self.drop_members(own)
            deleted = [key for key in deleted if key not in own]
        if not drafts and not deleted:
            return Changed([], 0)
        keys = [draft.key for draft in drafts] + list(deleted)
        changed, refused = self._sparing(
            keys, lambda steps, known: _change(steps, drafts, deleted, known)
        )
        if refused:
            raise next(iter(refused.values()))
        return changed

    @unit
    def discard(self, seen: Sequence[Seen]) -> list[bool]:
        """Remove entries, each unless it was stored anew, or ran, since it was read; tell beat.

        Returns which of them are gone. A key that holds no entry only loses its place in the
        schedule. One that Redis refuses to remove stays, with a warning. One round trip, none for
        nothing; two in a cluster, where entries go one by one.
        """
        if not seen:
            return []
        removed, refused = self._sparing(
            [each.key for each in seen],
            lambda steps, known: steps.discard([each for each in seen if each.key not in known]),
        )
        self._warn_of_refused(refused, "An entry is not removed, since Redis refuses it")
        replies = iter(removed)
        return [each.key not in refused and next(replies) for each in seen]

    @unit
    def write_run(self, key: str, meta: str, score: float) -> None:
        """Store meta and score of an entry, whatever is stored, and tell beat; one round trip."""
        try:
            self._atomically(lambda steps: steps.reschedule(key, meta, repr(score)))
        except ResponseError as exc:
            raise _named(exc, key) if is_of_one_key(exc) else exc from None

    @unit
    def read_rank(self, key: str) -> int | None:
        """The entry's position in the schedule, from 0; one round trip."""
        rank: int | None = self._direct.zrank(self.schedule_key, key)
        return rank

    # The schedule

    @unit
    def read_due(self, now: float, horizon: float) -> list[Member]:
        """The members due by ``now`` and the first one due by ``horizon``; one round trip."""
        with self._direct.pipeline(transaction=False) as pipe:
            _range(pipe, self.schedule_key, 0, now)
            _range(pipe, self.schedule_key, f"({now!r}", horizon, limit=1)
            due, later = pipe.execute()
        return _members(due) + _members(later)

    @unit
    def read_first(self) -> Member | None:
        """The first member that is due or will be; one round trip."""
        return next(
            iter(_members(_range(self._direct, self.schedule_key, 0, "+inf", limit=1))), None
        )

    @unit
    def read_between(self, after: float, until: float) -> list[Member]:
        """The members due after one time and by another; one round trip."""
        return _members(_range(self._direct, self.schedule_key, f"({after!r}", until))

    @unit
    def read_page(
        self, low: float | str, high: float, size: int, after: Member | None = None
    ) -> list[Member]:
        """The first ``size`` members with scores from ``low`` to ``high``; one round trip.

        ``after``: the next ones, after that member; two round trips. What is moved meanwhile to a
        later time may come twice, and nothing is left out.
        """
        if after is None:
            return _members(_range(self._direct, self.schedule_key, low, high, limit=size))
        with self._direct.pipeline(transaction=False) as pipe:
            pipe.zrank(self.schedule_key, _raw(after.key))
            pipe.zscore(self.schedule_key, _raw(after.key))
            rank, score = pipe.execute()
        if score != after.score:
            # It has gone to another place: its score alone tells where to go on.
            return _members(
                _range(self._direct, self.schedule_key, repr(after.score), high, limit=size)
            )
        arguments = (self.schedule_key, rank + 1, rank + size, "WITHSCORES")
        members = _members(self._direct.execute_command("ZRANGE", *arguments, **UNDECODED))
        return [member for member in members if member.score <= high]

    @unit
    def count_between(self, *bounds: tuple[float | str, float | str]) -> list[int]:
        """How many members have scores within each pair of bounds; one round trip.

        Three, and while members move not to the last one, for a user who may not run ZCOUNT.
        """
        try:
            with self._direct.pipeline(transaction=False) as pipe:
                for low, high in bounds:
                    pipe.zcount(self.schedule_key, low, high)
                return list(pipe.execute())
        except NoPermissionError:
            return self._subtract_ranks(bounds)

    def _subtract_ranks(self, bounds: Sequence[tuple[float | str, float | str]]) -> list[int]:
        """The same from the ranks of the first member within each pair, and of the first behind."""
        with self._direct.pipeline(transaction=False) as pipe:
            for low, high in bounds:
                _range(pipe, self.schedule_key, low, "+inf", limit=1)
                _range(pipe, self.schedule_key, f"({high}", "+inf", limit=1)
            pipe.execute_command("ZRANGE", self.schedule_key, -1, -1, "WITHSCORES", **UNDECODED)
            found = [next(iter(_members(reply)), None) for reply in pipe.execute()]
        with self._direct.pipeline(transaction=False) as pipe:
            for member in found:
                pipe.zrank(self.schedule_key, _raw(member.key if member else ""))
            *ranks, last = pipe.execute()
        count = 0 if last is None else last + 1
        edges = iter(count if rank is None else rank for rank in ranks)
        return [max(behind - first, 0) for first, behind in zip(edges, edges, strict=True)]

    @unit
    def count_members(self) -> int:
        """How many entries the schedule has; one round trip.

        Four for a user who may not run ZCARD.
        """
        try:
            count: int = self._direct.zcard(self.schedule_key)
        except NoPermissionError:
            (count,) = self.count_between(("-inf", "+inf"))
        return count

    @unit
    def is_stored(self, key: str) -> bool:
        """Whether an entry has a hash, a place in the schedule, or both; one round trip.

        None, and ``False``, for a key of ours.
        """
        if key in self.keys:
            return False
        with self._direct.pipeline(transaction=False) as pipe:
            pipe.zscore(self.schedule_key, _raw(key))
            pipe.execute_command("HMGET", _raw(key), *FIELDS, **UNDECODED)
            score, fields = pipe.execute(raise_on_error=False)
        if isinstance(score, Exception):
            raise score
        return score is not None or _stored(fields) != Stored()

    @unit
    def read_scores(self, keys: Sequence[str]) -> list[float | None]:
        """The scores of the keys, ``None`` for no member; one round trip, none for no keys."""
        if not keys:
            return []
        with self._direct.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.zscore(self.schedule_key, _raw(key))
            return list(pipe.execute())

    @unit
    def drop_members(self, keys: Sequence[str]) -> None:
        """Take keys out of the schedule and leave what they hold alone; one round trip at most."""
        if keys:
            self._direct.zrem(self.schedule_key, *map(_raw, keys))

    @unit
    def claim_due(
        self,
        now: float,
        lease: float,
        limit: int,
        horizon: float,
        most_bytes: int = 0,
        from_end: bool = False,
    ) -> Claimed:
        """Lease up to ``limit`` entries due by ``now``, until ``lease``; one round trip.

        ``lease`` must be unique to this claim: asking again with the same one gives the same
        entries. ``later`` is the first entry due after ``now`` and by ``horizon``. ``most_bytes``:
        how large all of them may be together, but for a single one; where the server does not say
        how large they are, the claim is not ``is_bounded``. ``from_end``: those that became due
        last; up to three round trips on a server without scripting.
        """
        return self._atomically(
            lambda steps: steps.claim(now, lease, limit, horizon, most_bytes, from_end)
        )

    def commit(self, lease: float, outcomes: Sequence[Outcome]) -> int:
        """Write what became of the entries claimed under ``lease``; one round trip, none for none.

        Returns how many of them were still under it. The others were deleted, saved anew or claimed
        by another beat: their scores are left as they are.
        """
        moves = [(Member(outcome.key, lease), outcome) for outcome in outcomes]
        return self.write_outcomes(moves).held

    @unit
    def write_outcomes(self, moves: Sequence[tuple[Member, Outcome]]) -> Written:
        """Do what :meth:`move` does, and tell as well which hashes Redis refuses to write.

        Such an entry is set aside by its score, for else it would run again and again.
        """
        if not moves:
            return Written(0, {})
        members = [member for member, _ in moves]
        outcomes = [outcome for _, outcome in moves]
        held, refused = self._sparing(
            [outcome.key for outcome in outcomes if outcome.changes_hash],
            lambda steps, known: steps.move(
                list(zip(members, _without_hashes(outcomes, known), strict=True))
            ),
        )
        return Written(held, refused)

    @unit
    def move(self, moves: Sequence[tuple[Member, Outcome]]) -> int:
        """Write what becomes of members that still have their scores; how many that were.

        One round trip, two on a server without scripting, none for nothing.
        """
        return self._atomically(lambda steps: steps.move(moves)) if moves else 0

    # The zone

    @unit
    def read_zone(self) -> str | None:
        """The time zone of the last leader, as it was noted; one round trip."""
        if self.zone_key is None:
            return None
        return _optional_text(self._direct.execute_command("GET", self.zone_key, **UNDECODED))

    @unit
    def write_zone(self, zone: str) -> None:
        """Note the time zone of the leader; one round trip."""
        if self.zone_key is not None:
            self._direct.set(self.zone_key, zone)

    # Losses

    @unit
    def read_trace(self, limit: int) -> Trace:
        """What shows whether the schedule was lost, up to ``limit`` members too; one round trip."""
        with self._direct.pipeline(transaction=False) as pipe:
            pipe.execute_command("ZRANGE", self.schedule_key, 0, limit - 1, **UNDECODED)
            pipe.execute_command("GET", self.zone_key or self.lost_key, **UNDECODED)
            pipe.execute_command("GET", self.lost_key, **UNDECODED)
            reply = pipe.execute()
        # A stand-in for a client, as applications' tests inject, has nothing to lose.
        members, zone, told = reply if isinstance(reply, list) else ([], None, None)
        has_note = self.zone_key is not None and zone is not None
        return Trace(list(map(text, members)), has_note, _optional_text(told))

    @unit
    def note_loss(self, note: str, seconds: int, known: str | None) -> bool:
        """Leave a note of a loss for so many seconds, unless there is another than the known one.

        Returns whether it is there now. One round trip, two in the place of a known one.
        """
        with self._direct.pipeline(transaction=False) as pipe:
            pipe.set(self.lost_key, note, nx=True, ex=seconds)
            pipe.execute_command("GET", self.lost_key, **UNDECODED)
            reply = pipe.execute()
        found = _optional_text(reply[1]) if isinstance(reply, list) else note
        if found == note:
            return True
        if found != known:
            return False
        self._direct.set(self.lost_key, note, ex=seconds)
        return True

    @unit
    def read_loss(self) -> str | None:
        """The note of a loss, ``None`` if there is none; one round trip."""
        return _optional_text(self._direct.execute_command("GET", self.lost_key, **UNDECODED))

    # Changes

    def listen(self) -> Listener:
        """Subscribe to the channel on which changes are told; one round trip."""
        return Listener(self._direct, self.channel)

    def may_listen(self) -> bool:
        """Whether there is a connection for a subscription, and none was refused; no round trip."""
        if self._connections > 1:
            return "SUBSCRIBE" not in self.refused
        if not self._has_said_that_it_polls:
            self._has_said_that_it_polls = True
            logger.info(
                "beat: The client of Redis may open one connection (max_connections), so beat "
                "does not subscribe: it notices changes within redbeat_poll_interval."
            )
        return False

    # Static entries

    @unit
    def read_statics(self) -> set[str]:
        """The names that came from ``beat_schedule``; one round trip."""
        reply = self._direct.execute_command("SMEMBERS", self.statics_key, **UNDECODED)
        return set(map(text, reply))

    @unit
    def write_statics(self, added: Iterable[str], removed: Iterable[str]) -> None:
        """Change the names that came from ``beat_schedule``; one round trip at the most."""
        added, removed = list(added), list(removed)
        if not added and not removed:
            return
        with self._direct.pipeline(transaction=not self.is_cluster) as pipe:
            if removed:
                pipe.srem(self.statics_key, *map(_raw, removed))
            if added:
                pipe.sadd(self.statics_key, *map(_raw, added))
            pipe.execute()

    # Reports

    @unit
    def read_reports(self) -> dict[str, str]:
        """What beats tell of their work, by the name of the beat; one round trip.

        Nothing, with a warning, for a user who may not run HGETALL.
        """
        try:
            reply = self._direct.execute_command("HGETALL", self.reports_key, **UNDECODED)
        except NoPermissionError as exc:
            if is_of_one_key(exc):
                raise
            self.do_without("HGETALL", exc)
            return {}
        return {text(name): text(report) for name, report in reply.items()}

    @unit
    def write_report(self, name: str, report: str) -> None:
        """Store what the beat ``name`` tells of its work; one round trip."""
        self._direct.hset(self.reports_key, name, report)

    @unit
    def forget_reports(self, names: Sequence[str]) -> None:
        """Remove what these beats told; one round trip, none for no names.

        Three for a user who may not run HDEL. One who may not run HGETALL either removes what all
        of them told: those that live tell it again within a minute.
        """
        if not names:
            return
        try:
            self._direct.hdel(self.reports_key, *names)
        except NoPermissionError as exc:
            if is_of_one_key(exc):
                raise
            self._rewrite_reports_without(names)

    @unit
    def read_failing(self, limit: int) -> list[Member]:
        """The entries whose last run failed, by the time of that, the longest ago first.

        One round trip.
        """
        arguments = (self.failing_key, 0, limit - 1, "WITHSCORES")
        return _members(self._direct.execute_command("ZRANGE", *arguments, **UNDECODED))

    @unit
    def note_failing(self, failed: Mapping[str, float], recovered: Iterable[str]) -> None:
        """Change which entries are noted as failing; one round trip, none for nothing."""
        recovered = list(recovered)
        if not failed and not recovered:
            return
        with self._direct.pipeline(transaction=False) as pipe:
            if failed:
                pipe.zadd(self.failing_key, {_raw(key): at for key, at in failed.items()})
            if recovered:
                pipe.zrem(self.failing_key, *map(_raw, recovered))
            pipe.execute()

    def _rewrite_reports_without(self, names: Sequence[str]) -> None:
        kept = {name: report for name, report in self.read_reports().items() if name not in names}
        with self._direct.pipeline(transaction=not self.is_cluster) as pipe:
            pipe.delete(self.reports_key)
            if kept:
                pipe.hset(self.reports_key, mapping=kept)
            pipe.execute()

    @unit
    def read_owners(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Which application has each entry in its ``beat_schedule``, ``None`` if nobody said so.

        Keys without an entry are left out. One round trip, none for no keys.
        """
        if not keys:
            return {}
        with self._direct.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.execute_command("HMGET", _raw(key), "definition", "owner", **UNDECODED)
            replies = pipe.execute(raise_on_error=False)
        # A key that holds something else than a hash is no entry.
        found = [
            (key, *reply)
            for key, reply in zip(keys, replies, strict=False)
            if isinstance(reply, list)
        ]
        return {
            key: _optional_text(owner) for key, definition, owner in found if definition is not None
        }

    @unit
    def write_owner(self, keys: Sequence[str], owner: str) -> None:
        """Note which application has these entries, as far as they are there.

        One that Redis refuses to write is left out, with a warning. One round trip, none for no
        keys.
        """
        if not keys:
            return
        _, refused = self._sparing(
            keys,
            lambda steps, known: steps.own([key for key in keys if key not in known], owner),
        )
        self._warn_of_refused(refused, "The owner of a static entry is not noted")

    # The lock

    @unit
    def read_lock(self, key: str) -> tuple[str | None, int]:
        """The token that holds the lock, and its time to live in milliseconds; one round trip.

        They may belong to two holders: who acts on them compares once more, in one step.
        """
        with self._direct.pipeline(transaction=False) as pipe:
            pipe.execute_command("GET", key, **UNDECODED)
            pipe.pttl(key)
            reply = pipe.execute()
        # A stand-in for a client, as applications' tests inject, holds no lock.
        token, remaining = reply if isinstance(reply, list) else (None, 0)
        return _optional_text(token), remaining

    @unit
    def acquire_lock(self, key: str, token: str, milliseconds: int) -> bool:
        """Hold the lock under ``token`` if nobody holds it; one round trip."""
        with self._direct.pipeline(transaction=False) as pipe:
            pipe.set(key, token, nx=True, px=milliseconds)
            pipe.execute_command("GET", key, **UNDECODED)
            reply = pipe.execute()
        # A stand-in for a client does not say who holds the lock, and lets everybody have it.
        return _optional_text(reply[1]) == token if isinstance(reply, list) else True

    @unit
    def extend_lock(self, key: str, token: str, milliseconds: int, new_token: str) -> bool:
        """Renew the lock to its full time to live if ``token`` holds it; one round trip.

        From then on it is held under ``new_token``, which may be the same.
        """
        return self._atomically(
            lambda steps: steps.extend_lock(key, token, milliseconds, new_token)
        )

    @unit
    def take_over_lock(
        self, key: str, token: str, new_token: str, milliseconds: int, silent_below: int
    ) -> bool:
        """Hold the lock under ``new_token`` if ``token`` holds it and is silent; one round trip.

        It is silent if its time to live, in milliseconds, is below ``silent_below``.
        """
        return self._atomically(
            lambda steps: steps.take_over_lock(key, token, new_token, milliseconds, silent_below)
        )

    def release_lock(self, key: str, token: str) -> bool:
        """Delete the lock if ``token`` holds it; one round trip, which is not tried again.

        A beat that is told to end must not wait for a Redis that is away.
        """
        with self.turn():
            return self._atomically(lambda steps: steps.release_lock(key, token))


def _most_connections(client: Client) -> float:
    nodes = getattr(client, "nodes_manager", None)
    given = (
        getattr(getattr(client, "connection_pool", None), "max_connections", None)
        if nodes is None
        else getattr(nodes, "connection_kwargs", {}).get("max_connections")
    )
    # A stand-in for a client may answer with anything.
    return given if isinstance(given, int) and given > 0 else float("inf")


def _refuses_scripts(exc: ResponseError) -> bool:
    text = str(exc).lower()
    is_refusal = isinstance(exc, NoPermissionError) or "unknown command" in text
    # Quoted, it is not the command that redis-py puts before what a pipeline met.
    return is_refusal and re.search(r"['`]eval(sha)?['`|]", text) is not None


def _crosses_slots(exc: ResponseError) -> bool:
    return isinstance(exc, ClusterCrossSlotError) or error_code(exc) == "CROSSSLOT"


class Listener:
    """A subscription to changes: each is told as the score that it gave to some entry.

    A connection may die without a word, as in a firewall that forgets it. So it is asked for a sign
    of life now and then.
    """

    def __init__(self, client: Client, channel: str) -> None:
        self._channel = channel
        self._pubsub = client.pubsub()
        self._pubsub.subscribe(channel)
        #: Whether the server lets a subscriber ask, whether it was asked, and is to answer still.
        self._may_ask = True
        self._has_asked = self._awaits_answer = False
        self._asked_at = time.monotonic()

    def wait(self, seconds: float, before: float) -> bool:
        """Wait until told of an entry that is due before ``before``, for so many seconds at most.

        Returns whether one was told. Costs no round trip, and one command per ``ASKING_INTERVAL``.
        Raises :exc:`redis.exceptions.ConnectionError` if the subscription gives no sign of life.
        """
        began = time.monotonic()
        self._ask(began)
        while (remaining := began + seconds - time.monotonic()) > 0:
            message = self._hear(remaining)
            if message is not None and _is_before(message, before):
                self._drain()
                return True
        self._require_answer()
        return False

    def _ask(self, now: float) -> None:
        is_time = now >= self._asked_at + ASKING_INTERVAL
        if self._may_ask and is_time and not self._awaits_answer:
            self._has_asked = self._awaits_answer = True
            self._asked_at = now
            # With a text: some versions of redis-py take an empty answer for none.
            self._pubsub.ping("alive")

    def _hear(self, seconds: float) -> Any:
        """What comes within so many seconds; whatever it is, it is a sign of life."""
        try:
            message = self._pubsub.get_message(timeout=seconds)
        except ResponseError:
            if not self._has_asked:
                raise
            # The server refuses PING to a subscriber: SUBSCRIBE was answered long before.
            self._may_ask = self._awaits_answer = False
            return None
        if message is not None:
            self._awaits_answer = False
        return message

    def _require_answer(self) -> None:
        if self._awaits_answer and time.monotonic() > self._asked_at + ANSWERING_TIME:
            raise RedisConnectionError(
                f"the subscription to {self._channel} gives no sign of life; it is made anew"
            )

    def _drain(self) -> None:
        """Forget what else was told: the tick that follows sees it all."""
        ends_at = time.monotonic() + DRAIN_TIME
        while self._hear(0) is not None and time.monotonic() < ends_at:
            pass

    def close(self) -> None:
        """End the subscription."""
        self._pubsub.close()


def _is_before(message: Any, moment: float) -> bool:
    try:
        return message["type"] == "message" and 0 <= float(message["data"]) < moment
    except ValueError:
        return False


class ScriptedSteps:
    """The atomic steps as scripts: each costs one round trip, two when the server must load one."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.client = direct(storage.client)
        self._may_ask_for_sizes = True

    def claim(
        self,
        now: float,
        lease: float,
        limit: int,
        horizon: float,
        most_bytes: int,
        from_end: bool,
    ) -> Claimed:
        """See :meth:`Storage.claim_due`."""
        asks = self._may_ask_for_sizes and self.storage.one_slot
        bounds = (most_bytes if asks else 0, int(from_end), repr(lease + OTHER_LEASE))
        arguments = (repr(now), repr(lease), limit, repr(horizon), *bounds)
        schedule = self.storage.schedule_key
        due, later, set_aside, bound = self._call(CLAIM, [schedule], arguments)
        if asks and most_bytes and bound == SIZES_UNKNOWN:
            self._may_ask_for_sizes = False
        return Claimed(
            _members(due),
            next(iter(_members(later)), None),
            bool(set_aside),
            is_bounded=bound != SIZES_UNKNOWN,
            is_cut=bound == CUT,
        )

    def commit(self, lease: float, outcomes: Sequence[Outcome]) -> int:
        """See :meth:`Storage.commit`."""
        return self._write({lease: outcomes})

    def move(self, moves: Sequence[tuple[Member, Outcome]]) -> int:
        """See :meth:`Storage.move`."""
        by_score: dict[float, list[Outcome]] = {}
        for member, outcome in moves:
            by_score.setdefault(member.score, []).append(outcome)
        return self._write(by_score)

    def _write(self, by_score: Mapping[float, Sequence[Outcome]]) -> int:
        """Write outcomes, by the scores that the entries must still have; how many that were."""
        changes = [each for group in by_score.values() for each in group if each.changes_hash]
        records: list[Call] = [
            (RECORD, [_raw(outcome.key) for outcome in group], _record_arguments(group))
            for group in self._groups_by_slot(changes)
        ]
        advances: list[Call] = [
            (ADVANCE, [self.storage.schedule_key], _advance_arguments(score, group))
            for score, outcomes in by_score.items()
            for group in _sized(outcomes, SCRIPT_SIZE)
        ]
        return sum(self._call_in_turn(records + advances)[len(records) :])

    def _groups_by_slot(self, outcomes: Sequence[Outcome]) -> list[Sequence[Outcome]]:
        """Outcomes by what one script may touch, where keys may lack the hash tag of the others."""
        if not self.storage.is_spread:
            return self._groups(outcomes)
        together: list[Outcome] = []
        apart: list[Sequence[Outcome]] = []
        for outcome in outcomes:
            if self.storage.shares_slot(outcome.key):
                together.append(outcome)
            else:
                apart.append([outcome])
        return [*self._groups(together), *apart]

    def change(self, drafts: Sequence[Draft], deleted: Sequence[str]) -> Changed:
        """See :meth:`Storage.change_entries`."""
        saves = [
            self._change(SAVE, [draft.key for draft in group], _save_arguments(group))
            for group in self._groups(drafts)
        ]
        removals = [self._change(DELETE, group, []) for group in self._groups(deleted)]
        if len(saves) > 1:
            # Each of several scripts would find too late what another one cannot store.
            keys = [_raw(draft.key) for draft in drafts]
            self._call_in_turn([(CHECK, group, []) for group in self._groups(keys)])
        replies = self._without_refusals(self._call_as_one(saves + removals))
        conflicts = [
            _optional_text(conflict) for reply in replies[: len(saves)] for conflict in reply
        ]
        if not self.storage.one_slot:
            self._move_members(_without_conflict(drafts, conflicts), deleted)
        return Changed(conflicts, sum(replies[len(saves) :]))

    def find_refused(self, keys: Sequence[str]) -> dict[str, ResponseError]:
        """What Redis says of the keys that it refuses, by key; one round trip.

        One for each key in a cluster.
        """
        if self.storage.is_cluster:
            replies = [self._try_check(key) for key in keys]
        else:
            with self.client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.execute_command("EVAL", CHECK.text, 1, _raw(key))
                replies = pipe.execute(raise_on_error=False)
        return _refusals(keys, replies)

    def _try_check(self, key: str) -> Any:
        try:
            return self.client.execute_command("EVAL", CHECK.text, 1, _raw(key))
        except ResponseError as exc:
            return exc

    def _without_refusals(self, replies: Sequence[Any]) -> list[Any]:
        """What scripts answered that also tell of changes; warns of one that could not.

        Such a script answers with a pair: what it did, and why ``PUBLISH`` was refused.
        """
        # A stand-in for a client, as applications' tests inject, answers with no pair.
        pairs = [reply for reply in replies if isinstance(reply, list) and len(reply) == 2]
        for _, refusal in pairs:
            if refusal:
                self.storage.do_without("PUBLISH", refusal)
        return [did for did, _ in pairs]

    def discard(self, seen: Sequence[Seen]) -> list[bool]:
        """See :meth:`Storage.discard`."""
        calls = [
            self._change(DISCARD, [each.key for each in group], _discard_arguments(group))
            for group in self._groups(seen)
        ]
        replies = self._without_refusals(self._call_in_turn(calls))
        removed = [bool(is_gone) for reply in replies for is_gone in reply]
        if not self.storage.one_slot:
            gone = zip(seen, removed, strict=True)
            self._move_members([], [each.key for each, is_gone in gone if is_gone])
        return removed

    def _change(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Call:
        schedule = [self.storage.schedule_key] if self.storage.one_slot else []
        hashes = map(_raw, keys)
        return script, [*hashes, *schedule], [self.storage.channel, len(keys), *arguments]

    def _move_members(self, drafts: Sequence[Draft], deleted: Sequence[str]) -> None:
        schedule = self.storage.schedule_key
        if drafts:
            self.client.zadd(schedule, {_raw(draft.key): draft.score for draft in drafts})
        if deleted:
            self.client.zrem(schedule, *map(_raw, deleted))

    def own(self, keys: Sequence[str], owner: str) -> None:
        """See :meth:`Storage.write_owner`."""
        self._call_in_turn(
            [(OWN, [_raw(key) for key in group], [owner]) for group in self._groups(keys)]
        )

    def reschedule(self, key: str, meta: str, score: str) -> None:
        """See :meth:`Storage.write_run`."""
        reply = self._call(RESCHEDULE, self._keys(key), (meta, score, self.storage.channel))
        self._without_refusals([reply])
        if not self.storage.one_slot:
            self.client.zadd(self.storage.schedule_key, {key: score})

    def extend_lock(self, key: str, token: str, milliseconds: int, new_token: str) -> bool:
        """See :meth:`Storage.extend_lock`."""
        return bool(self._call(EXTEND_TO, [key], (_raw(token), milliseconds, "0", _raw(new_token))))

    def take_over_lock(
        self, key: str, token: str, new_token: str, milliseconds: int, silent_below: int
    ) -> bool:
        """See :meth:`Storage.take_over_lock`."""
        arguments = (_raw(token), _raw(new_token), milliseconds, silent_below)
        return bool(self._call(TAKE_OVER, [key], arguments))

    def release_lock(self, key: str, token: str) -> bool:
        """See :meth:`Storage.release_lock`."""
        return bool(self._call(RELEASE, [key], (_raw(token),)))

    def _keys(self, key: str) -> list[str]:
        """The keys of a change to one entry, as far as one script may touch them."""
        return [key, self.storage.schedule_key] if self.storage.one_slot else [key]

    def _groups(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """What is said of entries, by what one script may touch at once."""
        return _sized(items, SCRIPT_SIZE if self.storage.one_slot else 1)

    def _call(self, script: Script, keys: Sequence[Key], arguments: Sequence[Any]) -> Any:
        operands = (len(keys), *keys, *arguments)
        with _naming((script, keys, arguments)):
            try:
                return self.client.execute_command("EVALSHA", script.digest, *operands, **UNDECODED)
            except NoScriptError:
                return self.client.execute_command("EVAL", script.text, *operands, **UNDECODED)

    def _call_in_turn(self, calls: Sequence[Call]) -> list[Any]:
        """One transaction, where there are any; in a cluster, and to load scripts, one by one."""
        if self.storage.is_cluster or len(calls) == 1:
            return [self._call(*call) for call in calls]
        try:
            return self._pipelined([("EVALSHA", call[0].digest, call) for call in calls])
        except NoScriptError:
            return [self._call(*call) for call in calls]

    def _call_as_one(self, calls: Sequence[Call]) -> list[Any]:
        """One transaction, where there are any.

        It brings its scripts with it: the server goes on after one that it does not know.
        """
        if not self.storage.has_transactions or len(calls) == 1:
            return self._call_in_turn(calls)
        return self._pipelined([("EVAL", call[0].text, call) for call in calls])

    def _pipelined(self, commands: Sequence[tuple[str, str, Call]]) -> list[Any]:
        """The replies of the scripts; as one transaction, where there are any.

        redis-py decodes what its own transactions reply, so this one is written out.
        """
        calls = [call for _, _, call in commands]
        with _naming(*calls), self.client.pipeline(transaction=False) as pipe:
            if self.storage.has_transactions:
                pipe.execute_command("MULTI")
            for command, script, (_, keys, arguments) in commands:
                operands = (script, len(keys), *keys, *arguments)
                pipe.execute_command(command, *operands, **UNDECODED)
            if self.storage.has_transactions:
                pipe.execute_command("EXEC", **UNDECODED)
            replies = list(pipe.execute())
        if self.storage.has_transactions:
            # A stand-in for a client, as applications' tests inject, answers nothing.
            replies = replies[-1] if replies else []
        with _naming(*calls):
            return _without_errors(replies)


class PlainSteps:
    """The same steps as plain commands, for a server that runs no scripts.

    Nothing stands between the reads and the writes, so two beats may claim the same entry. Each
    costs two round trips at the most, one more where entries were set aside until now.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.client = direct(storage.client)

    def claim(
        self,
        now: float,
        lease: float,
        limit: int,
        horizon: float,
        most_bytes: int,
        from_end: bool,
    ) -> Claimed:
        """See :meth:`Storage.claim_due`; it knows no sizes."""
        schedule = self.storage.schedule_key
        with self.client.pipeline(transaction=False) as pipe:
            for each in (lease, lease + OTHER_LEASE):
                _range(pipe, schedule, each, each)
            _range(pipe, schedule, 0, now, limit=limit)
            _range(pipe, schedule, f"({now!r}", horizon, limit=1)
            _range(pipe, schedule, SET_ASIDE, SET_ASIDE, limit=1)
            leased, others, due, later, set_aside = map(_members, pipe.execute())
        if from_end and len(due) == limit:
            due = self._last_due(now, limit)
        if due:
            leases = {_raw(key): lease_of(lease, score) for key, score in due}
            self.client.zadd(schedule, leases, xx=True)
        claimed = [Member(key, due_by(now, score)) for key, score in leased + others] + due
        return Claimed(claimed, next(iter(later), None), bool(set_aside))

    def _last_due(self, now: float, limit: int) -> list[Member]:
        """The members that became due last, the last one first; up to three round trips."""
        schedule = self.storage.schedule_key
        beyond = _members(_range(self.client, schedule, f"({now!r}", "+inf", limit=1))
        count = self.client.zrank(schedule, _raw(beyond[0].key)) if beyond else 0
        first, last = (max(count - limit, 0), count - 1) if count else (-limit, -1)
        arguments = (schedule, first, last, "WITHSCORES")
        found = _members(self.client.execute_command("ZRANGE", *arguments, **UNDECODED))
        return [member for member in reversed(found) if 0 <= member.score <= now]

    def commit(self, lease: float, outcomes: Sequence[Outcome]) -> int:
        """See :meth:`Storage.commit`."""
        return self.move([(Member(outcome.key, lease), outcome) for outcome in outcomes])

    def move(self, moves: Sequence[tuple[Member, Outcome]]) -> int:
        """See :meth:`Storage.move`."""
        schedule = self.storage.schedule_key
        outcomes = [outcome for _, outcome in moves]
        stored = self._read_stored(outcomes)
        held = 0
        with self.client.pipeline(transaction=self.storage.has_transactions) as pipe:
            for (member, outcome), (score, meta) in zip(moves, stored, strict=True):
                if meta is not None:
                    _record(pipe, outcome, meta)
                if score != member.score:
                    continue
                held += 1
                if outcome.score is None:
                    pipe.zrem(schedule, _raw(outcome.key))
                else:
                    pipe.zadd(schedule, {_raw(outcome.key): outcome.score})
            pipe.execute()
        known = zip(outcomes, stored, strict=True)
        self._clear_reasons(
            [each.key for each, (_, meta) in known if each.clears and meta is not None]
        )
        return held

    def _clear_reasons(self, keys: Sequence[str]) -> None:
        """Entries are not set aside any more; a user who may not run HDEL empties the field."""
        if not keys:
            return
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hdel(_raw(key), "set_aside")
            replies = pipe.execute(raise_on_error=False)
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, NoPermissionError):
                self.client.hset(_raw(key), "set_aside", "")
            elif isinstance(reply, Exception):
                raise reply

    def _read_stored(self, outcomes: Sequence[Outcome]) -> list[tuple[float | None, str | None]]:
        """Score and meta of each entry; ``""`` for no meta, ``None`` for no entry."""
        with self.client.pipeline(transaction=False) as pipe:
            for outcome in outcomes:
                key = _raw(outcome.key)
                pipe.zscore(self.storage.schedule_key, key)
                pipe.execute_command("HMGET", key, *FIELDS, **UNDECODED)
            replies = iter(pipe.execute(raise_on_error=False))
        found = ((score, _stored(fields)) for score, fields in zip(replies, replies, strict=True))
        return [
            (score, None if stored.definition is None else stored.meta or "")
            for score, stored in found
        ]

    def change(self, drafts: Sequence[Draft], deleted: Sequence[str]) -> Changed:
        """See :meth:`Storage.change_entries`."""
        found = self._read_hashes([draft.key for draft in drafts])
        conflicts = [_conflict(draft, stored) for draft, stored in zip(drafts, found, strict=True)]
        stored = _without_conflict(drafts, conflicts)
        with self.client.pipeline(transaction=self.storage.has_transactions) as pipe:
            for key in deleted:
                pipe.zrem(self.storage.schedule_key, _raw(key))
                pipe.delete(_raw(key))
            had_zones = {
                draft.key for draft, before in zip(drafts, found, strict=True) if before.zones
            }
            for draft in stored:
                _store(pipe, self.storage.schedule_key, draft, draft.key in had_zones)
            replies = iter(pipe.execute()[: 2 * len(deleted)])
        were_set_aside = {
            draft.key for draft, before in zip(drafts, found, strict=True) if before.set_aside
        }
        self._clear_reasons([each.key for each in stored if each.key in were_set_aside])
        if stored or deleted:
            self._tell(_first_due(stored))
        return Changed(conflicts, sum(map(max, replies, replies)))

    def _read_hashes(self, keys: Sequence[str]) -> list[Stored]:
        """The hashes at the keys; raises if one of them holds something else, or is refused.

        A transaction would go on after that.
        """
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.execute_command("HMGET", _raw(key), *FIELDS, **UNDECODED)
            return list(map(_stored, pipe.execute()))

    def discard(self, seen: Sequence[Seen]) -> list[bool]:
        """See :meth:`Storage.discard`."""
        found = self.storage.read_entries([each.key for each in seen])
        removed = [each.is_at(stored) for each, stored in zip(seen, found, strict=True)]
        with self.client.pipeline(transaction=self.storage.has_transactions) as pipe:
            for (key, _), stored, goes in zip(seen, found, removed, strict=True):
                if goes:
                    pipe.zrem(self.storage.schedule_key, _raw(key))
                if goes and stored.definition is not None:
                    pipe.delete(_raw(key))
            pipe.execute()
        self._tell("")
        return removed

    def find_refused(self, keys: Sequence[str]) -> dict[str, ResponseError]:
        """What Redis says of the keys that it refuses, by key; one round trip.

        Of a key that may be written, ``ZREM`` says that it holds a hash, and leaves that.
        """
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.execute_command("HGET", _raw(key), "", **UNDECODED)
                pipe.zrem(_raw(key), "")
            replies = iter(pipe.execute(raise_on_error=False))
        found = [
            write if isinstance(write, NoPermissionError) else read
            for read, write in zip(replies, replies, strict=True)
        ]
        return _refusals(keys, found)

    def own(self, keys: Sequence[str], owner: str) -> None:
        """See :meth:`Storage.write_owner`."""
        found = self.storage.read_entries(keys)
        with self.client.pipeline(transaction=False) as pipe:
            for key, stored in zip(keys, found, strict=True):
                # What may not be read may not be written: that is told of.
                if not stored.is_gone:
                    pipe.hset(_raw(key), "owner", owner)
            pipe.execute()

    def reschedule(self, key: str, meta: str, score: str) -> None:
        """See :meth:`Storage.write_run`."""
        with self.client.pipeline(transaction=self.storage.has_transactions) as pipe:
            pipe.hset(key, "meta", meta)
            pipe.zadd(self.storage.schedule_key, {key: score})
            pipe.execute()
        self._tell(score)

    def _tell(self, score: str) -> None:
        try:
            self.client.publish(self.storage.channel, score)
        except ResponseError as exc:
            self.storage.do_without("PUBLISH", exc)

    def extend_lock(self, key: str, token: str, milliseconds: int, new_token: str) -> bool:
        """See :meth:`Storage.extend_lock`."""
        return self._holder(key) in (token, new_token) and bool(
            self.client.set(key, _raw(new_token), px=milliseconds, xx=True)
        )

    def take_over_lock(
        self, key: str, token: str, new_token: str, milliseconds: int, silent_below: int
    ) -> bool:
        """See :meth:`Storage.take_over_lock`."""
        stored, remaining = self.storage.read_lock(key)
        if stored == new_token:
            return True
        if stored != token or not 0 <= remaining < silent_below:
            return False
        return bool(self.client.set(key, _raw(new_token), px=milliseconds, xx=True))

    def release_lock(self, key: str, token: str) -> bool:
        """See :meth:`Storage.release_lock`."""
        return self._holder(key) == token and bool(self.client.delete(key))

    def _holder(self, key: str) -> str | None:
        return _optional_text(self.client.execute_command("GET", key, **UNDECODED))


def _range(
    client: Any, schedule: str, low: float | str, high: float | str, limit: int | None = None
) -> Any:
    bounds = () if limit is None else ("LIMIT", 0, limit)
    arguments = (schedule, low, high, "WITHSCORES", *bounds)
    return client.execute_command("ZRANGEBYSCORE", *arguments, **UNDECODED)


def _members(reply: Sequence[Any]) -> list[Member]:
    """Pairs of member and score: nested by the RESP 3 protocol, flat by RESP 2 and by scripts."""
    if reply and not isinstance(reply[0], (bytes, str)):
        return [Member(text(key), float(score)) for key, score in reply]
    parts = iter(reply)
    return [Member(text(key), float(score)) for key, score in zip(parts, parts, strict=True)]


def text(reply: Any) -> str:
    """What Redis holds, as text; bytes that are no UTF-8 stand in it as lone surrogates.

    A client may have made text or a number of it already.
    """
    return reply.decode("utf-8", "surrogateescape") if isinstance(reply, bytes) else str(reply)


def may_tell_slot(score: float) -> bool:
    """Whether a score may tell the first slot of an entry without a history.

    A whole one is that slot, as its writer gave it. One with a fraction below one half is that of a
    claim, or of a time at which an entry was given back, whose own score may have told one: beat
    was killed before it could read the entry.
    """
    return score > 0 and score % 1 < OTHER_LEASE


def lease_of(lease: float, score: float) -> float:
    """The score under ``lease`` of an entry that had this one; it tells no less of a slot."""
    return lease if may_tell_slot(score) else lease + OTHER_LEASE


def due_by(now: float, score: float) -> float:
    """A score that is due at ``now``, and may tell a slot as far as this one."""
    return math.floor(now) - 1 + (0.25 if may_tell_slot(score) else 0.75)


def may_be_written(score: float) -> bool:
    """Whether a program may have written this score: those are whole seconds.

    A lease bears a fraction, and so does the time to which beat has moved a paused interval.
    """
    return score.is_integer()


@contextmanager
def _naming(*calls: Call) -> Iterator[None]:
    """Say which scripts on which keys were refused: a server knows them by their digests."""
    try:
        yield
    except ResponseError as exc:
        # Others are made of more than a text, or tell of something else than these scripts.
        if type(exc) not in REFUSALS:
            raise
        reason = said(exc)
        steps = {script.step: keys for script, keys, _ in calls}
        for script, _, _ in calls:
            command = _refused_line(script, reason)
            reason = f"{reason.replace(script.digest, script.name)}{command}"
        told = " and ".join(f"{step} ({_few(keys)})" for step, keys in steps.items())
        raise type(exc)(f"Redis refused to {told}{SAYS}{reason}") from exc


def _refused_line(script: Script, reason: str) -> str:
    """The commands on the line of a script that the server names; empty if it does not."""
    found = re.search(rf"{script.digest}, on @user_script:(\d+)", reason)
    lines = script.text.split("\n")
    if found is None or int(found[1]) > len(lines):
        return ""
    commands = re.findall(r"redis\.p?call\(['\"](\w+)", lines[int(found[1]) - 1])
    return f" ({', '.join(commands)})" if commands else ""


def _few(keys: Sequence[Key]) -> str:
    more = len(keys) - NAMED_KEYS
    return ", ".join(map(text, keys[:NAMED_KEYS])) + (f" and {more} more" if more > 0 else "")


def _without_errors(replies: list[Any]) -> list[Any]:
    """The replies of a transaction; raises what the first command in it failed with."""
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies


def _stored(reply: Any) -> Stored:
    if not isinstance(reply, Exception):
        definition, meta, set_aside, zones = map(_optional_text, reply)
        # A user who may not run HDEL empties a field.
        return Stored(definition, meta, set_aside or None, zones=zones or None)
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return Stored()
    if isinstance(reply, NoPermissionError) and is_of_one_key(reply):
        return Stored(refusal=reply)
    raise reply


def _refusals(keys: Sequence[str], replies: Sequence[Any]) -> dict[str, ResponseError]:
    """The errors among replies that concern one key; raises another one."""
    refused = {}
    for key, reply in zip(keys, replies, strict=True):
        if isinstance(reply, ResponseError) and is_of_one_key(reply):
            refused[key] = _named(reply, key)
        elif isinstance(reply, Exception):
            raise reply
    return refused


def _named(exc: ResponseError, key: str) -> ResponseError:
    """The refusal of a key with the key in its text, which the server does not always name."""
    reason = SCRIPT_PLACE.sub("", str(exc).rpartition("caused error: ")[2])
    return type(exc)(f"{reason.rstrip('.')} (the key is {one_line(key)})")


def _change(
    steps: ScriptedSteps | PlainSteps,
    drafts: Sequence[Draft],
    deleted: Sequence[str],
    refused: Mapping[str, ResponseError],
) -> Changed:
    """Make a change as a whole; of removals alone, those that Redis does not refuse."""
    if drafts and refused:
        return Changed([], 0)
    kept = [key for key in deleted if key not in refused]
    return steps.change(drafts, kept) if drafts or kept else Changed([], 0)


def _without_hashes(
    outcomes: Sequence[Outcome], refused: Mapping[str, ResponseError]
) -> list[Outcome]:
    """The outcomes, where an entry whose hash is refused is set aside by its score alone."""
    return [
        Outcome(outcome.key, SET_ASIDE) if outcome.key in refused else outcome
        for outcome in outcomes
    ]


def _optional_text(reply: Any) -> str | None:
    """The text of a reply; whatever else a stand-in for a client returns is no text."""
    return text(reply) if isinstance(reply, (bytes, str)) else None


def _hash_tag(key: str) -> str | None:
    """The part of a key that decides on its slot; ``None``: all of it does."""
    found = HASH_TAG.match(key)
    return found[1] if found else None


def _raw(key: str) -> bytes:
    """The way back from :func:`text`."""
    return key.encode("utf-8", "surrogateescape")


def _sized(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in groups of so many at the most."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _record(pipe: Any, outcome: Outcome, known: str) -> None:
    is_new = not outcome.seen_meta and '"total_run_count"' not in known
    if outcome.meta and (known == outcome.seen_meta or is_new):
        pipe.hset(_raw(outcome.key), "meta", outcome.meta)
    if outcome.reason:
        pipe.hset(_raw(outcome.key), "set_aside", outcome.reason)


def _store(pipe: Any, schedule: str, draft: Draft, had_zones: bool) -> None:
    key = _raw(draft.key)
    zones = {"zones": draft.zones} if draft.zones or had_zones else {}
    pipe.hset(key, mapping={"definition": draft.definition, **zones})
    if draft.replaces_meta:
        pipe.hset(key, "meta", draft.meta)
    else:
        pipe.hsetnx(key, "meta", draft.meta)
    pipe.zadd(schedule, {key: draft.score})


def _first_due(drafts: Sequence[Draft]) -> str:
    """What a change tells: the first due time in it, nothing if there is none."""
    scores = [draft.score for draft in drafts if draft.score >= 0]
    return repr(min(scores)) if scores else ""


def _conflict(draft: Draft, stored: Stored) -> str | None:
    """What stands against a draft; see :class:`Changed`."""
    if not draft.replaces(stored.definition):
        return None
    meta = stored.meta or ""
    return "" if meta == draft.seen_meta else meta


def _without_conflict(drafts: Sequence[Draft], conflicts: Sequence[str | None]) -> list[Draft]:
    # A stand-in for a client, as applications' tests inject, answers nothing.
    return [draft for draft, conflict in zip(drafts, conflicts, strict=False) if conflict == ""]


def _save_arguments(drafts: Iterable[Draft]) -> list[Any]:
    return [
        part
        for draft in drafts
        for part in (
            draft.definition,
            _raw(draft.seen_meta),
            draft.meta,
            repr(draft.score),
            int(draft.replaces_meta),
            int(draft.seen_definition is not None),
            _raw(draft.seen_definition or ""),
            draft.zones,
        )
    ]


def _discard_arguments(seen: Iterable[Seen]) -> list[bytes]:
    return [_raw(getattr(each.stored, field) or "") for each in seen for field in FIELDS]


def _record_arguments(outcomes: Iterable[Outcome]) -> list[str | bytes]:
    return [
        part
        for outcome in outcomes
        for part in (outcome.meta, _raw(outcome.seen_meta), outcome.reason)
    ]


def _advance_arguments(lease: float, outcomes: Iterable[Outcome]) -> list[str | bytes]:
    arguments: list[str | bytes] = [repr(lease)]
    for outcome in outcomes:
        arguments += [_raw(outcome.key), "" if outcome.score is None else repr(outcome.score)]
    return arguments
