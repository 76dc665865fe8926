"""Running what is due: batch after batch, each claimed, loaded, delivered and committed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from celery.utils.log import get_logger

from .batch import Batch
from .broker import Broker
from .claims import Claims, Moment
from .delivery import Delivery
from .interrupts import HeldBack, hold_back_signals
from .ledger import Ledger
from .loader import Loader
from .masters import Masters
from .office import Office
from .rest import PULSE, Outlook
from .statics import StaticEntries

logger = get_logger("celery.beat")


class Hooks(Protocol):
    """What the dispatcher reads of a scheduler, at each tick."""

    max_interval: float

    def _own_schedule(self) -> dict[str, Any] | None:
        """What a ``schedule`` of a subclass shows, by key; ``None``: it has none of its own."""


@dataclass
class Findings:
    """What the batches of one tick found that the next tick depends on.

    ``waits`` are what ``maybe_due`` gave for the entries that were looked at, in seconds;
    ``first_due`` and ``first_again`` are as in :class:`~redbeat.beat.rest.Outlook`. ``shown`` is
    what the ``schedule`` of a subclass allows, by key; ``None``: there is no such subclass.
    """

    ticked_at: float
    shown: dict[str, Any] | None
    waits: list[float | None] = field(default_factory=list)
    first_due: float = math.inf
    first_again: float = math.inf
    has_set_aside: bool = False

    def add(self, batch: Batch) -> None:
        """Add what a committed batch leaves behind."""
        self.first_due = min(self.first_due, batch.first_due())
        self.first_again = min(self.first_again, batch.first_again(PULSE))
        # What was retried in an earlier batch is no longer set aside.
        self.has_set_aside = batch.has_set_aside

    def continue_at_once(self) -> None:
        """Want the next tick without a rest."""
        self.waits.append(0.0)
        self.first_due = self.ticked_at

    def outlook(self, longest: float, min_: Callable[..., Any]) -> Outlook:
        """When the next tick is wanted, after ``longest`` seconds at most."""
        wait = min_([longest, *(wait for wait in self.waits if wait is not None)])
        return Outlook(
            wait, self.first_due, self.ticked_at, self.first_again, may_find_more=self.has_set_aside
        )


class Dispatcher:
    """Runs what is due for one beat, while it holds its office."""

    def __init__(
        self,
        hooks: Hooks,
        office: Office,
        statics: StaticEntries,
        masters: Masters,
        claims: Claims,
        loader: Loader,
        delivery: Delivery,
        broker: Broker,
        ledger: Ledger,
    ) -> None:
        self._hooks = hooks
        self._office = office
        self._statics = statics
        self._masters = masters
        self._claims = claims
        self._loader = loader
        self._delivery = delivery
        self._broker = broker
        self._ledger = ledger
        #: A batch that was sent and not yet committed.
        self._uncommitted: Batch | None = None

    def run_due(self, now: datetime, min_: Callable[..., Any] = min) -> Outlook:
        """Run all that is due at ``now`` (in the application's time zone)."""
        moment = Moment.at(now)
        found = Findings(moment.timestamp, self._hooks._own_schedule())
        from_end = False
        while True:
            with hold_back_signals() as stop:
                batch = self._claims.take(moment, self._hooks.max_interval, from_end)
                if batch.has_set_aside:
                    self._claims.retry_set_aside(batch.now)
                if not batch.is_empty:
                    self._run(batch, found, stop)
            if self._office.notices_loss(batch.is_empty):
                self._office.leave()
                return Outlook(0.0, first_due=moment.timestamp, ticked_at=moment.timestamp)
            found.add(batch)
            leaves_more = batch.leaves_more
            # A small batch does not show it: the good entries may be right behind it.
            is_garbage = batch.is_garbage and self._claims.are_full_size
            batch.release()
            if stop or not leaves_more or not self._masters.are_sure() or not self._office.lead():
                break
            if is_garbage and from_end and self._office.is_of_service:
                # The rest gets its turn at once, with what becomes due meanwhile.
                found.continue_at_once()
                break
            # After a batch of mostly garbage, claim from the other end: the good ones do not wait.
            from_end ^= is_garbage
        if found.shown and not stop:
            found.waits += self._delivery.run_unclaimed(found.shown.values())
        return found.outlook(self._hooks.max_interval, min_)

    def settle(self) -> None:
        """Commit the last batch and announce its runs; while Redis is away, keep it for later."""
        batch = self._uncommitted
        if batch is None:
            return
        batch.commit()
        self._uncommitted = None
        self._claims.settle(batch)
        if runs := batch.runs():
            self._broker.note_runs(run.key for run in runs)
        self._ledger.note(batch)
        batch.announce(self._hooks)

    def _run(self, batch: Batch, found: Findings, stop: HeldBack) -> None:
        self._office.memory.remember(claim.key for claim in batch.claims)
        self._uncommitted = batch
        try:
            loaded, gone = batch.load(self._loader.build), batch.gone()
            if found.shown is not None:
                loaded = batch.restrict(found.shown)
            self._loader.report_gone(gone)
            if loaded:
                logger.debug("beat: Loading %d tasks", len(loaded))
                found.waits += self._delivery.deliver(batch, loaded, stop)
            else:
                batch.end_turns()
        except Exception:
            # When beat has to end, which raises no Exception, closing it commits.
            self.settle()
            raise
        self.settle()
        self._statics.restore(gone)
        if batch.peeked and found.shown is None:
            found.waits.append(self._look_ahead(batch))

    def _look_ahead(self, batch: Batch) -> float | None:
        peeked = batch.peeked
        assert peeked is not None, "there is a later entry"
        if not peeked.is_gone:
            return self._delivery.look_ahead(peeked)
        if self._loader.drop(peeked.key, peeked.score):
            self._statics.restore([peeked.key])
        return 0.0
