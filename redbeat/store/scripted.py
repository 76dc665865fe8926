"""The steps of the store that must be atomic, as scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from . import scripts
from .access import Access
from .commands import ask, ask_for_each, optional_text, raw, refusals
from .keys import OwnKeys
from .records import Changed, Claimed, Draft, Member, Outcome, Seen, Wanted
from .scripts import Call
from .topology import Topology


class ScriptedSteps:
    """The steps as scripts: each costs one round trip, two when the server must load one.

    Where the hashes live in other slots than the schedule, each costs one for each entry, and one
    for the schedule.
    """

    def __init__(self, access: Access, keys: OwnKeys, topology: Topology) -> None:
        self.topology = topology
        self._access, self._client = access, access.direct
        self._schedule_key, self._channel = keys.schedule_key, keys.channel
        #: The schedule, where a script that changes a hash may touch it as well.
        self._schedule_beside = keys.schedule_key if topology.is_one_slot else None
        self._may_ask_for_sizes = topology.is_one_slot

    def claim(self, wanted: Wanted) -> Claimed:
        """Lease what is due."""
        if not self._may_ask_for_sizes:
            wanted = wanted._replace(most_bytes=0)
        found = scripts.claimed(self.run(scripts.claim(self._schedule_key, wanted)))
        if wanted.most_bytes and not found.is_bounded:
            self._may_ask_for_sizes = False
        return found

    def move(self, moves: Sequence[tuple[Member, Outcome]]) -> int:
        """Write outcomes for members that still have their scores; how many those were."""
        by_score: dict[float, list[Outcome]] = {}
        for member, outcome in moves:
            by_score.setdefault(member.score, []).append(outcome)
        changes = [each for group in by_score.values() for each in group if each.changes_hash]
        records = [scripts.record(group) for group in self.topology.groups_of_outcomes(changes)]
        advances = [
            scripts.advance(self._schedule_key, score, group)
            for score, outcomes in by_score.items()
            for group in self.topology.groups(outcomes, in_one_slot=True)
        ]
        return sum(scripts.run(self._client, records + advances, self.topology)[len(records) :])

    def change(self, drafts: Sequence[Draft], deleted: Sequence[str]) -> Changed:
        """Store drafts and remove entries, as one change; publish it."""
        where = (self._schedule_beside, self._channel)
        saves = [scripts.save(group, *where) for group in self.topology.groups(drafts)]
        removals = [scripts.delete(group, *where) for group in self.topology.groups(deleted)]
        if len(saves) > 1:
            # Each of several scripts would find too late that another one cannot store its entries.
            keys = [raw(draft.key) for draft in drafts]
            checks = [Call(scripts.CHECK, group) for group in self.topology.groups(keys)]
            scripts.run(self._client, checks, self.topology)
        replies = self._results(
            scripts.run(self._client, saves + removals, self.topology, as_one=True)
        )
        conflicts = [
            optional_text(conflict) for reply in replies[: len(saves)] for conflict in reply
        ]
        if self._schedule_beside is None:
            # A stand-in for a client, as applications' tests inject, replies nothing.
            pairs = zip(drafts, conflicts, strict=False)
            self._move_members([draft for draft, conflict in pairs if conflict == ""], deleted)
        return Changed(conflicts, sum(replies[len(saves) :]))

    def discard(self, seen: Sequence[Seen]) -> list[bool]:
        """Remove entries that did not change since they were read; which are gone."""
        calls = [
            scripts.discard(group, self._schedule_beside, self._channel)
            for group in self.topology.groups(seen)
        ]
        replies = self._results(scripts.run(self._client, calls, self.topology))
        removed = [bool(is_gone) for reply in replies for is_gone in reply]
        if self._schedule_beside is None:
            gone = zip(seen, removed, strict=True)
            self._move_members([], [each.key for each, is_gone in gone if is_gone])
        return removed

    def reschedule(self, key: str, meta: str, score: float) -> None:
        """Store a run, whatever was stored; publish it."""
        keys = [key] if self._schedule_beside is None else [key, self._schedule_beside]
        call = Call(scripts.RESCHEDULE, keys, (meta, repr(score), self._channel))
        self._results([self.run(call)])
        if self._schedule_beside is None:
            self._client.zadd(self._schedule_key, {key: repr(score)})

    def own(self, keys: Sequence[str], owner: str) -> None:
        """Note the owner of entries, as far as they are there."""
        groups = self.topology.groups(list(map(raw, keys)))
        calls = [Call(scripts.OWN, group, [owner]) for group in groups]
        scripts.run(self._client, calls, self.topology)

    def find_refused(self, keys: Sequence[str]) -> dict[str, ResponseError]:
        """The errors for those of the keys that Redis refuses; one round trip.

        One for each key in a cluster.
        """

        def probe(client: Any, key: str) -> Any:
            return ask(client, "EVAL", scripts.CHECK.text, 1, raw(key))

        if not self.topology.is_cluster:
            return refusals(keys, ask_for_each(self._client, keys, probe, raises=False))
        replies: list[Any] = []
        for key in keys:
            try:
                replies.append(probe(self._client, key))
            except ResponseError as exc:
                replies.append(exc)
        return refusals(keys, replies)

    def run(self, call: Call) -> Any:
        """The reply of one script."""
        (reply,) = scripts.run(self._client, [call], self.topology)
        return reply

    def _results(self, replies: Sequence[Any]) -> list[Any]:
        """The results of scripts that publish; warns if they could not."""
        # A stand-in for a client, as applications' tests inject, does not reply with a pair.
        pairs = [reply for reply in replies if isinstance(reply, list) and len(reply) == 2]
        for _, refusal in pairs:
            if refusal:
                self._access.do_without("PUBLISH", refusal)
        return [result for result, _ in pairs]

    def _move_members(self, drafts: Sequence[Draft], deleted: Sequence[str]) -> None:
        if drafts:
            self._client.zadd(self._schedule_key, {raw(each.key): each.score for each in drafts})
        if deleted:
            self._client.zrem(self._schedule_key, *map(raw, deleted))
