"""Giving the entries of one batch their turns, and their messages to the broker."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from celery.utils.log import get_logger
from redis.exceptions import LockNotOwnedError

from ..store.access import REDIS_ERRORS
from .batch import Batch, Claim
from .broker import Broker
from .claims import Claims
from .faults import BrokerAwayError, NotSentError, TooLateError
from .interrupts import HeldBack
from .masters import Masters
from .office import Office
from .pauses import in_words
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
        log: Repeats,
    ) -> None:
        self._hooks = hooks
        self._office = office
        self._masters = masters
        self._claims = claims
        self._broker = broker
        self._log = log

    def deliver(self, batch: Batch, loaded: list[Claim], stop: HeldBack) -> list[float | None]:
        """Run the loaded entries: as one batch where the broker allows it, else one by one.

        Returns what ``maybe_due`` gave for each, and 0 if it had to stop because of a signal or a
        lost lock.
        """
        kwargs = self._broker.connect()
        producer: Any = kwargs.get("producer")
        if not self._broker.takes_batch(producer, (claim.key for claim in loaded)):
            return list(self._take_turns(batch, loaded, kwargs, stop, HANDFUL))
        waits: list[float | None] = []
        try:
            with producer.batch(max_size=sys.maxsize):
                for wait in self._take_turns(batch, loaded, kwargs, stop):
                    waits.append(wait)
                # Nothing is left to work out between the messages and their commit.
                batch.decide_runs()
                if not self._may_send(batch):
                    raise TooLateError
        except TooLateError:
            batch.retract()
        except LockNotOwnedError:
            batch.retract()
            raise
        except Exception as exc:
            keys = [run.key for run in batch.runs()]
            batch.retract()
            self._broker.note_failed_batch(exc, keys)
        except BaseException:
            batch.retract()
            raise
        return waits

    def _take_turns(
        self,
        batch: Batch,
        loaded: list[Claim],
        kwargs: dict[str, Any],
        stop: HeldBack,
        handful: int = sys.maxsize,
    ) -> Iterator[float | None]:
        """Give each claim its turn, and commit after each ``handful`` of them."""
        for number, claim in enumerate(loaded, 1):
            if stop or not self._may_send(batch):
                yield 0.0
                return
            yield self._take_turn(batch, claim, kwargs)
            if number % handful == 0:
                batch.commit_runs()
            if not batch.may_grow:
                return

    def _take_turn(self, batch: Batch, claim: Claim, kwargs: dict[str, Any]) -> float | None:
        """Give one entry its turn; whatever is wrong with it stays its own."""
        claim.had_turn = True
        try:
            claim.wait = self._hooks.maybe_due(claim.entry, **kwargs)
        except NotSentError as exc:
            claim.put_off(exc.seconds)
            if exc.is_news:
                message = "beat: %s. It stays due; trying again in %s"
                about = ("not sent", claim.key, type(exc.__cause__))
                self._log.error(about, exc, message, exc, in_words(exc.seconds))
        except BrokerAwayError:
            claim.advanced = None
            raise
        except (OSError, *REDIS_ERRORS) as exc:
            # An override used a service that is away; the next try may find it.
            message = "beat: %s did not run, trying again: %r"
            about = ("did not run", claim.key, type(exc))
            self._log.error(about, exc, message, claim.entry, exc)
        except Exception as exc:
            batch.set_aside(claim, exc)
        except BaseException:
            # Beat has to end, and nobody knows whether the message was sent.
            claim.advanced = None
            raise
        return claim.wait

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
