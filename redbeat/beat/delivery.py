"""Giving the entries of one batch their turns, and their messages to the broker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

from celery.utils.log import get_logger

from ..store.access import REDIS_ERRORS
from .batch import Batch, Claim
from .broker import Broker, broker_away
from .claims import Claims
from .faults import BrokerAwayError, NotSentError
from .interrupts import HeldBack
from .masters import Masters
from .office import Office
from .outbox import Outbox
from .recording import Recording
from .repeats import Repeats

logger = get_logger("celery.beat")

#: Messages sent one by one before their runs are committed: as many may be sent twice.
HANDFUL = 25


class Hooks(Protocol):
    """What a delivery calls of a scheduler, once per due entry."""

    def maybe_due(self, entry: Any, **kwargs: Any) -> float | None:
        """Send the entry's task if it is due; returns when to ask again, in seconds."""


class Delivery:
    """How the batches of one beat are delivered."""

    def __init__(
        self,
        hooks: Hooks,
        office: Office,
        masters: Masters,
        claims: Claims,
        broker: Broker,
        outbox: Outbox,
        log: Repeats,
    ) -> None:
        self._hooks = hooks
        self._office = office
        self._masters = masters
        self._claims = claims
        self._broker = broker
        self._outbox = outbox
        self._log = log

    def deliver(self, batch: Batch, loaded: list[Claim], stop: HeldBack) -> list[float | None]:
        """Run the loaded entries: their messages sent together where that is possible.

        Returns what ``maybe_due`` gave for each, and 0 if it had to stop because of a signal or a
        lost lock.
        """
        kwargs = self._broker.connect()
        producer: Any = kwargs.get("producer")
        try:
            recording = self._outbox.record(producer, (claim.key for claim in loaded))
        except Exception as exc:
            raise broker_away(exc) from exc
        if recording is None:
            return list(self._take_turns(batch, loaded, kwargs, stop))
        try:
            with closing(recording), self._noticing_changes(batch, recording):
                waits = list(self._take_turns(batch, loaded, kwargs, stop, recording))
            # Nothing is left to work out between the messages and their commit.
            batch.decide_runs()
            if self._may_send(batch):
                self._outbox.send(batch)
            else:
                batch.retract()
        except BaseException:
            batch.retract()
            raise
        return waits

    @contextmanager
    def _noticing_changes(self, batch: Batch, recording: Recording) -> Iterator[None]:
        """In this block, send what is recorded for an entry before an override changes it.

        The change ends the lease: what is sent afterwards would look like the work of a beat that
        has lost it. A change by anyone else is one.
        """

        def notice(keys: Sequence[str]) -> None:
            changed = [claim for claim in batch.claims if claim.had_turn and claim.key in keys]
            if changed:
                batch.note_messages(recording.take())
                self._outbox.send_before_change(batch, changed)

        storage, before = batch.storage, batch.storage.before_change
        storage.before_change = notice
        try:
            yield
        finally:
            storage.before_change = before

    def _take_turns(
        self,
        batch: Batch,
        loaded: list[Claim],
        kwargs: dict[str, Any],
        stop: HeldBack,
        recording: Recording | None = None,
    ) -> Iterator[float | None]:
        """Give each claim its turn; messages that are sent at once are committed by handfuls."""
        batch.begin_turns()
        for number, claim in enumerate(loaded, 1):
            if stop or not self._may_send(batch):
                yield 0.0
                return
            self._take_turn(batch, claim, kwargs, recording)
            yield claim.wait
            if recording is None and number % HANDFUL == 0:
                batch.commit_runs()
            if not batch.may_grow:
                break
            if self._broker.renew():
                # On the old channel, every message would fail from now on.
                kwargs |= self._broker.connect()
            if recording is not None:
                _follow(recording, kwargs["producer"])
        batch.end_turns()

    def _take_turn(
        self, batch: Batch, claim: Claim, kwargs: dict[str, Any], recording: Recording | None
    ) -> None:
        """Give one entry its turn; whatever is wrong with it stays its own."""
        batch.begin_turn(claim)
        is_put_off = False
        try:
            claim.wait = self._hooks.maybe_due(claim.entry, **kwargs)
        except NotSentError as exc:
            is_put_off = True
            batch.put_off(claim, exc)
        except BrokerAwayError:
            claim.advanced = None
            raise
        except (OSError, *REDIS_ERRORS) as exc:
            # An override used a service that is away; the next try may find it.
            is_put_off = claim.advanced is None
            message = "beat: %s did not run, trying again: %r"
            about = ("did not run", claim.key, type(exc))
            self._log.error(about, exc, message, claim.entry, exc)
        except Exception as exc:
            batch.set_aside(claim, exc)
        except BaseException:
            # Beat has to end, and nobody knows whether the message was sent.
            claim.advanced = None
            raise
        if recording is not None:
            messages = recording.take()
            if not is_put_off:
                if recording.has_moved:
                    batch.note_sent([claim])
                batch.note_messages(messages)

    def look_ahead(self, peeked: Claim) -> float | None:
        """Ask the first later entry, which must not run yet, how long to wait for it."""
        if peeked.was_just_given_back:
            return None
        try:
            # An override of `maybe_due` may send whatever says that it is due.
            if peeked.entry is not None and not peeked.entry.is_due()[0]:
                return self._hooks.maybe_due(peeked.entry, **self._broker.connect())
        except Exception as exc:
            # It is logged when the entry is due.
            logger.debug("beat: Cannot look ahead to %s: %r", peeked.entry, exc)
        return max(peeked.score - time.time(), 0.0)

    def run_unclaimed(self, entries: Iterable[Any]) -> Iterator[float | None]:
        """Run what a ``schedule`` of a subclass shows beside what is due in Redis."""
        for entry in entries:
            try:
                yield self._hooks.maybe_due(entry, **self._broker.connect())
            except (BrokerAwayError, *REDIS_ERRORS):
                raise
            except Exception as exc:
                about = ("unclaimed", getattr(entry, "name", None))
                self._log.error(about, exc, "beat: %s did not run: %r", entry, exc)

    def _may_send(self, batch: Batch) -> bool:
        """Whether no other beat can run these entries."""
        return (
            self._office.is_trusted()
            and (self._office.leads_alone or batch.may_be_sent)
            and self._masters.are_sure()
            and self._claims.are_on_master
        )


def _follow(recording: Recording, producer: Any) -> None:
    try:
        recording.follow(producer)
    except Exception as exc:
        # kombu connected again, and has no channel now.
        raise broker_away(exc) from exc
