"""The same steps as plain commands, for a server that does not run scripts.

Nothing holds the reads and the writes together, so two beats may claim the same entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from .access import Access
from .commands import (
    ask,
    ask_for_each,
    first_member,
    get_fields,
    members,
    range_by_score,
    raw,
    read_hashes,
    refusals,
    stored,
)
from .keys import OTHER_LEASE, SET_ASIDE, OwnKeys, due_by, lease_of
from .records import Changed, Claimed, Draft, Member, Outcome, Seen, Wanted
from .topology import Topology


class PlainSteps:
    """The steps as plain commands: each costs two round trips at most.

    One more where entries were set aside until now; two more for a claim from the end.
    """

    def __init__(self, access: Access, keys: OwnKeys, topology: Topology) -> None:
        self.topology = topology
        self._access, self._client = access, access.direct
        self._schedule_key, self._channel = keys.schedule_key, keys.channel

    def claim(self, wanted: Wanted) -> Claimed:
        """Lease what is due; sizes are not known."""
        schedule, (now, lease, limit, horizon, *_) = self._schedule_key, wanted
        with self._client.pipeline(transaction=False) as pipe:
            for each in (lease, lease + OTHER_LEASE):
                range_by_score(pipe, schedule, each, each)
            range_by_score(pipe, schedule, 0, now, limit=limit)
            range_by_score(pipe, schedule, f"({now!r}", horizon, limit=1)
            range_by_score(pipe, schedule, SET_ASIDE, SET_ASIDE, limit=1)
            leased, others, due, later, set_aside = map(members, pipe.execute())
        leaves_more = len(due) == limit
        if wanted.from_end and leaves_more:
            due = self._last_due(now, limit)
        if due:
            leases = {raw(key): lease_of(lease, score) for key, score in due}
            self._client.zadd(schedule, leases, xx=True)
        claimed = [Member(key, due_by(now, score)) for key, score in leased + others] + due
        return Claimed(claimed, next(iter(later), None), bool(set_aside), leaves_more=leaves_more)

    def _last_due(self, now: float, limit: int) -> list[Member]:
        """The members that became due last, the last one first; up to three round trips."""
        schedule = self._schedule_key
        beyond = first_member(range_by_score(self._client, schedule, f"({now!r}", "+inf", limit=1))
        count = self._client.zrank(schedule, raw(beyond.key)) if beyond else 0
        first, last = (max(count - limit, 0), count - 1) if count else (-limit, -1)
        found = members(ask(self._client, "ZRANGE", schedule, first, last, "WITHSCORES"))
        return [member for member in reversed(found) if 0 <= member.score <= now]

    def move(self, moves: Sequence[tuple[Member, Outcome]]) -> int:
        """Write outcomes for members that still have their scores; how many those were."""
        schedule, held = self._schedule_key, 0
        with self._client.pipeline(transaction=False) as pipe:
            for _, outcome in moves:
                pipe.zscore(schedule, raw(outcome.key))
                get_fields(pipe, outcome.key)
            replies = pipe.execute(raise_on_error=False)
        scores, hashes = replies[::2], list(map(stored, replies[1::2]))
        with self._client.pipeline(transaction=self.topology.has_transactions) as pipe:
            for (member, outcome), score, known in zip(moves, scores, hashes, strict=True):
                key = raw(outcome.key)
                if known.definition is not None:
                    meta = known.meta or ""
                    is_new = not outcome.seen_meta and '"total_run_count"' not in meta
                    if outcome.meta and (meta == outcome.seen_meta or is_new):
                        pipe.hset(key, "meta", outcome.meta)
                    if outcome.reason:
                        pipe.hset(key, "set_aside", outcome.reason)
                if score != member.score:
                    continue
                held += 1
                if outcome.score is None:
                    pipe.zrem(schedule, key)
                else:
                    pipe.zadd(schedule, {key: outcome.score})
            pipe.execute()
        self._clear_reasons(
            [
                outcome.key
                for (_, outcome), known in zip(moves, hashes, strict=True)
                if outcome.clears and known.definition is not None
            ]
        )
        return held

    def change(self, drafts: Sequence[Draft], deleted: Sequence[str]) -> Changed:
        """Store drafts and remove entries, as one change; publish it."""
        # Raises if a key is refused or holds something else: a transaction would go on after that.
        replies = ask_for_each(self._client, [draft.key for draft in drafts], get_fields)
        found = list(map(stored, replies))
        conflicts = [draft.conflict_with(known) for draft, known in zip(drafts, found, strict=True)]
        accepted = [
            (draft, known)
            for draft, known, conflict in zip(drafts, found, conflicts, strict=True)
            if conflict == ""
        ]
        with self._client.pipeline(transaction=self.topology.has_transactions) as pipe:
            for key in deleted:
                pipe.zrem(self._schedule_key, raw(key))
                pipe.delete(raw(key))
            for draft, known in accepted:
                fields = {"definition": draft.definition}
                if draft.zones or known.zones:
                    fields["zones"] = draft.zones
                pipe.hset(raw(draft.key), mapping=fields)
                if draft.replaces_meta:
                    pipe.hset(raw(draft.key), "meta", draft.meta)
                else:
                    pipe.hsetnx(raw(draft.key), "meta", draft.meta)
                pipe.zadd(self._schedule_key, {raw(draft.key): draft.score})
            removals = iter(pipe.execute()[: 2 * len(deleted)])
        self._clear_reasons([draft.key for draft, known in accepted if known.set_aside])
        if accepted or deleted:
            due = [draft.score for draft, _ in accepted if draft.score >= 0]
            self._publish(repr(min(due)) if due else "")
        return Changed(conflicts, sum(map(max, removals, removals)))

    def discard(self, seen: Sequence[Seen]) -> list[bool]:
        """Remove entries that did not change since they were read; which are gone."""
        found = read_hashes(self._client, [each.key for each in seen])
        removed = [each.is_at(known) for each, known in zip(seen, found, strict=True)]
        with self._client.pipeline(transaction=self.topology.has_transactions) as pipe:
            for (key, _), known, is_gone in zip(seen, found, removed, strict=True):
                if is_gone:
                    pipe.zrem(self._schedule_key, raw(key))
                if is_gone and known.definition is not None:
                    pipe.delete(raw(key))
            pipe.execute()
        self._publish("")
        return removed

    def reschedule(self, key: str, meta: str, score: float) -> None:
        """Store a run, whatever was stored; publish it."""
        with self._client.pipeline(transaction=self.topology.has_transactions) as pipe:
            pipe.hset(key, "meta", meta)
            pipe.zadd(self._schedule_key, {key: repr(score)})
            pipe.execute()
        self._publish(repr(score))

    def own(self, keys: Sequence[str], owner: str) -> None:
        """Note the owner of entries, as far as they are there."""
        found = read_hashes(self._client, keys)
        with self._client.pipeline(transaction=False) as pipe:
            for key, known in zip(keys, found, strict=True):
                # A key that may not be read may not be written either, which raises.
                if not known.is_gone:
                    pipe.hset(raw(key), "owner", owner)
            pipe.execute()

    def find_refused(self, keys: Sequence[str]) -> dict[str, ResponseError]:
        """The errors for those of the keys that Redis refuses; one round trip.

        On a hash that may be written, ``ZREM`` fails because of its type, and changes nothing.
        """

        def probe(pipe: Any, key: str) -> None:
            ask(pipe, "HGET", raw(key), "")
            pipe.zrem(raw(key), "")

        replies = iter(ask_for_each(self._client, keys, probe, raises=False))
        found = [
            write if isinstance(write, NoPermissionError) else read
            for read, write in zip(replies, replies, strict=True)
        ]
        return refusals(keys, found)

    def _clear_reasons(self, keys: Sequence[str]) -> None:
        """Entries are not set aside any more; a user who may not run HDEL empties the field."""
        replies = ask_for_each(
            self._client, keys, lambda pipe, key: pipe.hdel(raw(key), "set_aside"), raises=False
        )
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, NoPermissionError):
                self._client.hset(raw(key), "set_aside", "")
            elif isinstance(reply, Exception):
                raise reply

    def _publish(self, score: str) -> None:
        try:
            self._client.publish(self._channel, score)
        except ResponseError as exc:
            self._access.do_without("PUBLISH", exc)
