"""The messages of a batch on their way to the broker: in one step with its commit, or before it.

Promises. Where a Redis broker is on the server of the schedule, each run is handed over: its entry
is taken off its lease and its messages are sent in one atomic step, so that nothing can happen in
between (``store/handover.py``). A beat that is killed before has done neither, one that is killed
after has done both, and one that was frozen and has lost its leases sends nothing. With any other
broker the messages are sent first, and the commit follows (``ahead.py``).

Which of the two it is shows when runs are handed over for the first time on a channel: if the
broker's server has none of the leases although the schedule's own connection still shows them, that
is another server. This is remembered until kombu connects again.

How it can fail. A run that the broker's user may not write takes two steps among others that take
one. Where a connection of either side leads to another server without being closed, beat notices
that nothing is leased there any more, and connects again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celery.utils.log import get_logger
from redis.client import Redis
from redis.exceptions import RedisError, ResponseError

from ..store.handover import Fate, Handover, Parcel, RefusedError, Result
from ..store.storage import Storage
from ..store.topology import size_of
from .ahead import SendingAhead, is_out_of_memory, without_crowd
from .batch import Batch, Claim
from .broker import Broker, broker_away
from .faults import describe
from .guarantees import Guarantee
from .recording import Recording, is_recordable

logger = get_logger("celery.beat")


class Outbox:
    """The outbox of one beat."""

    def __init__(self, broker: Broker, get_storage: Callable[[], Storage]) -> None:
        self._broker = broker
        self._get_storage = get_storage
        #: What was found out last; ``None`` before the first run.
        self.guarantee: Guarantee | None = None
        #: The channel that the rest is about.
        self._channel: Any = None
        #: The second way; ``None`` if nothing can be recorded.
        self._ahead: SendingAhead | None = None
        #: The first way; ``None`` if it is not possible.
        self._handover: Handover | None = None
        #: Whether runs were handed over on this channel.
        self._is_proven = False
        self._warned_of: set[str] = set()

    def record(self, producer: Any, keys: Iterable[str]) -> Recording | None:
        """Begin to record what the producer sends; ``None`` if it has to send at once."""
        channel = getattr(producer, "channel", None)
        if channel is not self._channel:
            self._meet(channel)
        if self._ahead is None or not (self._handover or self._ahead.may_send_together(keys)):
            return None
        return Recording(producer)

    def send(self, batch: Batch) -> None:
        """Send what was recorded for a batch, and commit as much of it as can be in one step.

        One round trip; more if anything is refused. Raises ``BrokerAwayError``. Claims whose
        messages were refused are put off, those whose leases are gone do not count as run.
        """
        assert self._ahead is not None, "something was recorded"
        claims = batch.sendable()
        if claims and self._handover is not None:
            claims = self._hand_over(batch, self._handover, claims)
        if claims:
            self._ahead.send(batch, claims)

    def _meet(self, channel: Any) -> None:
        """Find out what a new channel allows; no round trip."""
        self._channel, self._ahead, self._is_proven = channel, None, False
        if not hasattr(channel, "conn_or_acquire"):
            self._settle_for_two_steps("the broker is not Redis")
        elif not is_recordable(channel):
            if self._is_news("recording"):
                logger.warning(
                    "beat: This version of kombu sends messages in a way that beat cannot record: "
                    "they are sent one by one, and a beat that is killed may repeat some of them. "
                    "Report this with the versions of kombu and redis."
                )
            self._settle_for_two_steps("what kombu sends cannot be recorded")
        else:
            client, storage = Redis(connection_pool=channel.pool), self._get_storage()
            databases = (_database(storage.access.direct), _database(client))
            self._ahead = SendingAhead(self._broker, client)
            self._handover = Handover(client, storage.keys.schedule_key, databases)

    def _hand_over(self, batch: Batch, handover: Handover, claims: list[Claim]) -> list[Claim]:
        """Hand runs over; returns those that have to be sent in two steps."""
        try:
            results = _run(handover, [batch.parcel(claim) for claim in claims])
        except RefusedError as exc:
            if self._is_news("script"):
                logger.warning(
                    "beat: The broker's server does not run the script that sends and commits a "
                    "run in one step (%s). Messages are sent first, and a beat that is killed may "
                    "repeat a batch. Allow the broker's user EVAL, EVALSHA and SELECT.",
                    describe(exc),
                )
            self._settle_for_two_steps("the broker's server refuses the script")
            return claims
        except (OSError, RedisError) as exc:
            raise broker_away(exc) from exc
        fates: dict[Fate, list[Claim]] = {fate: [] for fate in Fate}
        errors: dict[str, ResponseError] = {}
        for claim, (fate, error) in zip(claims, results, strict=True):
            fates[fate].append(claim)
            if error is not None:
                errors[claim.key] = error
        done = fates[Fate.DONE] + fates[Fate.DONE_BEFORE]
        lost, unsuited = fates[Fate.NOT_OURS], fates[Fate.UNSUITED]
        batch.note_handed_over(done)
        elsewhere = self._still_leased(lost) if lost and not done else []
        batch.note_lost([claim for claim in lost if claim not in elsewhere])
        if done:
            self._is_proven = True
            self._say(Guarantee.EXACTLY_ONCE)
        elif elsewhere:
            self._notice_other_server()
        if unsuited:
            self._note_unsuited(errors[unsuited[0].key], are_all=len(unsuited) == len(claims))
        for claim in fates[Fate.REFUSED]:
            self._broker.put_off(batch, claim, errors[claim.key])
        return elsewhere + unsuited

    def _still_leased(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of the claims whose leases the schedule's own connection shows; one round trip."""
        scores = self._get_storage().read_scores([claim.key for claim in claims])
        return [claim for claim, score in zip(claims, scores, strict=True) if score == claim.lease]

    def _notice_other_server(self) -> None:
        if self._is_proven:
            # It was the same one until now, so a connection leads to a server that was replaced.
            raise broker_away(RedisError("it is not the server of the schedule any more"))
        self._settle_for_two_steps("the broker is on another server")

    def _note_unsuited(self, error: ResponseError, are_all: bool) -> None:
        if self._is_news("entries"):
            logger.warning(
                "beat: On the broker's connection, Redis refuses to write entries of the schedule "
                "(%s). Their messages are sent first, and a beat that is killed may repeat them. "
                "Let the broker's user write all keys of the schedule; in a cluster, give them and "
                "the queues the same hash tag.",
                describe(error),
            )
        if are_all:
            self._settle_for_two_steps("the broker's connection may not write the schedule")

    def _settle_for_two_steps(self, reason: str) -> None:
        self._handover = None
        self._say(Guarantee.AT_LEAST_ONCE, f": {reason}")

    def _say(self, guarantee: Guarantee, reason: str = "") -> None:
        if self.guarantee is not guarantee:
            self.guarantee = guarantee
            logger.info("beat: delivery: %s%s", guarantee.value, reason)

    def _is_news(self, subject: str) -> bool:
        """Whether there was no warning about this before."""
        is_news = subject not in self._warned_of
        self._warned_of.add(subject)
        return is_news


def _run(handover: Handover, parcels: Sequence[Parcel]) -> list[Result]:
    """Hand parcels over; those for which there was no memory once more, each on its own."""
    results = handover.run(parcels)
    full = [place for place, each in enumerate(results) if is_out_of_memory(each.error)]
    for place in without_crowd(handover.client, full, lambda place: size_of(parcels[place])):
        (results[place],) = handover.run([parcels[place]])
        if is_out_of_memory(results[place].error):
            break
    return results


def _database(client: Any) -> int:
    """The number of the database that a client uses; a cluster has only the first."""
    pool = getattr(client, "connection_pool", None)
    return int(getattr(pool, "connection_kwargs", {}).get("db") or 0)
