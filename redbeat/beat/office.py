"""The office of the leader: what a beat does when it takes the lead, and when it leaves it.

Taking office costs a few round trips: static entries are stored, what a dead leader had claimed is
made due, and entries follow a changed time zone. A beat takes office once per *term* of
:class:`~redbeat.beat.leadership.Leadership`; one without a lock holds a single term. A beat in
office notices when Redis loses the schedule, leaves, and takes office again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

from celery.utils.log import get_logger

from .. import signals
from ..store.retrying import patience
from ..store.storage import Storage
from ..timing.instants import as_utc
from ..timing.zones import zone_text
from .batch import Build
from .interrupts import hold_back_signals
from .leadership import Leadership
from .ledger import Ledger
from .losses import Memory
from .realignment import Realignment
from .reports import REPORT_LIFETIME, beat_name
from .server import ServerCheck
from .settings import Settings
from .statics import Stage, StaticEntries

logger = get_logger("celery.beat")


class Officer(Protocol):
    """What the office needs of a scheduler; attributes may be assigned at any time."""

    app: Any
    lock_key: str | None

    def setup_schedule(self) -> None:
        """Store the static entries."""


class Office:
    """The office of one beat, taken or not; its methods raise what redis-py raises."""

    def __init__(
        self,
        scheduler: Officer,
        get_conf: Callable[[], Settings],
        get_storage: Callable[[], Storage],
        build: Build,
        leadership: Leadership,
        statics: StaticEntries,
        server: ServerCheck,
        ledger: Ledger,
    ) -> None:
        self._scheduler = scheduler
        self._get_conf = get_conf
        self._get_storage = get_storage
        self._build = build
        self._leadership = leadership
        self._statics = statics
        self._server = server
        self._ledger = ledger
        self.memory = Memory(get_storage, statics.keys)
        self.is_taken = False
        #: Whether a running beat service drives the ticks.
        self.is_of_service = False
        #: The term in which the office was last taken.
        self._term: int | None = None
        #: Seconds by which the clock was set back, until entries have been adjusted.
        self._set_back_by = 0.0

    def lead(self) -> bool:
        """Whether this beat may dispatch now; a new leader takes office first.

        One or two round trips; more to take office.
        """
        leads = self._leadership.lead_or_wait()
        if not leads or self._term != self._leadership.term:
            self.leave()
        if not leads:
            self._statics.stage = Stage.DEFERRED
            if self.memory.age >= self._get_conf().poll_interval:
                # For what it remembers: this beat may lead one day.
                self.memory.finds_loss(empty_is_loss=False)
            return False
        if not self.is_taken:
            self._take()
        if self._set_back_by:
            self._put_back(self._set_back_by)
            self._set_back_by = 0.0
        return True

    def keeps_lead(self) -> bool:
        """The same as :meth:`lead`, without a round trip if the lock was renewed recently."""
        self._leadership.watchdog.expect(0)
        in_term = self.is_taken and self._term == self._leadership.term
        if in_term and self._leadership.ensure_trusted():
            return True
        with patience(self._leadership.patience()):
            return self.lead()

    def is_trusted(self) -> bool:
        """Whether this beat still leads for certain; a round trip if its lock is no longer fresh.

        A beat without a lock always does: the leases decide what it may send.
        """
        self._leadership.watchdog.expect(0)
        return self._leadership.ensure_trusted()

    @property
    def leads_alone(self) -> bool:
        """Whether a lock lets one beat lead, so that nobody else claims anything."""
        return bool(self._scheduler.lock_key)

    def leave(self) -> None:
        """Leave the office, if it is taken."""
        if self.is_taken:
            self.is_taken = False
            signals.leadership_lost.send(self._scheduler)

    def note_jump(self, jump: float) -> None:
        """Log that the clock was set ahead by so many seconds (negative: back).

        The leader adjusts what ran while the clock was ahead.
        """
        if not jump:
            return
        logger.warning(
            "beat: The clock of this host was set %s by %.0f seconds. Entries are due by that "
            "clock: keep it correct (NTP).",
            "ahead" if jump > 0 else "back",
            abs(jump),
        )
        # Set ahead again before that happened, the runs are in the past, where they belong.
        self._set_back_by = max(self._set_back_by - jump, 0.0)

    def notices_loss(self, found_nothing: bool) -> bool:
        """Whether Redis has lost the schedule although this beat still leads.

        ``found_nothing``: nothing was due, and nothing will be within the longest sleep. Up to two
        round trips then; a beat without a lock looks once per poll interval.
        """
        has_lock = self.leads_alone
        # A lost database takes the lock with it, which is noticed without looking for it.
        is_time = not has_lock and self.memory.age >= self._get_conf().poll_interval
        if not found_nothing and not (is_time and self.is_of_service):
            return False
        has_statics = bool(self._get_conf().schedule)
        if not self.is_of_service and (has_lock or not has_statics):
            return False
        return self.memory.finds_loss(empty_is_loss=has_statics)

    def _take(self) -> None:
        if not self._server.is_reached:
            # It was away when the scheduler was built.
            self._server.check()
        storage = self._get_storage()
        if self.is_of_service:
            storage.access.undisturbed = hold_back_signals
        is_back = self._term is not None
        if self.memory.finds_loss(empty_is_loss=is_back) and self.memory.may_report(beat_name()):
            logger.error(
                "beat: Redis has lost the schedule %s. The entries of beat_schedule are stored "
                "again; those that programs had saved are gone.",
                self._get_conf().schedule_key,
            )
        if is_back or self._statics.stage in (Stage.NOTHING, Stage.DEFERRED):
            self._scheduler.setup_schedule()
            self._statics.stage = Stage.STORED
        elif self._statics.stage is Stage.ADDED:
            self._statics.remove_gone()
        if self.leads_alone and (released := self._realignment().release_abandoned()):
            logger.info("beat: %d entries that another beat had claimed run now", released)
        self._follow_zone()
        self.memory.learn()
        self._ledger.take_over(0.0 if self.leads_alone else REPORT_LIFETIME)
        self._term = self._leadership.term
        self.is_taken = True
        signals.leadership_acquired.send(self._scheduler)

    def _realignment(self) -> Realignment:
        return Realignment(
            self._get_storage(),
            as_utc(self._scheduler.app.now()),
            self._get_conf().claim_timeout,
            self._get_conf().batch_size,
            self._build,
        )

    def _follow_zone(self) -> None:
        """Move entries to their new times if the application's zone is not the last leader's.

        One round trip, one more to note the zone, and if it changed, three per page of entries.
        """
        storage, zone = self._get_storage(), zone_text(self._scheduler.app.timezone)
        before = storage.notes.read_zone()
        if zone == before:
            return
        if before is not None:
            moved = 0
            for count in self._realignment().move_to_zone(before):
                self._leadership.watchdog.expect(0)
                moved += count
            logger.info(
                "beat: The application's time zone changed from %s to %s: %d entries without a "
                "zone of their own were moved to their new times",
                before,
                zone,
                moved,
            )
        elif not self.is_of_service and not self._realignment().may_need_zone():
            # A program that only ticks leaves no note where nothing depends on the zone.
            return
        storage.notes.write_zone(zone)

    def _put_back(self, seconds: float) -> None:
        """Move last runs that lie in the future back: the clock was set back by so much."""
        # Where beats share the work, others hold claims.
        has_claims, count = not self.leads_alone, 0
        for put_back in self._realignment().put_back(timedelta(seconds=seconds), has_claims):
            self._leadership.watchdog.expect(0)
            count += put_back
        logger.warning(
            "beat: %s had last run at a time still to come. They count as run %.0f seconds "
            "earlier, so that they do not pause until then.",
            "1 entry" if count == 1 else f"{count} entries",
            seconds,
        )
