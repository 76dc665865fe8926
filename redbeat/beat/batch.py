"""One batch of due entries on its way: claimed, loaded, run, committed.

Promises. A run leaves the schedule only after the broker has accepted its message, and a message is
sent only under a claim that nobody else can hold. A claim is a *lease*: the entry's score is moved
to a time shortly ahead, so that no other beat sees it as due. If beat dies, the entry is due again
when the lease runs out. The commit writes the next due time of an entry only if its score is still
the lease, and the record of its run only if the record is still the one that was loaded. So an
entry that was deleted or saved in the meantime stays as its user left it. Entries
that had no turn are given back unchanged, wherever a signal or an error strikes.

How it can fail. Where messages are sent ahead of their commit (``outbox.py`` says where), a beat
that is killed in between leaves leases behind, and those runs happen twice; a broker that fails in
the middle of a batch may have accepted part of it, and that part happens twice. A beat whose clock
is ahead of the others' by more than the claim timeout may claim what they hold; where one beat
leads, there are no others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from celery.schedules import schedule as interval
from redis.exceptions import ResponseError

from .. import signals
from ..store.escaping import one_line
from ..store.handover import Command, Parcel
from ..store.keys import FINISHED, SET_ASIDE, lease_of, may_tell_slot
from ..store.records import Claimed, Member, Outcome, Stored
from ..store.storage import Storage
from ..timing.due import answers_for_itself, next_due
from ..timing.history import awaited_before, awaited_from, last_run_of_interval
from ..timing.instants import as_utc
from .fault_log import Fault, FaultLog, fingerprint
from .faults import NotSentError
from .identity import Run
from .pace import Filling
from .repeats import Repeats

#: Builds an entry from its key and its stored fields; raises if it cannot.
Build = Callable[[str, Stored], Any]

#: Seconds after a tick's *now* at which a given back entry is due: not in the same tick again.
GIVEN_BACK_DELAY = 1e-6

#: Seconds until an entry that is due and did not run is offered again, unless it says when.
HELD_BACK_DELAY = 1.0

#: How late a tick may reach an entry that still counts as run at its due time.
IN_TIME = timedelta(seconds=1)

#: Seconds in which a batch may be filled with messages; the rest waits for the next batch.
FILLING_TIME = 1.0

#: Bytes at most that the entries of a batch may have in Redis, except for a single larger one. What
#: is made from them takes about ten times the memory.
BATCH_BYTES = 64 * 2**20

#: Longest reason that is stored with an entry that is set aside.
REASON_LENGTH = 1000


class Claim:
    """One claimed entry: what was claimed, and what became of it.

    ``now`` is the tick's one reading of the clock, in UTC, and ``ticked_at`` the same in the
    application's time zone. ``lease`` is the score it has meanwhile; ``None``: it is only looked
    at, and may not run.
    """

    __slots__ = (
        "advanced",
        "entry",
        "failure",
        "fault",
        "had_turn",
        "identity",
        "is_changed",
        "is_given_back",
        "key",
        "lease",
        "messages",
        "now",
        "reason",
        "score",
        "stored",
        "ticked_at",
        "wait",
        "was_due",
    )

    def __init__(self, member: Member, ticked_at: datetime, lease: float | None = None) -> None:
        self.key = member.key
        self.now = as_utc(ticked_at)
        self.ticked_at = ticked_at
        #: The due time before the claim.
        self.score = member.score
        self.lease = lease
        #: The hash as it was loaded, and the entry built from it.
        self.stored: Stored | None = None
        self.entry: Any = None
        #: The entry after its run; ``None`` as long as it did not run.
        self.advanced: Any = None
        #: The commands that send its messages, as far as they are not sent yet.
        self.messages: Sequence[Command] = ()
        #: The identity of its run, where runs are identified.
        self.identity: Run | None = None
        #: What its message failed with, although the run is counted.
        self.failure: Exception | None = None
        #: Whether the entry had its turn, whether it said that it is due (``None``: it was not
        #: asked), and the seconds until it wants to be asked again.
        self.had_turn = False
        self.was_due: bool | None = None
        self.wait: float | None = None
        #: Whether an override has changed the entry since its turn began, and so ended its lease.
        self.is_changed = False
        #: Whether the commit leaves it due.
        self.is_given_back = False
        #: Why the entry is to be set aside.
        self.reason = ""
        self.fault: Exception | None = None

    @property
    def ran_at(self) -> datetime:
        """When the run counts as made: at its due time if the tick reached it in time, else now.

        An interval keeps its phase that way and does not slip by the milliseconds each tick takes.
        A schedule with its own ``is_due`` looked at its own clock, later than the tick.
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
        """When the entry was due, in UTC; if it never ran: its score, where 0 means now."""
        due: datetime | None = None
        if self.entry.last_run_at is not None:
            due = self.entry.next_due(self.now)
        if due is not None:
            return due
        return datetime.fromtimestamp(self.score, timezone.utc) if self.score else self.now

    @property
    def holding_back(self) -> float:
        """Seconds for which a given back entry is left alone; 0 if it had no turn yet."""
        if not self.had_turn:
            return 0.0
        return self.wait if self.wait is not None and self.wait > 0 else HELD_BACK_DELAY

    @property
    def was_just_given_back(self) -> bool:
        """Whether the entry, which is only looked at, had its turn in this very tick."""
        return self.score - self.now.timestamp() < 2 * GIVEN_BACK_DELAY

    @property
    def is_gone(self) -> bool:
        """Whether the entry no longer exists."""
        return self.stored is not None and self.stored.is_gone

    @property
    def is_done(self) -> bool:
        """Whether the entry needs no turn: it had one, is gone, or cannot run."""
        return self.had_turn or bool(self.reason) or self.is_gone

    def load(self, stored: Stored, build: Build) -> None:
        """Build the entry, or note why that is impossible."""
        self.stored = stored
        if stored.is_gone:
            return
        try:
            self.entry = build(self.key, stored)
            self.entry.claim = self
        except Exception as exc:
            # An entry that is only looked at is set aside when it is due.
            if self.lease is not None:
                self.set_aside(exc)

    def begin_history(self, identifies: bool = False) -> Outcome | None:
        """Let a calendar entry that never ran count from just before the slot it was due at.

        Returns what to write about that before the run, or ``None``: if beat is killed during the
        run, only the lease remains, which does not tell the slot. ``identifies``: the same for an
        interval, whose first run needs its slot for its identity, and else needs none.
        """
        entry = self.entry
        if entry is None or entry.last_run_at is not None or not entry.enabled:
            return None
        assert self.stored is not None, "an entry is built from what was loaded"
        try:
            entry.last_run_at = last_run_before_slot(entry.schedule, self.score, self.now)
            if entry.last_run_at is None and identifies:
                entry.last_run_at = last_run_of_interval(entry.schedule, self.score, self.now)
            if entry.last_run_at is None:
                return None
            seen, meta = self.stored.meta or "", entry.encode_meta()
        except Exception as exc:
            self.entry = None
            self.set_aside(exc)
            return None
        self.stored = self.stored._replace(meta=meta)
        return Outcome(self.key, self.lease, meta, seen)

    def set_aside(self, exc: Exception) -> None:
        """Keep the entry out of the due range from the commit on, because of ``exc``."""
        self.fault = exc
        self.reason = reason_of(exc)

    def refuse(self, exc: ResponseError) -> None:
        """Set the entry aside by its score alone: Redis refuses to write its hash."""
        assert self.stored is not None, "nothing is written about an entry that was not loaded"
        self.entry = self.entry if self.had_turn else None
        self.stored = self.stored._replace(refusal=exc)
        self.reason = reason_of(exc)

    def put_off(self, seconds: float) -> None:
        """Leave the entry as it is, and ask it again after so many seconds."""
        self.retract()
        self.was_due, self.wait = False, seconds

    def retract(self) -> None:
        """Count no run, and send nothing."""
        self.advanced = self.failure = self.wait = None
        self.messages = ()
        self.had_turn = True

    def outcome(self) -> Outcome:
        """What the commit has to write; raises if the entry cannot tell."""
        if self.stored is None or not self.is_done:
            return self._given_back()
        if self.is_gone:
            return Outcome(self.key, None)
        if not self.reason:
            return self._idle() if self.advanced is None else self._run()
        if self.stored.refusal is not None:
            # A hash that may not be read may not be written: only the score says it is set aside.
            return Outcome(self.key, SET_ASIDE)
        note = {"reason": self.reason, "definition": fingerprint(self.stored)}
        return Outcome(self.key, SET_ASIDE, reason=json.dumps(note))

    def unclaimed(self) -> Outcome:
        """Due as it was before the claim, whatever was loaded or begun since."""
        self.is_given_back = True
        return Outcome(self.key, self.score)

    def announce(self, sender: Any, ran_by: datetime) -> None:
        """Send the signal for what became of the entry, whose run was made by ``ran_by``."""
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
        """The entry did not run: not due, disabled, past its deadline, put off, or held back."""
        entry = self.entry
        if not entry.enabled:
            return self._due(next_due(entry.schedule, self.now, self.now))
        due = entry.next_due(self.now)
        if due is not None and due <= self.now:
            if self.was_due is False and self.wait is not None and self.wait > 0:
                # Past its deadline, or its own `is_due` wants to be asked again later.
                return self._due(self.now + timedelta(seconds=self.wait))
            return self._given_back()
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

    def _given_back(self) -> Outcome:
        """Due as before; if it had its turn, not again in the same tick."""
        if not self.had_turn:
            return self.unclaimed()
        self.is_given_back = True
        return Outcome(self.key, max(self.score, self.now.timestamp() + GIVEN_BACK_DELAY))


class Batch:
    """The entries of one claim.

    ``ticked_at`` is the tick's one reading of the clock, in the application's time zone;
    ``sent_by`` the monotonic time by which its messages must be sent; ``log`` logs faults;
    ``identifies``: its runs have identities.
    """

    def __init__(
        self,
        storage: Storage,
        ticked_at: datetime,
        lease: float,
        sent_by: float,
        log: Repeats,
        identifies: bool = False,
    ) -> None:
        self.storage = storage
        self.now = as_utc(ticked_at)
        self._ticked_at = ticked_at
        self._lease = lease
        self._sent_by = sent_by
        self._log = FaultLog(log)
        self._identifies = identifies
        self.claims: list[Claim] = []
        #: The first entry that is due later, within the horizon.
        self.peeked: Claim | None = None
        #: Whether any entry in the schedule is set aside.
        self.has_set_aside = False
        self._leaves_more = False
        #: Whether the claim made sure that all entries fit into the memory of a batch.
        self._is_bounded = False
        self._filled_by = float("inf")
        #: When loading ended, and when the first turn began.
        self._loaded_at = 0.0
        self._turns_began: float | None = None
        #: How far the entries got; ``None`` if something else than a lack of time ended that.
        self.filling: Filling | None = None
        #: Whether all entries were loaded; until then nothing is known about any of them.
        self._is_loaded = False
        #: What was decided for entries, and which of that Redis knows, by key.
        self._outcomes: dict[str, Outcome] = {}
        self._written: set[str] = set()
        #: The entries whose messages were sent ahead of their commit.
        self._sent: set[str] = set()
        self._in_turn: Claim | None = None
        #: When the runs of this batch had been made; its commit may be delayed by an outage.
        self._ran_by: datetime | None = None

    def claim(self, limit: int, horizon: float, from_end: bool) -> None:
        """Claim up to ``limit`` due entries; one round trip.

        The first later entry is looked for up to ``horizon`` seconds ahead. ``from_end`` claims
        those that became due last.
        """
        now = self.now.timestamp()
        found: Claimed = self.storage.claim_due(
            now, self._lease, limit, now + horizon, BATCH_BYTES, from_end
        )
        self.claims = [
            Claim(member, self._ticked_at, lease_of(self._lease, member.score))
            for member in found.due
        ]
        self.peeked = Claim(found.later, self._ticked_at) if found.later else None
        self.has_set_aside = found.has_set_aside
        self._leaves_more = found.leaves_more
        self._is_bounded = found.is_bounded

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run and nothing to look at."""
        return not self.claims and self.peeked is None

    @property
    def leaves_more(self) -> bool:
        """Whether more is due than this batch could hold, or could run in its time."""
        return self._leaves_more or self._has_waiting

    @property
    def _has_waiting(self) -> bool:
        """Whether an entry that can run had no turn."""
        return any(claim.entry is not None and not claim.had_turn for claim in self.claims)

    @property
    def is_garbage(self) -> bool:
        """Whether most of what was loaded are not entries that could run."""
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

    def load(self, build: Build) -> list[Claim]:
        """Build the claimed entries; returns the claims of those that can run.

        One round trip, and one more if entries wait for their first slot (calendars; where runs
        are identified, intervals too); up to three where the server does not say how large entries
        are. In that case the claims may exceed what a batch can hold: those that are not loaded are
        left for the next one.
        """
        claims = self.claims + ([self.peeked] if self.peeked else [])
        keys = [claim.key for claim in claims]
        stored = (
            self.storage.read_entries(keys)
            if self._is_bounded
            else self.storage.read_entries_within(keys, BATCH_BYTES)
        )
        self._leaves_more |= len(stored) < len(self.claims)
        for claim, fields in zip(claims, stored, strict=False):
            claim.load(fields, build)
        begun = [claim.begin_history(self._identifies) for claim in self.claims]
        self._log.note_all(
            [Fault(each.key, each.stored, each.fault) for each in self.claims if each.fault]
        )
        self._write_outcomes([outcome for outcome in begun if outcome is not None])
        # Counted from here: loading over a slow network must leave time for more than one message,
        # and filling must leave time to publish.
        self._loaded_at = loaded = time.monotonic()
        self._is_loaded = True
        self._filled_by = min(loaded + FILLING_TIME, (loaded + self._sent_by) / 2)
        return [claim for claim in self.claims if claim.entry is not None]

    def restrict(self, shown: dict[str, Any]) -> list[Claim]:
        """Let only the loaded entries that are in ``shown``, by key, run, and as they are there.

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

    def begin_turns(self) -> None:
        """Take note that the entries get their turns from now on."""
        self._turns_began = time.monotonic()

    def end_turns(self) -> None:
        """Note how far the entries got: all had their turns, or there is no time for more."""
        now = time.monotonic()
        self.filling = Filling(
            done=sum(claim.is_done for claim in self.claims),
            seconds=0.0 if self._turns_began is None else now - self._turns_began,
            available=self._filled_by - self._loaded_at,
            lacked_time=self._has_waiting,
        )

    def begin_turn(self, claim: Claim) -> None:
        """Give a claim its turn."""
        claim.had_turn = True
        self._in_turn = claim

    def note_messages(self, commands: Sequence[Command]) -> None:
        """Keep what was recorded in the turn that is under way."""
        assert self._in_turn is not None, "a turn is under way"
        self._in_turn.messages = [*self._in_turn.messages, *commands]

    def set_aside(self, claim: Claim, exc: Exception) -> None:
        """Keep an entry out of the due range from the commit on, and log why."""
        claim.set_aside(exc)
        self._log.note(Fault(claim.key, claim.stored, exc))

    def announce(self, sender: Any) -> None:
        """Send the signals for what became of the entries."""
        for claim in self.claims:
            claim.announce(sender, self._ran_by or self.now)

    def release(self) -> None:
        """Let go of the entries: the next batch needs the memory.

        An entry and its claim refer to each other, so they would wait for the garbage collector.
        """
        self._outcomes.clear()
        for claim in (*self.claims, *filter(None, [self.peeked])):
            for entry in filter(None, (claim.entry, claim.advanced)):
                entry.claim = None
            claim.stored = claim.entry = claim.advanced = None

    def runs(self) -> list[Claim]:
        """The claims of entries that count as run: their message was made, or cannot be built."""
        return [claim for claim in self.claims if claim.advanced is not None]

    def worst_delay(self) -> float:
        """Seconds by which the latest run of the batch was late.

        A score of zero is how other languages write *at once*, and is never late.
        """
        first_due = min((run.score for run in self.runs() if run.score > 0), default=float("inf"))
        return max((self._ran_by or self.now).timestamp() - first_due, 0.0)

    def first_due(self) -> float:
        """When the first of the entries looked at wants its next turn, once this is committed."""
        now = self.now.timestamp()
        scores = [self.peeked.score] if self.peeked else []
        for claim, outcome in self._decided():
            scores.append(now + claim.holding_back if claim.is_given_back else outcome.due_at)
        return min(scores, default=float("inf"))

    def first_again(self, within: float) -> float:
        """When the first entry that runs again within so many seconds is due, once committed."""
        repeated = (
            outcome.due_at
            for claim, outcome in self._decided()
            if claim.advanced is not None and outcome.due_at - claim.score < within
        )
        return min(repeated, default=float("inf"))

    def gone(self) -> list[str]:
        """The keys whose hashes are gone though nobody deleted the entries: the lease is there.

        One round trip if a hash is gone, else none.
        """
        gone = [claim for claim in self.claims if claim.is_gone]
        found = zip(gone, self.storage.read_scores([claim.key for claim in gone]), strict=True)
        return [claim.key for claim, score in found if score == claim.lease]

    def retract(self) -> None:
        """Count no run but those that are known to have reached the broker."""
        self.filling = None
        for claim in self.claims:
            has_sent_all = claim.key in self._sent and not claim.messages
            if claim.key not in self._written and not has_sent_all:
                self._outcomes.pop(claim.key, None)
                claim.retract()

    def put_off(self, claim: Claim, exc: NotSentError) -> None:
        """Leave an entry due whose message was not sent, and log why."""
        self._outcomes.pop(claim.key, None)
        claim.put_off(exc.seconds)
        self._log.note_put_off(claim.key, exc)

    def sendable(self) -> list[Claim]:
        """The claims of entries that count as run, or have messages all the same."""
        return [claim for claim in self.claims if claim.advanced is not None or claim.messages]

    def decide_runs(self) -> None:
        """Work out what to write for the runs that were made, before their messages are sent."""
        for claim in self.sendable():
            if claim.key not in self._outcomes:
                self._outcomes[claim.key] = self._outcome(claim)

    def parcel(self, claim: Claim) -> Parcel:
        """What is to be written and sent for a claim that was decided on."""
        assert claim.lease is not None, "only what is leased has a turn"
        return Parcel(self._outcomes[claim.key], claim.lease, claim.messages)

    def note_sent(self, claims: Iterable[Claim]) -> None:
        """Take note of runs whose messages were sent ahead of their commit."""
        for claim in claims:
            claim.messages = ()
            self._sent.add(claim.key)

    def note_handed_over(self, claims: Iterable[Claim]) -> None:
        """Take note of runs that were committed as they were sent."""
        self._written.update(claim.key for claim in claims)

    def note_lost(self, claims: Iterable[Claim]) -> None:
        """Leave entries alone that were saved, deleted or claimed by another beat."""
        for claim in claims:
            claim.retract()
            self._outcomes.pop(claim.key, None)
            self._written.add(claim.key)

    def commit_runs(self) -> None:
        """Write the runs whose messages were sent; one round trip."""
        self.decide_runs()
        self._write()

    def commit(self) -> None:
        """Write what became of every claimed entry; one round trip, and harmless to repeat."""
        self._ran_by = self._ran_by or datetime.now(timezone.utc)
        self.decide_runs()
        for claim in self.claims:
            if claim.key not in self._outcomes and claim.key not in self._written:
                self._outcomes[claim.key] = (
                    self._outcome(claim) if self._is_loaded else claim.unclaimed()
                )
        self._write()

    def _outcome(self, claim: Claim) -> Outcome:
        try:
            return claim.outcome()
        except Exception as exc:
            self.set_aside(claim, exc)
            return claim.outcome()

    def _write(self) -> None:
        unwritten = [each for key, each in self._outcomes.items() if key not in self._written]
        for claim in self._write_outcomes(unwritten):
            self._outcomes[claim.key] = self._outcome(claim)
        self._written.update(outcome.key for outcome in unwritten)

    def _write_outcomes(self, outcomes: list[Outcome]) -> list[Claim]:
        """Write outcomes; returns the claims that Redis refused, which are set aside."""
        leases = {claim.key: claim.lease for claim in self.claims}
        moves = [(Member(each.key, leases[each.key] or 0.0), each) for each in outcomes]
        refused = self.storage.write_outcomes(moves).refused
        claims = [claim for claim in self.claims if claim.key in refused]
        for claim in claims:
            self._log.note_refused(claim.key, refused[claim.key])
            claim.refuse(refused[claim.key])
        return claims

    def _decided(self) -> Iterator[tuple[Claim, Outcome]]:
        return (
            (claim, self._outcomes[claim.key])
            for claim in self.claims
            if claim.key in self._outcomes
        )


def reason_of(exc: Exception) -> str:
    """Why an entry is set aside, in one line that is stored with it."""
    return one_line(f"{type(exc).__name__}: {exc}")[:REASON_LENGTH]


def last_run_before_slot(schedule: Any, score: float, now: datetime) -> datetime | None:
    """The last run to count from: just before the slot that a never-run entry has by its score."""
    if score.is_integer():
        return awaited_from(schedule, score, now)
    if not may_tell_slot(score):
        return None
    return awaited_before(schedule, min(score, now.timestamp()), now)
