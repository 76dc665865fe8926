"""One batch of due entries on its way: claimed, loaded, run, committed.

What it promises. A run leaves the schedule only after the broker has taken its message, and a
message is sent only under a claim that nobody else can hold. A claim is a *lease*: the entry's
score is moved to a time shortly ahead, so that no other beat sees it as due; whoever dies leaves
entries that are due again when the lease runs out. The commit writes an entry's next due time only
if its score is still the lease, so an entry that was deleted or saved in between stays as its user
left it. What had no turn is given back as it was claimed, wherever a signal or an error strikes.

How it can fail. A beat that is killed after the broker has accepted a batch and before the commit
of that batch leaves leases behind, and those runs happen a second time. A broker that breaks off in
the middle of a batch may have taken a part of it; the batch is given back, and that part happens a
second time. A beat whose clock is ahead of the others' by more than the claim timeout may claim
what they hold; where one beat leads, there is no other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone, tzinfo
from types import FrameType
from typing import Any

from celery.schedules import schedule as interval
from celery.utils.log import get_logger
from redis.exceptions import ResponseError

from .. import signals
from ..schedules import (
    answers_for_itself,
    awaited_before,
    awaited_from,
    follows_zone_of_app,
    next_due,
    slot_of_other_zone,
)
from ..store.escaping import one_line
from ..store.storage import (
    FINISHED,
    OTHER_LEASE,
    SET_ASIDE,
    Claimed,
    Member,
    Outcome,
    Storage,
    Stored,
    due_by,
    lease_of,
    may_be_written,
    may_tell_slot,
)
from ..timing.calendars import as_utc, zone_from_text
from .greenlets import is_in_event_loop
from .repeats import Repeats

logger = get_logger("celery.beat")

#: Seconds by which what is given back lies past a tick's *now*: that tick does not claim it again.
GIVEN_BACK_DELAY = 1e-6

#: Seconds until an entry that is due and was not run is offered again, if nobody says when.
HELD_BACK_DELAY = 1.0

#: How far ahead a last run may lie that a clock which is set by parts of a second explains.
RUN_TOLERANCE = timedelta(seconds=1)

#: How late a tick may come to an entry that still counts as run at its due time.
IN_TIME = timedelta(seconds=1)

#: Seconds by which a lease may outlast the claim timeout.
LEASE_SPREAD = 2

#: How much of the claim timeout a batch may use up before its messages must have been sent.
PUBLISHING_SHARE = 0.5

#: Seconds that a batch may take to be filled with messages; what is left waits for the next batch.
FILLING_TIME = 1.0

#: The signals that end beat; of a closed terminal, too, where there are any.
ENDING_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
]

#: How many bytes the entries of a batch may have in Redis, but for a single one that has more. What
#: is made of them takes about ten times the memory: a batch must not be what beat cannot hold.
BATCH_BYTES = 64 * 2**20

#: Seconds for which a signal to end the process is put off at the most.
SIGNAL_PATIENCE = 1.5

#: How many of the entries that are set aside are looked at together.
SET_ASIDE_PAGE = 500

#: How many faults of one batch are told by a line each; more of them by one that names the first.
MOST_TOLD = 50
NAMED = 3

#: Longest text of a reason that is stored with an entry that is set aside.
REASON_LENGTH = 1000


#: What stands in the definition of an entry that may follow the zone of the application.
ZONE_MARKS = ('"crontab"', '"relative": true', '"relative":true')


class Claim:
    """One claimed entry: what was claimed, and what became of it."""

    __slots__ = (
        "advanced",
        "entry",
        "failure",
        "fault",
        "had_turn",
        "is_given_back",
        "key",
        "lease",
        "now",
        "reason",
        "score",
        "stored",
        "ticked_at",
        "told",
        "wait",
        "was_due",
    )

    def __init__(
        self,
        member: Member,
        now: datetime,
        ticked_at: datetime,
        told: Repeats,
        lease: float | None = None,
    ) -> None:
        self.told = told
        self.key = member.key
        #: The tick's one reading of the clock, in UTC, and in the application's time zone.
        self.now = now
        self.ticked_at = ticked_at
        #: The due time before the claim.
        self.score = member.score
        #: The score that it bears meanwhile, ``None`` if it is only looked at and may not run.
        self.lease = lease
        #: The hash as it was loaded.
        self.stored: Stored | None = None
        self.entry: Any = None
        #: The entry after its run, ``None`` as long as it did not run.
        self.advanced: Any = None
        #: What its message failed with, though the run is counted.
        self.failure: Exception | None = None
        #: Whether the entry had its turn, whether it said that it is due (``None``: it was not
        #: asked), and the seconds until it wants to be asked again.
        self.had_turn = False
        self.was_due: bool | None = None
        self.wait: float | None = None
        #: Whether the commit leaves it due.
        self.is_given_back = False
        #: Why the entry is to be set aside.
        self.reason = ""
        self.fault: Exception | None = None

    @property
    def ran_at(self) -> datetime:
        """When the run counts as made: at its due time, if the tick came to it in time, else now.

        So an interval keeps its phase, and does not slip by the milliseconds that each tick takes.
        A schedule that answers for itself has looked at its own clock, later than the tick.
        """
        if answers_for_itself(self.entry.schedule):
            now: datetime = self.entry.default_now()
            return now
        if type(self.entry.schedule) is not interval or self.entry.last_run_at is None:
            return self.ticked_at
        due_at = self.due_at
        if not timedelta(0) <= self.now - due_at < IN_TIME:
            return self.ticked_at
        return due_at.astimezone(self.ticked_at.tzinfo)

    @property
    def due_at(self) -> datetime:
        """When the entry was due, in UTC; one that never ran: at its score, where 0 means now."""
        due: datetime | None = None
        if self.entry.last_run_at is not None:
            due = self.entry.next_due(self.now)
        if due is not None:
            return due
        return datetime.fromtimestamp(self.score, timezone.utc) if self.score else self.now

    @property
    def holding_back(self) -> float:
        """Seconds for which an entry that is given back is left alone; 0: it had no turn yet."""
        if not self.had_turn:
            return 0.0
        return self.wait if self.wait is not None and self.wait > 0 else HELD_BACK_DELAY

    @property
    def was_just_given_back(self) -> bool:
        """Whether the entry, which is only looked at, had its turn in this very tick."""
        return self.score - self.now.timestamp() < 2 * GIVEN_BACK_DELAY

    @property
    def is_gone(self) -> bool:
        """Whether there is no such entry any more."""
        return self.stored is not None and self.stored.is_gone

    def load(self, stored: Stored, build: Callable[[str, Stored], Any]) -> None:
        """Build the entry, or note why there is none."""
        self.stored = stored
        if stored.is_gone:
            return
        try:
            self.entry = build(self.key, stored)
            self.entry.claim = self
        except Exception as exc:
            # One that is only looked at is set aside when it is due.
            if self.lease is not None:
                self.spoil(exc)

    def begin_history(self) -> Outcome | None:
        """Let a calendar entry that never ran count from just before the slot that it was due at.

        Returns what to write of that before the run, ``None`` if there is nothing: of a beat that
        is killed in the run only the lease stays, which does not tell the slot.
        """
        entry = self.entry
        if entry is None or entry.last_run_at is not None or not entry.enabled:
            return None
        assert self.stored is not None, "an entry is built of what was loaded"
        try:
            entry.last_run_at = _awaited(entry.schedule, self.score, self.now)
            if entry.last_run_at is None:
                return None
            seen, meta = self.stored.meta or "", entry.encode_meta()
        except Exception as exc:
            self.entry = None
            self.spoil(exc)
            return None
        self.stored = self.stored._replace(meta=meta)
        return Outcome(self.key, self.lease, meta, seen)

    def set_aside(self, exc: Exception) -> None:
        """Keep the entry out of the due range from the commit on, for ``exc``, and log it."""
        self.spoil(exc)
        self.tell_fault()

    def spoil(self, exc: Exception) -> None:
        """Keep the entry out of the due range from the commit on, for ``exc``."""
        self.fault = exc
        self.reason = one_line(f"{type(exc).__name__}: {exc}")[:REASON_LENGTH]

    def tell_fault(self) -> None:
        """Log why the entry is set aside."""
        assert self.fault is not None, "only a fault is told"
        self.told.error(
            ("set aside", self.key, fingerprint(self.stored)),
            self.fault,
            "beat: Set aside %s, it cannot run: %r. Save it anew to try again.",
            self.key,
            self.fault,
        )

    def refuse(self, exc: ResponseError) -> None:
        """Keep the entry, whose hash Redis refuses to write, out of the due range by its score."""
        assert self.stored is not None, "nothing is written of what was not loaded"
        logger.error(
            "beat: Set aside %s: Redis refuses to write what became of it: %s. Let this user of "
            "Redis write the key, or delete the entry.",
            self.key,
            str(exc).rstrip("."),
        )
        self.entry = self.entry if self.had_turn else None
        self.stored = self.stored._replace(refusal=exc)
        self.reason = one_line(f"{type(exc).__name__}: {exc}")[:REASON_LENGTH]

    def put_off(self, seconds: float) -> None:
        """Leave the entry as it is, and ask it again after so many seconds."""
        self.advanced, self.was_due, self.wait = None, False, seconds

    def outcome(self) -> Outcome:
        """What the commit has to write."""
        if self.stored is None or not (self.had_turn or self.reason or self.is_gone):
            return self._given_back()
        if self.is_gone:
            return Outcome(self.key, None)
        try:
            if not self.reason:
                return self._idle() if self.advanced is None else self._run()
        except Exception as exc:
            self.set_aside(exc)
        if self.stored.refusal is not None:
            # What may not be read may not be written: only its score says that it is set aside.
            return Outcome(self.key, SET_ASIDE)
        note = {"reason": self.reason, "definition": fingerprint(self.stored)}
        return Outcome(self.key, SET_ASIDE, reason=json.dumps(note))

    def unclaimed(self) -> Outcome:
        """Due as it was claimed, whatever was loaded, noted or begun of it."""
        self.is_given_back = True
        return Outcome(self.key, self.score)

    def announce(self, sender: Any, ran_by: datetime) -> None:
        """Send the signal of what became of the entry, whose run was made by ``ran_by``."""
        if self.reason:
            signals.entry_set_aside.send(sender, key=self.key, entry=self.entry, reason=self.reason)
        elif self.failure is not None:
            signals.entry_failed.send(sender, **self._run_facts(ran_by), exception=self.failure)
        elif self.advanced is not None and signals.entry_dispatched.receivers:
            signals.entry_dispatched.send(sender, **self._run_facts(ran_by))

    def _run_facts(self, ran_by: datetime) -> dict[str, Any]:
        due_at = self.due_at
        delay = (ran_by - due_at).total_seconds()
        return {"entry": self.entry, "due_at": due_at, "delay": delay}

    def _run(self) -> Outcome:
        entry = self.advanced
        if entry.has_own_score:
            return self._at(entry.score, entry.encode_meta())
        return self._due(entry.next_due(self.now), entry.encode_meta())

    def _idle(self) -> Outcome:
        """The entry did not run: not due yet, disabled, or held back by an override."""
        entry = self.entry
        if not entry.enabled:
            return self._due(next_due(entry.schedule, self.now, self.now))
        due = entry.next_due(self.now)
        if due is not None and due <= self.now:
            return self._put_off() if self._is_put_off else self._given_back()
        if entry.last_run_at is None:
            # A calendar entry without a history: its timetable counts from here.
            entry.last_run_at = self.ticked_at
            return self._due(due, entry.encode_meta())
        return self._due(due)

    def _due(self, due: datetime | None, meta: str = "") -> Outcome:
        return self._at(FINISHED if due is None else due.timestamp(), meta)

    def _at(self, score: float, meta: str) -> Outcome:
        assert self.stored is not None, "what was not loaded is given back"
        was_set_aside = self.stored.set_aside is not None
        return Outcome(self.key, score, meta, self.stored.meta or "", clears=was_set_aside)

    @property
    def _is_put_off(self) -> bool:
        """Whether the entry itself says that it is not due, though its schedule does."""
        return self.was_due is False and self.wait is not None and self.wait > 0

    def _put_off(self) -> Outcome:
        """Its slot is past its deadline, or its own ``is_due`` wants to be asked again later."""
        return self._due(self.now + timedelta(seconds=self.wait or 0.0))

    def _given_back(self) -> Outcome:
        """Due as before; one that had its turn, not again in the same tick."""
        if not self.had_turn:
            return self.unclaimed()
        self.is_given_back = True
        return Outcome(self.key, max(self.score, self.now.timestamp() + GIVEN_BACK_DELAY))


class Batch:
    """The entries of one claim; :func:`claim_batch` makes one.

    ``ticked_at`` is the tick's one reading of the clock, in the application's time zone.
    """

    def __init__(
        self,
        storage: Storage,
        ticked_at: datetime,
        lease: float,
        found: Claimed,
        is_full: bool,
        sent_by: float,
        told: Repeats,
    ) -> None:
        self.storage = storage
        self.now = now = as_utc(ticked_at)
        self._is_full = is_full
        #: Whether the claim has made sure that all fit into the memory of a batch.
        self._is_bounded = found.is_bounded
        self._filled_by = float("inf")
        self._sent_by = sent_by
        #: Whether all was loaded: before, nothing is known of any entry.
        self._is_loaded = False
        #: What has been decided of entries, and which of that Redis knows, by their keys.
        self._outcomes: dict[str, Outcome] = {}
        self._written: set[str] = set()
        #: When the runs of this batch had been made; its commit may be delayed by an outage.
        self._ran_by: datetime | None = None
        self.claims = [
            Claim(member, now, ticked_at, told, lease_of(lease, member.score))
            for member in found.due
        ]
        #: The first entry that is due later, within the horizon.
        self.peeked = Claim(found.later, now, ticked_at, told) if found.later else None
        #: Whether any entry is set aside.
        self.has_set_aside = found.has_set_aside

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run and nothing to look at."""
        return not self.claims and self.peeked is None

    @property
    def leaves_more(self) -> bool:
        """Whether more is due than this batch could hold, or could run in its time."""
        return self._is_full or any(
            claim.entry is not None and not claim.had_turn for claim in self.claims
        )

    @property
    def is_garbage(self) -> bool:
        """Whether most of what was loaded is no entry that could run."""
        useless = sum(claim.is_gone or claim.fault is not None for claim in self.claims)
        return 2 * useless > len(self.claims)

    @property
    def may_grow(self) -> bool:
        """Whether there is time for another message."""
        return time.monotonic() < self._filled_by

    @property
    def may_be_sent(self) -> bool:
        """Whether the lease leaves enough time to publish and to commit."""
        return time.monotonic() < self._sent_by

    def load(self, build: Callable[[str, Stored], Any]) -> list[Claim]:
        """Build the claimed entries, return the claims that got one.

        One round trip, and one more if there are calendar entries that await their first slot; up
        to three where the server does not say how large entries are. Then the claims may be more
        than a batch can hold: those that are not loaded are left for the next one.
        """
        claims = self.claims + ([self.peeked] if self.peeked else [])
        keys = [claim.key for claim in claims]
        stored = (
            self.storage.read_entries(keys)
            if self._is_bounded
            else self.storage.read_entries_within(keys, BATCH_BYTES)
        )
        self._is_full |= len(stored) < len(self.claims)
        for claim, fields in zip(claims, stored, strict=False):
            claim.load(fields, build)
        begun = [claim.begin_history() for claim in self.claims]
        _tell_faults([claim for claim in self.claims if claim.fault is not None])
        self._write_down([outcome for outcome in begun if outcome is not None])
        # From here on: loading over a slow network must leave time for more than one message, and
        # filling must leave time to publish.
        loaded = time.monotonic()
        self._is_loaded = True
        self._filled_by = min(loaded + FILLING_TIME, (loaded + self._sent_by) / 2)
        return [claim for claim in self.claims if claim.entry is not None]

    def restrict(self, shown: dict[str, Any]) -> list[Claim]:
        """Let only those of the loaded entries run that are shown, and as they are shown, by key.

        Returns their claims, and takes them out of ``shown``. The rest is left alone for a while.
        """
        for claim in self.claims:
            entry, loaded = shown.pop(claim.key, None), claim.entry
            if loaded is None or claim.reason:
                continue
            if entry is None:
                claim.had_turn = True
                claim.put_off(HELD_BACK_DELAY)
                continue
            if entry.last_run_at is None:
                entry.last_run_at = loaded.last_run_at
            entry.claim = claim
            claim.entry = entry
        return [claim for claim in self.claims if claim.entry is not None and not claim.had_turn]

    def announce(self, sender: Any) -> None:
        """Send the signals of what became of the entries."""
        for claim in self.claims:
            claim.announce(sender, self._ran_by or self.now)

    def release(self) -> None:
        """Let go of the entries, once all is known of them: the next batch needs the memory.

        An entry and its claim hold each other, so they would wait for the garbage collector.
        """
        self._outcomes.clear()
        for claim in (*self.claims, *filter(None, [self.peeked])):
            for entry in filter(None, (claim.entry, claim.advanced)):
                entry.claim = None
            claim.stored = claim.entry = claim.advanced = None

    def runs(self) -> list[Claim]:
        """The claims of entries whose messages were made."""
        return [claim for claim in self.claims if claim.advanced is not None]

    def tally(self) -> tuple[int, int, float]:
        """How many runs there were, how many of them failed, and the worst delay in seconds.

        A score of zero is how others write *at once*, and makes no delay.
        """
        runs = self.runs()
        failures = sum(claim.failure is not None for claim in runs)
        first_due = min((claim.score for claim in runs if claim.score > 0), default=float("inf"))
        ran_by = self._ran_by or self.now
        return len(runs), failures, max(ran_by.timestamp() - first_due, 0.0)

    def first_due(self) -> float:
        """When the first of the entries looked at wants its next turn, once this is committed."""
        now = self.now.timestamp()
        scores = [self.peeked.score] if self.peeked else []
        for claim, outcome in self._decided():
            scores.append(now + claim.holding_back if claim.is_given_back else outcome.due_at)
        return min(scores, default=float("inf"))

    def first_again(self, within: float) -> float:
        """When the first of the entries that run again within so many seconds is due, committed."""
        repeated = (
            outcome.due_at
            for claim, outcome in self._decided()
            if claim.advanced is not None and outcome.due_at - claim.score < within
        )
        return min(repeated, default=float("inf"))

    def gone(self) -> list[str]:
        """The keys whose hashes are gone, though nobody deleted the entries: they bear the lease.

        One round trip if a hash is gone, else none.
        """
        gone = [claim for claim in self.claims if claim.is_gone]
        found = zip(gone, self.storage.read_scores([claim.key for claim in gone]), strict=True)
        return [claim.key for claim, score in found if score == claim.lease]

    def retract(self) -> None:
        """Nothing of this batch has reached the broker, for all that is known: no run counts."""
        self._outcomes.clear()
        for claim in self.claims:
            claim.advanced = claim.failure = claim.wait = None
            claim.had_turn = True

    def decide_runs(self) -> None:
        """Work out what the runs that were made leave behind, before their messages are sent."""
        self._outcomes |= {
            claim.key: claim.outcome() for claim in self.runs() if claim.key not in self._outcomes
        }

    def commit_runs(self) -> None:
        """Write what the runs leave behind whose messages have been sent; one round trip."""
        self.decide_runs()
        self._write()

    def commit(self) -> None:
        """Write what became of every claimed entry; one round trip, and harmless to repeat."""
        self._ran_by = self._ran_by or datetime.now(timezone.utc)
        self.decide_runs()
        for claim in self.claims:
            if claim.key not in self._outcomes:
                outcome = claim.outcome() if self._is_loaded else claim.unclaimed()
                self._outcomes[claim.key] = outcome
        self._write()

    def _write(self) -> None:
        unwritten = [each for key, each in self._outcomes.items() if key not in self._written]
        for claim in self._write_down(unwritten):
            self._outcomes[claim.key] = claim.outcome()
        self._written.update(outcome.key for outcome in unwritten)

    def _write_down(self, outcomes: list[Outcome]) -> list[Claim]:
        """Write outcomes; returns the claims that Redis refused, which are set aside."""
        leases = {claim.key: claim.lease for claim in self.claims}
        moves = [(Member(each.key, leases[each.key] or 0.0), each) for each in outcomes]
        refused = self.storage.write_outcomes(moves).refused
        claims = [claim for claim in self.claims if claim.key in refused]
        for claim in claims:
            claim.refuse(refused[claim.key])
        return claims

    def _decided(self) -> Iterator[tuple[Claim, Outcome]]:
        return (
            (claim, self._outcomes[claim.key])
            for claim in self.claims
            if claim.key in self._outcomes
        )


def _tell_faults(claims: list[Claim]) -> None:
    """Log which entries of a batch cannot be read: each by a line, if they are not too many."""
    if len(claims) <= MOST_TOLD:
        for claim in claims:
            claim.tell_fault()
        return
    logger.error(
        "beat: Set aside %d entries, they cannot run: %s and others. The reasons are stored with "
        "them: see celery redbeat list --state 'set aside'. Save them anew to try again.",
        len(claims),
        first_names([claim.key for claim in claims]),
    )


def first_names(keys: Sequence[str]) -> str:
    """The first keys of many, as a line of the log has room for."""
    return ", ".join(map(one_line, keys[:NAMED]))


def claim_batch(
    storage: Storage,
    ticked_at: datetime,
    lease: float,
    limit: int,
    horizon: float,
    claim_timeout: float,
    from_end: bool = False,
    told: Repeats | None = None,
) -> Batch:
    """Claim up to ``limit`` due entries under ``lease``; one round trip.

    ``ticked_at`` is the tick's one reading of the clock; the first later entry is looked for up to
    ``horizon`` seconds from then. ``from_end``: those that became due last. The lease, of
    :func:`unique_lease`, ends ``claim_timeout`` seconds from now: a tick of many batches may
    outlast the claim timeout. ``told`` is what the log has been told of entries.
    """
    sent_by = time.monotonic() + claim_timeout * PUBLISHING_SHARE
    now = as_utc(ticked_at).timestamp()
    found = storage.claim_due(now, lease, limit, now + horizon, BATCH_BYTES, from_end)
    is_full = found.is_cut or len(found.due) >= limit
    return Batch(storage, ticked_at, lease, found, is_full, sent_by, told or Repeats(logger))


def release_lease(storage: Storage, lease: float, limit: int, now: datetime) -> None:
    """Make due now the up to ``limit`` entries that bear a lease; up to three round trips.

    A process may be told to end when the claim has been made and nobody has taken it down.
    """
    leased = [
        member
        for score in (lease, lease + OTHER_LEASE)
        for member in storage.read_page(score, score, limit)
    ]
    due = now.timestamp()
    storage.move([(each, Outcome(each.key, due_by(due, each.score))) for each in leased])


def retry_set_aside(storage: Storage, now: datetime, after: Member | None) -> Member | None:
    """Make due now the entries whose definition was written anew since they were set aside.

    One page of them, or as many as have the bytes of a batch, after the member ``after``; returns
    the last one, ``None`` if there are no more and the next look begins anew. Six round trips at
    the most if they are small.
    """
    members = storage.read_page(SET_ASIDE, SET_ASIDE, SET_ASIDE_PAGE, after)
    has_more = len(members) == SET_ASIDE_PAGE
    stored = storage.read_entries_within([member.key for member in members], BATCH_BYTES)
    has_more |= len(stored) < len(members)
    members = members[: len(stored)]
    # Written first of all: what may not be written would run, and could not be counted.
    note = json.dumps({"reason": "It is tried again."})
    changed = [
        Outcome(member.key, now.timestamp(), reason=note)
        for member, fields in zip(members, stored, strict=True)
        if fields.refusal is None and fingerprint(fields) != _fingerprint_set_aside(fields)
    ]
    storage.commit(SET_ASIDE, changed)
    return members[-1] if has_more else None


def _fingerprint_set_aside(stored: Stored) -> str | None:
    try:
        fingerprint: str = json.loads(stored.set_aside or "")["definition"]
    except (KeyError, TypeError, ValueError):
        return None
    return fingerprint


def release_abandoned(
    storage: Storage,
    now: datetime,
    claim_timeout: float,
    page: int,
    build: Callable[[str, Stored], Any],
) -> int:
    """Make due now what a beat that is gone had claimed; returns how many entries that were.

    For a new leader only: no other beat holds claims then. An entry whose score lies within the
    claim timeout, though it is overdue by its meta, bears the lease of a claim; so does one without
    a history that awaits a slot. Round trips: two, and one per ``page`` entries looked at.
    """
    since = now.timestamp()
    ahead = [
        member
        for member in storage.read_between(since, latest_lease(since, claim_timeout))
        if not may_be_written(member.score)
    ]
    abandoned: list[tuple[Member, Outcome]] = []
    for start in range(0, len(ahead), page):
        members = ahead[start : start + page]
        stored = storage.read_entries([member.key for member in members])
        for member, fields in zip(members, stored, strict=True):
            if _is_overdue(member, fields, now, build):
                abandoned.append((member, Outcome(member.key, due_by(since, member.score))))
    return storage.move(abandoned)


def move_to_zone(
    storage: Storage,
    now: datetime,
    claim_timeout: float,
    page: int,
    before: str,
    build: Callable[[str, Stored], Any],
) -> Iterator[int]:
    """Move entries that follow the zone of the application from the zone ``before`` to that of now.

    Page by page; yields how many of each were moved, each unless its score is another one by then.
    What is due already, claimed, or paused stays where it is. Three round trips per ``page``.
    """
    since, zone = now.timestamp(), zone_from_text(before)

    def in_zone(member: Member, stored: Stored) -> Outcome | None:
        score = _score_in_zone(member, stored, now, zone, build)
        is_moved = score is not None and score != math.floor(member.score)
        return Outcome(member.key, score) if is_moved else None

    return _move_ahead(storage, since, latest_lease(since, claim_timeout), page, in_zone)


def put_right_after_jump(
    storage: Storage,
    now: datetime,
    jump: timedelta,
    claim_timeout: float,
    page: int,
    build: Callable[[str, Stored], Any],
) -> Iterator[int]:
    """Let runs that ``now`` (UTC), set back by ``jump``, has still to come to count as earlier.

    Page by page; yields how many entries of each that concerned. Claims that others may hold, for
    ``claim_timeout`` seconds, are left alone. Two round trips per ``page``.
    """
    since = now.timestamp()
    leased_until = latest_lease(since, claim_timeout) if claim_timeout else since

    def earlier(member: Member, stored: Stored) -> Outcome | None:
        return _run_earlier(member, stored, now, jump, build)

    return _move_ahead(storage, since, leased_until, page, earlier)


def _move_ahead(
    storage: Storage,
    since: float,
    leased_until: float,
    page: int,
    decide: Callable[[Member, Stored], Outcome | None],
) -> Iterator[int]:
    """Write what ``decide`` says of the entries that are due after ``since``, and not claimed.

    Page by page; yields how many of each were written. ``None`` leaves an entry as it is.
    """
    for members in _pages(storage, f"({since!r}", page):
        ahead = [m for m in members if may_be_written(m.score) or m.score > leased_until]
        stored = storage.read_entries([member.key for member in ahead])
        decided = [(each, decide(each, fields)) for each, fields in zip(ahead, stored, strict=True)]
        yield storage.move([(each, outcome) for each, outcome in decided if outcome is not None])


def _run_earlier(
    member: Member,
    stored: Stored,
    now: datetime,
    jump: timedelta,
    build: Callable[[str, Stored], Any],
) -> Outcome | None:
    """What to write of an entry whose last run lies ahead; ``None`` for any other."""
    try:
        entry = build(member.key, stored)
        if entry.last_run_at is None or as_utc(entry.last_run_at) <= now + RUN_TOLERANCE:
            return None
        ran_at = as_utc(entry.last_run_at)
        entry.last_run_at = min(ran_at - jump, now).astimezone(entry.last_run_at.tzinfo)
        if entry.has_own_score:
            score = float(entry.score)
        else:
            due = entry.next_due(now)
            score = FINISHED if due is None else due.timestamp()
        return Outcome(member.key, score, entry.encode_meta(), stored.meta or "")
    except Exception:
        # It is set aside when it is due.
        return None


def may_need_zone(storage: Storage, page: int) -> bool:
    """Whether an entry looks like one that follows the application's zone.

    Two round trips per ``page``.
    """
    return any(
        mark in (definition or "")
        for members in _pages(storage, 0, page)
        for definition in storage.read_definitions([member.key for member in members])
        for mark in ZONE_MARKS
    )


def _pages(storage: Storage, low: float | str, page: int) -> Iterator[list[Member]]:
    """Members from a score on, page by page; those that are moved meanwhile may be met again."""
    size = page
    while True:
        members = storage.read_page(low, math.inf, size)
        yield members
        if len(members) < size:
            return
        last = members[-1].score
        # More than a page may be due at one time.
        size, low = (size * 2 if last == low else page), last


def _score_in_zone(
    member: Member,
    stored: Stored,
    now: datetime,
    before: tzinfo | None,
    build: Callable[[str, Stored], Any],
) -> float | None:
    """When an entry is due in the zone of now, ``None`` if its place says nothing of a zone."""
    try:
        entry = build(member.key, stored)
        if not entry.enabled or entry.has_own_score or not follows_zone_of_app(entry.schedule):
            return None
        if entry.last_run_at is not None:
            due = entry.next_due(now)
        elif before is None:
            return None
        else:
            awaited = slot_of_other_zone(entry.schedule, member.score, now, before)
            due = None if awaited is None else next_due(entry.schedule, awaited, now)
    except Exception:
        # It is set aside when it is due.
        return None
    return None if due is None else math.floor(max(due, now).timestamp())


def _awaited(schedule: Any, score: float, now: datetime) -> datetime | None:
    """The last run to count from, of an entry without a history, by its score."""
    if score.is_integer():
        return awaited_from(schedule, score, now)
    if not may_tell_slot(score):
        return None
    return awaited_before(schedule, min(score, now.timestamp()), now)


def _is_overdue(
    member: Member, stored: Stored, now: datetime, build: Callable[[str, Stored], Any]
) -> bool:
    try:
        entry = build(member.key, stored)
        if not entry.enabled:
            return False
        if entry.last_run_at is None:
            return _awaited(entry.schedule, member.score, now) is not None
        due = entry.next_due(now)
    except Exception:
        # It is set aside when it is due.
        return False
    return due is not None and due <= now


def unique_lease(now: float, claim_timeout: float) -> float:
    """A score ``claim_timeout`` seconds ahead that no other claim bears: its fraction is random.

    It is up to ``LEASE_SPREAD`` seconds later, as far as that of all other entries, see
    :func:`~redbeat.store.storage.lease_of`, and never a whole second.
    """
    return math.ceil(now + claim_timeout) + random.uniform(0.001, OTHER_LEASE - 0.001)


def latest_lease(now: float, claim_timeout: float) -> float:
    """The score that no lease of a claim made by ``now`` is beyond."""
    return now + claim_timeout + LEASE_SPREAD


def fingerprint(stored: Stored | None) -> str:
    """Tells one definition from another."""
    definition = (stored.definition if stored else None) or ""
    zones = (stored.zones if stored else None) or ""
    return hashlib.sha1(
        (definition + zones).encode("utf-8", "surrogateescape"), usedforsecurity=False
    ).hexdigest()


class DeferredSignals:
    """Whether a signal to end the process came while its handling was put off."""

    def __init__(self) -> None:
        self.pending: list[tuple[int, FrameType | None]] = []
        self._reminder: threading.Timer | None = None

    def __bool__(self) -> bool:
        return bool(self.pending)

    def note(self, signum: int, frame: FrameType | None) -> None:
        """Keep the first signal for later; a second one ends the process at once.

        A broker that hangs would put it off for ever, so the first is repeated after a while.
        """
        if self.pending:
            raise SystemExit(128 + signum)
        self.pending.append((signum, frame))
        if is_in_event_loop():
            # Starting a thread would block it.
            return
        self._reminder = threading.Timer(SIGNAL_PATIENCE, os.kill, (os.getpid(), signum))
        self._reminder.daemon = True
        self._reminder.start()

    def end(self) -> None:
        """The block is over: nothing is put off any more."""
        if self._reminder is not None:
            self._reminder.cancel()


@contextmanager
def deferred_signals() -> Iterator[DeferredSignals]:
    """Put off the signals that end beat to the end of the block; outside the main thread, none.

    Celery's handlers raise ``SystemExit`` wherever the program happens to be. Between a message and
    its commit that would leave a run both sent and due.
    """
    deferred = DeferredSignals()
    if threading.current_thread() is not threading.main_thread():
        yield deferred
        return
    handlers: dict[int, Any] = {
        signum: signal.signal(signum, deferred.note)
        for signum in ENDING_SIGNALS
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        yield deferred
    finally:
        deferred.end()
        for signum, handler in handlers.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        for signum, frame in deferred.pending:
            _handle(handlers[signum], signum, frame)


def _handle(handler: Any, signum: int, frame: FrameType | None) -> None:
    if handler is signal.SIG_DFL:
        signal.raise_signal(signum)
    elif callable(handler):
        handler(signum, frame)


def end_by_hang_up() -> None:
    """Let a closed terminal (``SIGHUP``) end this process as ``SIGTERM`` does, in the main thread.

    One that was started with ``nohup`` goes on, and so does one with a handler of its own.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        return
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
