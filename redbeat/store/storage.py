"""The schedule in Redis.

An entry is a hash (``records.py``), the schedule one sorted set of the keys of these hashes by due
time (``keys.py``). Everything else that a schedule keeps in Redis is a note (``notes.py``), the
leader's lock (``lock.py``) or the channel on which changes are published (``listening.py``).

A change goes from :class:`Storage` to the steps that this server runs (``changes.py``): scripts
(``scripted.py``, ``scripts.py``), since what they do must be atomic, or plain commands
(``plain.py``). Which keys a step may touch together depends on where they live (``topology.py``).
Each method is a unit that is done again after an outage (``access.py``), and a key that Redis
refuses does not keep the others from being changed (``changes.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from celery.utils.log import get_logger
from redis.exceptions import NoPermissionError, ResponseError

from .access import Access, Client, unit
from .changes import Changes, Steps
from .commands import (
    ask,
    ask_for_each,
    first_member,
    get_fields,
    members,
    naming_key,
    optional_text,
    range_by_score,
    raw,
    read_hashes,
    stored,
)
from .keys import SET_ASIDE, OwnKeys
from .listening import Listener
from .lock import Lock
from .notes import Notes
from .records import Changed, Claimed, Draft, Member, Outcome, Seen, Stored, Wanted, Written
from .retrying import is_of_one_key

logger = get_logger("celery.beat")

#: How many entries are read first where their sizes are unknown, and by which factor more the next
#: time, if those are small.
FIRST_PART = 4
GROWTH = 16

#: The lowest and the highest score of a range; ``(`` before a number excludes it.
Bounds = tuple[float | str, float | str]


def _go_ahead(keys: Sequence[str]) -> None:
    """Nobody minds that entries are about to be changed."""


class Storage:
    """The entries and the schedule of one application; costs are in round trips to Redis.

    All methods raise what redis-py raises.
    """

    def __init__(self, client: Client, keys: OwnKeys) -> None:
        self.client, self.keys = client, keys
        self.access = Access(client)
        self.changes = Changes(self.access, keys)
        self.lock = Lock(self.access, self.changes)
        self.notes = Notes(self.access, self.changes, keys)
        self._direct, self._schedule_key = self.access.direct, keys.schedule_key
        #: Called with the keys of entries before a program changes them here.
        self.before_change: Callable[[Sequence[str]], None] = _go_ahead

    @unit
    def read_definitions(self, keys: Sequence[str]) -> list[str | None]:
        """The definitions, in the order of ``keys``, ``None`` where none can be read.

        One round trip, none for no keys.
        """
        replies = ask_for_each(
            self._direct,
            keys,
            lambda pipe, key: ask(pipe, "HGET", raw(key), "definition"),
            raises=False,
        )
        return list(map(optional_text, replies))

    @unit
    def read_meta(self, key: str) -> str | None:
        """The entry's ``meta``; one round trip."""
        return optional_text(self._direct.hget(key, "meta"))

    @unit
    def read_entries(self, keys: Sequence[str]) -> list[Stored]:
        """The hashes of the entries, in the order of ``keys``; one round trip, none for no keys.

        A key that holds something else than a hash reads as one that is not there; one that may
        not be read has a ``refusal``.
        """
        return read_hashes(self._direct, keys)

    @unit
    def read_entries_within(self, keys: Sequence[str], most: int) -> list[Stored]:
        """The first of these entries that have ``most`` characters in all, but at least one.

        They are read in parts, which are small as long as nobody knows how large the entries are.
        One round trip for each part: two for 68 small entries, three for a thousand.
        """
        found: list[Stored] = []
        part, left, largest = FIRST_PART, most, 1
        while len(found) < len(keys):
            for entry in self.read_entries(keys[len(found) : len(found) + part]):
                if found and entry.size > left:
                    return found
                found.append(entry)
                left -= entry.size
                largest = max(largest, entry.size)
            part = min(part * GROWTH, max(left // largest, 1))
        return found

    @unit
    def is_stored(self, key: str) -> bool:
        """Whether an entry has a hash, a place in the schedule, or both; one round trip.

        None, and ``False``, for one of :attr:`keys`.
        """
        if key in self.keys:
            return False
        with self._direct.pipeline(transaction=False) as pipe:
            pipe.zscore(self._schedule_key, raw(key))
            get_fields(pipe, key)
            score, fields = pipe.execute(raise_on_error=False)
        if isinstance(score, Exception):
            raise score
        return score is not None or stored(fields) != Stored()

    @unit
    def change_entries(self, drafts: Sequence[Draft], deleted: Sequence[str] = ()) -> Changed:
        """Store the drafts and remove the entries at the keys ``deleted``, as one change.

        Publishes it. A draft is not stored if another run was recorded since its score was
        computed, or if it has a ``seen_definition`` and another one is stored by now. In a cluster,
        entries are changed one by one.

        If Redis refuses a key, this raises with the key in the message, and nothing is changed; but
        where there are no drafts, the other entries are removed. One of :attr:`keys` is not
        removed: if it is a member of the schedule, it only loses that place.

        One round trip, none for nothing; one more for more than 1000 drafts, and for a member that
        is no entry.
        """
        self.before_change([*(draft.key for draft in drafts), *deleted])
        own = [key for key in deleted if key in self.keys]
        if own:
            self._direct.zrem(self._schedule_key, *map(raw, own))
            deleted = [key for key in deleted if key not in own]

        def change(steps: Steps, refused: Mapping[str, ResponseError]) -> Changed:
            kept = [key for key in deleted if key not in refused]
            if (drafts and refused) or not (drafts or kept):
                return Changed([], 0)
            return steps.change(drafts, kept)

        keys = [*(draft.key for draft in drafts), *deleted]
        changed, refused = self.changes.make_sparing(keys, change)
        if refused:
            raise next(iter(refused.values()))
        return changed

    @unit
    def discard(self, seen: Sequence[Seen]) -> list[bool]:
        """Remove entries, each unless it was saved or ran since it was read; publish that.

        Returns which of them are gone. A key that holds no entry only loses its place in the
        schedule. One that Redis refuses to remove stays, with a warning. One round trip, none for
        nothing; two in a cluster, where entries are removed one by one.
        """
        if not seen:
            return []
        self.before_change([each.key for each in seen])
        removed, refused = self.changes.make_sparing(
            [each.key for each in seen],
            lambda steps, known: steps.discard([each for each in seen if each.key not in known]),
        )
        for exc in refused.values():
            logger.warning(
                "beat: An entry was not removed, because Redis refuses it: %s.",
                str(exc).rstrip("."),
            )
        replies = iter(removed)
        return [each.key not in refused and next(replies) for each in seen]

    @unit
    def write_run(self, key: str, meta: str, score: float) -> None:
        """Store meta and score of an entry, whatever is stored; publish it. One round trip."""
        self.before_change([key])
        try:
            self.changes.make(lambda steps: steps.reschedule(key, meta, score))
        except ResponseError as exc:
            raise naming_key(exc, key) if is_of_one_key(exc) else exc from None

    @unit
    def read_due(self, now: float, horizon: float) -> list[Member]:
        """The members due by ``now`` and the first one due by ``horizon``; one round trip."""
        with self._direct.pipeline(transaction=False) as pipe:
            range_by_score(pipe, self._schedule_key, 0, now)
            range_by_score(pipe, self._schedule_key, f"({now!r}", horizon, limit=1)
            due, later = pipe.execute()
        return members(due) + members(later)

    @unit
    def read_first(self) -> Member | None:
        """The first member that is due or will be; one round trip."""
        return first_member(range_by_score(self._direct, self._schedule_key, 0, "+inf", limit=1))

    @unit
    def read_between(self, after: float, until: float) -> list[Member]:
        """The members due after one time and by another; one round trip."""
        return members(range_by_score(self._direct, self._schedule_key, f"({after!r}", until))

    @unit
    def read_page(
        self, low: float | str, high: float, size: int, after: Member | None = None
    ) -> list[Member]:
        """The first ``size`` members with scores from ``low`` to ``high``; one round trip.

        ``after``: the next ones, after that member; two round trips. A member that is moved to a
        later time meanwhile may come twice; none is left out.
        """
        if after is not None:
            with self._direct.pipeline(transaction=False) as pipe:
                pipe.zrank(self._schedule_key, raw(after.key))
                pipe.zscore(self._schedule_key, raw(after.key))
                rank, score = pipe.execute()
            if score == after.score:
                reply = ask(
                    self._direct, "ZRANGE", self._schedule_key, rank + 1, rank + size, "WITHSCORES"
                )
                return [member for member in members(reply) if member.score <= high]
            # It has moved: its score alone says where to go on.
            low = repr(after.score)
        return members(range_by_score(self._direct, self._schedule_key, low, high, limit=size))

    @unit
    def count_between(self, *bounds: Bounds) -> list[int]:
        """How many members have scores within each pair of bounds; one round trip.

        Three for a user who may not run ZCOUNT, not exact while members move.
        """
        try:
            with self._direct.pipeline(transaction=False) as pipe:
                for low, high in bounds:
                    pipe.zcount(self._schedule_key, low, high)
                return list(pipe.execute())
        except NoPermissionError:
            return self._subtract_ranks(bounds)

    def _subtract_ranks(self, bounds: Sequence[Bounds]) -> list[int]:
        """The same from the ranks of the first member within each pair, and of the first behind."""
        with self._direct.pipeline(transaction=False) as pipe:
            for low, high in bounds:
                range_by_score(pipe, self._schedule_key, low, "+inf", limit=1)
                range_by_score(pipe, self._schedule_key, f"({high}", "+inf", limit=1)
            ask(pipe, "ZRANGE", self._schedule_key, -1, -1, "WITHSCORES")
            found = list(map(first_member, pipe.execute()))
        keys = [member.key if member else "" for member in found]
        *ranks, last = ask_for_each(
            self._direct, keys, lambda pipe, key: pipe.zrank(self._schedule_key, raw(key))
        )
        count = 0 if last is None else last + 1
        edges = iter(count if rank is None else rank for rank in ranks)
        return [max(behind - first, 0) for first, behind in zip(edges, edges, strict=True)]

    @unit
    def count_members(self) -> int:
        """How many entries the schedule has; one round trip.

        Four for a user who may not run ZCARD.
        """
        try:
            count: int = self._direct.zcard(self._schedule_key)
        except NoPermissionError:
            (count,) = self.count_between(("-inf", "+inf"))
        return count

    @unit
    def read_rank(self, key: str) -> int | None:
        """The entry's position in the schedule, from 0; one round trip."""
        rank: int | None = self._direct.zrank(self._schedule_key, key)
        return rank

    @unit
    def read_scores(self, keys: Sequence[str]) -> list[float | None]:
        """The scores of the keys, ``None`` for those that are not members.

        One round trip, none for no keys.
        """
        return ask_for_each(
            self._direct, keys, lambda pipe, key: pipe.zscore(self._schedule_key, raw(key))
        )

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
        entries. ``later`` is the first entry due after ``now`` and by ``horizon``. ``most_bytes``
        is how large all of them may be together, but a single one may be larger; where the server
        does not say how large they are, the claim is not ``is_bounded``. ``from_end`` claims those
        that became due last; up to three round trips on a server without scripts.
        """
        wanted = Wanted(now, lease, limit, horizon, most_bytes, from_end)
        return self.changes.make(lambda steps: steps.claim(wanted))

    def commit(self, lease: float, outcomes: Sequence[Outcome]) -> int:
        """Write the outcomes of entries claimed under ``lease``; one round trip, none for nothing.

        Returns how many of them were still leased. The others were deleted, saved or claimed by
        another beat since: their scores are left as they are.
        """
        moves = [(Member(outcome.key, lease), outcome) for outcome in outcomes]
        return self.write_outcomes(moves).held

    @unit
    def write_outcomes(self, moves: Sequence[tuple[Member, Outcome]]) -> Written:
        """Do what :meth:`move` does, and report which hashes Redis refuses to write.

        Such an entry is set aside by its score, or it would run again and again.
        """
        held, refused = self.changes.make_sparing(
            [outcome.key for _, outcome in moves if outcome.changes_hash],
            lambda steps, known: steps.move(
                [
                    (member, Outcome(member.key, SET_ASIDE) if member.key in known else outcome)
                    for member, outcome in moves
                ]
            ),
        )
        return Written(held, refused)

    @unit
    def move(self, moves: Sequence[tuple[Member, Outcome]]) -> int:
        """Write outcomes for members that still have their scores; how many those were.

        One round trip, two on a server without scripts, none for nothing.
        """
        return self.changes.make(lambda steps: steps.move(moves))

    def listen(self) -> Listener:
        """Subscribe to the channel on which changes are published; one round trip."""
        return Listener(self._direct, self.keys.channel)
