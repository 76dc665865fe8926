"""The schedule in Redis: every key, every command and every script of the package.

An entry is a hash, ``<prefix><name>``, with the fields ``definition`` and ``meta`` (JSON that other
modules write and read) and, while it is set aside, ``set_aside``. The schedule is one sorted set of
these keys by due time, in seconds since the epoch, UTC. A score below zero is never due: ``-1`` for
an entry with nothing left to run, ``-2`` for one that is set aside.

What must be atomic is a Lua script (``redbeat/lua``), called by its digest and loaded again when
the server has forgotten it. A server without scripting gets the same steps as plain commands, with
one warning: two beats that share a schedule on it may then run an entry twice.

A script touches the keys of one slot. Where the hashes and the schedule live in different slots (a
Redis Cluster and a prefix without a ``{hash tag}``), a change to both takes two steps, in the order
that loses nothing: hash first, schedule second.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, NamedTuple, TypeVar

from celery.utils.log import get_logger
from redis.client import NEVER_DECODE
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

logger = get_logger("celery.beat")

FINISHED = -1.0
SET_ASIDE = -2.0

#: A redis-py client, plain, cluster or sentinel; a fake of one; or a wrapper around one.
Client = Any

Key = str | bytes

#: What redis-py raises when a server cannot be reached, or refuses for now.
OUTAGES = (RedisError, RedisClusterException)

Result = TypeVar("Result")
Item = TypeVar("Item")

#: How many entries one script changes at the most: other clients wait for its end.
SCRIPT_SIZE = 1000

#: Seconds at the most for forgetting changes that the next tick sees anyway.
DRAIN_TIME = 0.05

#: For redis-py: leave a reply as bytes. Others may have written what is no UTF-8, and one such
#: entry must not keep the rest from being read.
UNDECODED = {NEVER_DECODE: True}


class Script(NamedTuple):
    """A Lua script and the SHA-1 digest under which a server knows it."""

    text: str
    digest: str


def load_script(name: str) -> Script:
    """Read ``redbeat/lua/<name>.lua``."""
    text = resources.files("redbeat").joinpath("lua", f"{name}.lua").read_text()
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


#: A script with its keys and arguments.
Call = tuple[Script, Sequence[Key], Sequence[Any]]

CLAIM = load_script("claim")
ADVANCE = load_script("advance")
RECORD = load_script("record")
SAVE = load_script("save")
DELETE = load_script("delete")
RESCHEDULE = load_script("reschedule")
EXTEND_TO = load_script("extend_to")
RELEASE = load_script("release")
TAKE_OVER = load_script("take_over")


class Member(NamedTuple):
    """One member of the schedule: an entry's key and its score."""

    key: str
    score: float


class Stored(NamedTuple):
    """The fields of an entry's hash, ``None`` where there is none."""

    definition: str | None
    meta: str | None
    set_aside: str | None


class Draft(NamedTuple):
    """An entry that is to be stored.

    ``seen_meta`` is the stored meta that ``score`` was computed from, ``""`` for a new entry. A
    stored meta stays; ``meta`` is that of a new entry.
    """

    key: str
    definition: str
    seen_meta: str
    meta: str
    score: float


class Changed(NamedTuple):
    """What became of a change: for each draft the meta that stood against it, and the removals."""

    conflicts: list[str]
    deleted: int


class Claimed(NamedTuple):
    """What a claim found: leased members with the scores they had, and what is not due now."""

    due: list[Member]
    later: Member | None
    set_aside: int


class Outcome(NamedTuple):
    """What a commit writes for one claimed entry.

    ``score`` is its next due time, ``None`` to drop it from the schedule. ``meta`` and ``runs`` are
    given when it ran, ``reason`` when it is set aside; ``clears`` takes an earlier reason away.
    """

    key: str
    score: float | None
    meta: str = ""
    runs: int = 0
    reason: str = ""
    clears: bool = False

    @property
    def changes_hash(self) -> bool:
        """Whether more than the score is to be written."""
        return bool(self.meta or self.reason or self.clears)


@dataclass
class Storage:
    """The schedule of one application; costs are in round trips to Redis.

    ``schedule_key``, ``statics_key`` and ``reports_key`` are whole keys, and ``channel`` is where
    changes are told. All methods raise what redis-py raises.
    """

    client: Client
    schedule_key: str
    statics_key: str
    channel: str
    reports_key: str
    _steps: ScriptedSteps | PlainSteps = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._steps = ScriptedSteps(self)

    @property
    def keys(self) -> tuple[str, str, str, str]:
        """The names that this schedule goes by in Redis."""
        return self.schedule_key, self.statics_key, self.channel, self.reports_key

    @property
    def is_cluster(self) -> bool:
        """Whether the client is one of Redis Cluster, which knows no transactions over nodes."""
        return hasattr(self.client, "nodes_manager")

    @property
    def one_slot(self) -> bool:
        """Whether a script may touch an entry's hash and the schedule at once."""
        return "{" in self.schedule_key or not self.is_cluster

    def _atomically(self, operation: Callable[[ScriptedSteps | PlainSteps], Result]) -> Result:
        try:
            return operation(self._steps)
        except ResponseError as exc:
            if isinstance(self._steps, PlainSteps) or not _refuses_scripts(exc):
                raise
            logger.warning(
                "beat: This Redis runs no scripts (%s): using plain commands. Run one beat only: "
                "two of them could run an entry twice.",
                exc,
            )
            self._steps = PlainSteps(self)
            return operation(self._steps)

    # One entry

    def read_definition(self, key: str) -> str | None:
        """The entry's ``definition``; one round trip."""
        return _optional_text(self.client.hget(key, "definition"))

    def read_meta(self, key: str) -> str | None:
        """The entry's ``meta``; one round trip."""
        return _optional_text(self.client.hget(key, "meta"))

    def read_entries(self, keys: Sequence[str]) -> list[Stored]:
        """The hashes of the entries, in the order of ``keys``; one round trip, none for no keys.

        A key that holds something else than a hash reads as one that is not there.
        """
        if not keys:
            return []
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.execute_command("HMGET", _raw(key), *Stored._fields, **UNDECODED)
            return [_stored(reply) for reply in pipe.execute(raise_on_error=False)]

    def change_entries(self, drafts: Sequence[Draft], deleted: Sequence[str] = ()) -> Changed:
        """Store the drafts and remove the entries at the keys ``deleted`` as one change; tell beat.

        One round trip, none for nothing. A draft is not stored if another run was recorded since
        its score was computed: then its place in ``conflicts`` holds the meta that is stored by
        now, and else ``""``. In a cluster, entries are changed one by one.
        """
        if not drafts and not deleted:
            return Changed([], 0)
        return self._atomically(lambda steps: steps.change(drafts, deleted))

    def write_run(self, key: str, meta: str, score: float) -> None:
        """Store meta and score of an entry, whatever is stored, and tell beat; one round trip."""
        self._atomically(lambda steps: steps.reschedule(key, meta, repr(score)))

    def read_rank(self, key: str) -> int | None:
        """The entry's position in the schedule, from 0; one round trip."""
        rank: int | None = self.client.zrank(self.schedule_key, key)
        return rank

    # The schedule

    def read_due(self, now: float, horizon: float) -> list[Member]:
        """The members due by ``now`` and the first one due by ``horizon``; one round trip."""
        with self.client.pipeline(transaction=False) as pipe:
            _range(pipe, self.schedule_key, 0, now)
            _range(pipe, self.schedule_key, f"({now!r}", horizon, limit=1)
            due, later = pipe.execute()
        return _members(due) + _members(later)

    def read_first(self) -> Member | None:
        """The first member that is due or will be; one round trip."""
        return next(
            iter(_members(_range(self.client, self.schedule_key, 0, "+inf", limit=1))), None
        )

    def read_between(self, after: float, until: float) -> list[Member]:
        """The members due after one time and by another; one round trip."""
        return _members(_range(self.client, self.schedule_key, f"({after!r}", until))

    def read_set_aside(self) -> list[Member]:
        """The members that are set aside; one round trip."""
        return _members(_range(self.client, self.schedule_key, SET_ASIDE, SET_ASIDE))

    def read_page(
        self, low: float | str, high: float, size: int, after: Member | None = None
    ) -> list[Member]:
        """The first ``size`` members with scores from ``low`` to ``high``; one round trip.

        ``after``: the next ones, after that member; two round trips. What is moved meanwhile to a
        later time may come twice, and nothing is left out.
        """
        if after is None:
            return _members(_range(self.client, self.schedule_key, low, high, limit=size))
        with self.client.pipeline(transaction=False) as pipe:
            pipe.zrank(self.schedule_key, _raw(after.key))
            pipe.zscore(self.schedule_key, _raw(after.key))
            pipe.zcount(self.schedule_key, "-inf", f"({after.score!r}")
            rank, score, lower = pipe.execute()
        start = rank + 1 if score == after.score else lower
        arguments = (self.schedule_key, start, start + size - 1, "WITHSCORES")
        members = _members(self.client.execute_command("ZRANGE", *arguments, **UNDECODED))
        return [member for member in members if member.score <= high]

    def count_between(self, *bounds: tuple[float | str, float | str]) -> list[int]:
        """How many members have scores within each pair of bounds; one round trip."""
        with self.client.pipeline(transaction=False) as pipe:
            for low, high in bounds:
                pipe.zcount(self.schedule_key, low, high)
            return list(pipe.execute())

    def count_members(self) -> int:
        """How many entries the schedule has; one round trip."""
        count: int = self.client.zcard(self.schedule_key)
        return count

    def find_members(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that the schedule has; one round trip, none for no keys."""
        scores = self.read_scores(keys)
        return {key for key, score in zip(keys, scores, strict=False) if score is not None}

    def read_scores(self, keys: Sequence[str]) -> list[float | None]:
        """The scores of the keys, `None` for no member; one round trip, none for no keys."""
        if not keys:
            return []
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.zscore(self.schedule_key, _raw(key))
            return list(pipe.execute())

    def drop_member(self, key: str) -> None:
        """Take a key out of the schedule and leave its hash alone; one round trip."""
        self.client.zrem(self.schedule_key, _raw(key))

    def claim_due(self, now: float, lease: float, limit: int, horizon: float) -> Claimed:
        """Lease up to ``limit`` entries due by ``now``, until ``lease``; one round trip.

        ``lease`` must be unique to this claim: asking again with the same one gives the same
        entries. ``later`` is the first entry due after ``now`` and by ``horizon``.
        """
        return self._atomically(lambda steps: steps.claim(now, lease, limit, horizon))

    def commit(self, lease: float, outcomes: Sequence[Outcome]) -> int:
        """Write what became of the entries claimed under ``lease``; one round trip, none for none.

        Returns how many of them were still under it. The others were deleted, saved anew or claimed
        by another beat: their scores are left as they are.
        """
        if not outcomes:
            return 0
        return self._atomically(lambda steps: steps.commit(lease, outcomes))

    # Changes

    def listen(self) -> Listener:
        """Subscribe to the channel on which changes are told; one round trip."""
        return Listener(self.client, self.channel)

    # Static entries

    def read_statics(self) -> set[str]:
        """The names that came from ``beat_schedule``; one round trip."""
        return set(self.client.smembers(self.statics_key))

    def write_statics(self, added: Iterable[str], removed: Iterable[str]) -> None:
        """Change the names that came from ``beat_schedule``; one round trip at the most."""
        added, removed = list(added), list(removed)
        if not added and not removed:
            return
        with self.client.pipeline(transaction=not self.is_cluster) as pipe:
            if removed:
                pipe.srem(self.statics_key, *removed)
            if added:
                pipe.sadd(self.statics_key, *added)
            pipe.execute()

    # Reports

    def read_reports(self) -> dict[str, str]:
        """What beats tell of their work, by the name of the beat; one round trip."""
        return dict(self.client.hgetall(self.reports_key))

    def write_report(self, name: str, report: str) -> None:
        """Store what the beat ``name`` tells of its work; one round trip."""
        self.client.hset(self.reports_key, name, report)

    def forget_reports(self, names: Sequence[str]) -> None:
        """Remove what these beats told; one round trip, none for no names."""
        if names:
            self.client.hdel(self.reports_key, *names)

    # The lock

    def read_lock(self, key: str) -> tuple[str | None, int]:
        """The token that holds the lock, and its time to live in milliseconds; one round trip."""
        with self.client.pipeline(transaction=not self.is_cluster) as pipe:
            pipe.get(key)
            pipe.pttl(key)
            reply = pipe.execute()
        # A stand-in for a client, as applications' tests inject, holds no lock.
        token, remaining = reply if isinstance(reply, list) else (None, 0)
        return token, remaining

    def extend_lock(self, key: str, token: str, milliseconds: int, new_token: str) -> bool:
        """Renew the lock to its full time to live if ``token`` holds it; one round trip.

        From then on it is held under ``new_token``, which may be the same.
        """
        return self._atomically(
            lambda steps: steps.extend_lock(key, token, milliseconds, new_token)
        )

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
        direct = getattr(self.client, "__dict__", {}).get("wrapped_connection", self.client)
        if direct is not self.client:
            return replace(self, client=direct).release_lock(key, token)
        return self._atomically(lambda steps: steps.release_lock(key, token))


def _refuses_scripts(exc: ResponseError) -> bool:
    text = str(exc).lower()
    return "evalsha" in text and (isinstance(exc, NoPermissionError) or "unknown command" in text)


class Listener:
    """A subscription to changes: each is told as the score that it gave to some entry."""

    def __init__(self, client: Client, channel: str) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(channel)

    def wait(self, seconds: float, before: float) -> bool:
        """Wait until told of an entry that is due before ``before``, for so many seconds at most.

        Returns whether one was told. Costs no round trip.
        """
        wakes_at = time.monotonic() + seconds
        while (remaining := wakes_at - time.monotonic()) > 0:
            message = self._pubsub.get_message(timeout=remaining)
            if message is not None and _is_before(message["data"], before):
                self._drain()
                return True
        return False

    def _drain(self) -> None:
        """Forget what else was told: the tick that follows sees it all."""
        ends_at = time.monotonic() + DRAIN_TIME
        while self._pubsub.get_message(timeout=0) is not None and time.monotonic() < ends_at:
            pass

    def close(self) -> None:
        """End the subscription."""
        self._pubsub.close()


def _is_before(told: str, moment: float) -> bool:
    try:
        return 0 <= float(told) < moment
    except ValueError:
        return False


class ScriptedSteps:
    """The atomic steps as scripts: each costs one round trip, two when the server must load one."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.client = storage.client

    def claim(self, now: float, lease: float, limit: int, horizon: float) -> Claimed:
        """See :meth:`Storage.claim_due`."""
        arguments = (repr(now), repr(lease), limit, repr(horizon))
        schedule = self.storage.schedule_key
        due, later, set_aside = self._call(CLAIM, [schedule], arguments)
        return Claimed(_members(due), next(iter(_members(later)), None), set_aside)

    def commit(self, lease: float, outcomes: Sequence[Outcome]) -> int:
        """See :meth:`Storage.commit`."""
        calls: list[Call] = [
            (RECORD, [_raw(outcome.key) for outcome in group], _record_arguments(group))
            for group in self._groups([outcome for outcome in outcomes if outcome.changes_hash])
        ]
        calls.append((ADVANCE, [self.storage.schedule_key], _advance_arguments(lease, outcomes)))
        held: int = self._call_in_turn(calls)[-1]
        return held

    def change(self, drafts: Sequence[Draft], deleted: Sequence[str]) -> Changed:
        """See :meth:`Storage.change_entries`."""
        saves = [
            self._change(SAVE, [draft.key for draft in group], _save_arguments(group))
            for group in self._groups(drafts)
        ]
        removals = [self._change(DELETE, group, []) for group in self._groups(deleted)]
        replies = self._call_in_turn(saves + removals)
        conflicts = [text(conflict) for reply in replies[: len(saves)] for conflict in reply]
        if not self.storage.one_slot:
            self._move_members(_without_conflict(drafts, conflicts), deleted)
        return Changed(conflicts, sum(replies[len(saves) :]))

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

    def reschedule(self, key: str, meta: str, score: str) -> None:
        """See :meth:`Storage.write_run`."""
        self._call(RESCHEDULE, self._keys(key), (meta, score, self.storage.channel))
        if not self.storage.one_slot:
            self.client.zadd(self.storage.schedule_key, {key: score})

    def extend_lock(self, key: str, token: str, milliseconds: int, new_token: str) -> bool:
        """See :meth:`Storage.extend_lock`."""
        return bool(self._call(EXTEND_TO, [key], (token, milliseconds, new_token)))

    def take_over_lock(
        self, key: str, token: str, new_token: str, milliseconds: int, silent_below: int
    ) -> bool:
        """See :meth:`Storage.take_over_lock`."""
        arguments = (token, new_token, milliseconds, silent_below)
        return bool(self._call(TAKE_OVER, [key], arguments))

    def release_lock(self, key: str, token: str) -> bool:
        """See :meth:`Storage.release_lock`."""
        return bool(self._call(RELEASE, [key], (token,)))

    def _keys(self, key: str) -> list[str]:
        """The keys of a change to one entry, as far as one script may touch them."""
        return [key, self.storage.schedule_key] if self.storage.one_slot else [key]

    def _groups(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """What is said of entries, by what one script may touch at once."""
        size = SCRIPT_SIZE if self.storage.one_slot else 1
        return [items[start : start + size] for start in range(0, len(items), size)]

    def _call(self, script: Script, keys: Sequence[Key], arguments: Sequence[Any]) -> Any:
        operands = (len(keys), *keys, *arguments)
        try:
            return self.client.execute_command("EVALSHA", script.digest, *operands, **UNDECODED)
        except NoScriptError:
            return self.client.execute_command("EVAL", script.text, *operands, **UNDECODED)

    def _call_in_turn(self, calls: Sequence[Call]) -> list[Any]:
        """One transaction; in a cluster, and to load scripts, one by one."""
        if self.storage.is_cluster or len(calls) == 1:
            return [self._call(*call) for call in calls]
        try:
            with self.client.pipeline(transaction=True) as pipe:
                for script, keys, arguments in calls:
                    operands = (len(keys), *keys, *arguments)
                    pipe.execute_command("EVALSHA", script.digest, *operands, **UNDECODED)
                return list(pipe.execute())
        except NoScriptError:
            return [self._call(*call) for call in calls]


class PlainSteps:
    """The same steps as plain commands, for a server that runs no scripts.

    Nothing stands between the reads and the writes, so two beats may claim the same entry. Each
    costs two round trips at the most.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.client = storage.client

    def claim(self, now: float, lease: float, limit: int, horizon: float) -> Claimed:
        """See :meth:`Storage.claim_due`."""
        schedule = self.storage.schedule_key
        with self.client.pipeline(transaction=False) as pipe:
            _range(pipe, schedule, lease, lease)
            _range(pipe, schedule, 0, now, limit=limit)
            _range(pipe, schedule, f"({now!r}", horizon, limit=1)
            pipe.zcount(schedule, SET_ASIDE, SET_ASIDE)
            *ranges, set_aside = pipe.execute()
        leased, due, later = map(_members, ranges)
        if due:
            self.client.zadd(schedule, {_raw(key): lease for key, _ in due}, xx=True)
        claimed = [Member(key, now) for key, _ in leased] + due
        return Claimed(claimed, next(iter(later), None), set_aside)

    def commit(self, lease: float, outcomes: Sequence[Outcome]) -> int:
        """See :meth:`Storage.commit`."""
        schedule = self.storage.schedule_key
        stored = self._read_stored(outcomes)
        held = 0
        with self.client.pipeline(transaction=not self.storage.is_cluster) as pipe:
            for outcome, (score, is_there) in zip(outcomes, stored, strict=True):
                if is_there:
                    _record(pipe, outcome)
                if score != lease:
                    continue
                held += 1
                if outcome.score is None:
                    pipe.zrem(schedule, _raw(outcome.key))
                else:
                    pipe.zadd(schedule, {_raw(outcome.key): outcome.score})
            pipe.execute()
        return held

    def _read_stored(self, outcomes: Sequence[Outcome]) -> list[tuple[float | None, bool]]:
        with self.client.pipeline(transaction=False) as pipe:
            for outcome in outcomes:
                pipe.zscore(self.storage.schedule_key, _raw(outcome.key))
                pipe.hexists(_raw(outcome.key), "definition")
            replies = iter(pipe.execute(raise_on_error=False))
        # A member whose key holds something else than a hash is no entry.
        return [(score, is_there is True) for score, is_there in zip(replies, replies, strict=True)]

    def change(self, drafts: Sequence[Draft], deleted: Sequence[str]) -> Changed:
        """See :meth:`Storage.change_entries`."""
        metas = [stored.meta or "" for stored in self.storage.read_entries([d.key for d in drafts])]
        conflicts = [
            "" if meta == draft.seen_meta else meta
            for draft, meta in zip(drafts, metas, strict=True)
        ]
        stored = _without_conflict(drafts, conflicts)
        with self.client.pipeline(transaction=not self.storage.is_cluster) as pipe:
            for draft in stored:
                _store(pipe, self.storage.schedule_key, draft)
            for key in deleted:
                pipe.zrem(self.storage.schedule_key, _raw(key))
                pipe.delete(_raw(key))
            replies = iter(pipe.execute()[len(stored) * 4 :])
        if stored or deleted:
            self._tell(_first_due(stored))
        return Changed(conflicts, sum(map(max, replies, replies)))

    def reschedule(self, key: str, meta: str, score: str) -> None:
        """See :meth:`Storage.write_run`."""
        with self.client.pipeline(transaction=not self.storage.is_cluster) as pipe:
            pipe.hset(key, "meta", meta)
            pipe.zadd(self.storage.schedule_key, {key: score})
            pipe.execute()
        self._tell(score)

    def _tell(self, score: str) -> None:
        try:
            self.client.publish(self.storage.channel, score)
        except ResponseError:
            logger.debug("beat: This Redis refuses PUBLISH; beat finds the change when it polls.")

    def extend_lock(self, key: str, token: str, milliseconds: int, new_token: str) -> bool:
        """See :meth:`Storage.extend_lock`."""
        return self.client.get(key) == token and bool(
            self.client.set(key, new_token, px=milliseconds, xx=True)
        )

    def take_over_lock(
        self, key: str, token: str, new_token: str, milliseconds: int, silent_below: int
    ) -> bool:
        """See :meth:`Storage.take_over_lock`."""
        stored, remaining = self.storage.read_lock(key)
        if stored != token or not 0 <= remaining < silent_below:
            return False
        return bool(self.client.set(key, new_token, px=milliseconds, xx=True))

    def release_lock(self, key: str, token: str) -> bool:
        """See :meth:`Storage.release_lock`."""
        return self.client.get(key) == token and bool(self.client.delete(key))


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


def text(reply: bytes | str) -> str:
    """What Redis holds, as text; bytes that are no UTF-8 stand in it as lone surrogates."""
    return reply.decode("utf-8", "surrogateescape") if isinstance(reply, bytes) else reply


def printable(text: str) -> str:
    """What :func:`text` returned, fit for a log: lone surrogates escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _stored(reply: Any) -> Stored:
    if not isinstance(reply, Exception):
        return Stored(*map(_optional_text, reply))
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return Stored(None, None, None)
    raise reply


def _optional_text(reply: Any) -> str | None:
    """The text of a reply; whatever else a stand-in for a client returns is no text."""
    return text(reply) if isinstance(reply, (bytes, str)) else None


def _raw(key: str) -> bytes:
    """The way back from :func:`text`."""
    return key.encode("utf-8", "surrogateescape")


def _record(pipe: Any, outcome: Outcome) -> None:
    if outcome.meta:
        pipe.hset(_raw(outcome.key), "meta", outcome.meta)
    if outcome.reason:
        pipe.hset(_raw(outcome.key), "set_aside", outcome.reason)
    elif outcome.clears:
        pipe.hdel(_raw(outcome.key), "set_aside")


def _store(pipe: Any, schedule: str, draft: Draft) -> None:
    key = _raw(draft.key)
    pipe.hset(key, "definition", draft.definition)
    pipe.hsetnx(key, "meta", draft.meta)
    pipe.hdel(key, "set_aside")
    pipe.zadd(schedule, {key: draft.score})


def _first_due(drafts: Sequence[Draft]) -> str:
    """What a change tells: the first due time in it, nothing if there is none."""
    scores = [draft.score for draft in drafts if draft.score >= 0]
    return repr(min(scores)) if scores else ""


def _without_conflict(drafts: Sequence[Draft], conflicts: Sequence[str]) -> list[Draft]:
    # A stand-in for a client, as applications' tests inject, answers nothing.
    return [draft for draft, conflict in zip(drafts, conflicts, strict=False) if not conflict]


def _save_arguments(drafts: Iterable[Draft]) -> list[Any]:
    return [
        part
        for draft in drafts
        for part in (draft.definition, draft.seen_meta, draft.meta, repr(draft.score))
    ]


def _record_arguments(outcomes: Iterable[Outcome]) -> list[str | int]:
    return [part for outcome in outcomes for part in (outcome.meta, outcome.runs, outcome.reason)]


def _advance_arguments(lease: float, outcomes: Iterable[Outcome]) -> list[str | bytes]:
    arguments: list[str | bytes] = [repr(lease)]
    for outcome in outcomes:
        arguments += [_raw(outcome.key), "" if outcome.score is None else repr(outcome.score)]
    return arguments
