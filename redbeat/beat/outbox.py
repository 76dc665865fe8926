"""The messages of a batch on their way to the broker: in one step with its commit, or before it.

Promises. Where a Redis broker is on the server of the schedule, each run is handed over: its entry
is taken off its lease and its messages are sent in one atomic step, so that nothing can happen in
between (``store/handover.py``). A beat that is killed before has done neither, one that is killed
after has done both, and one that was frozen and has lost its leases sends nothing. With any other
broker the messages are sent first, and the commit follows (``ahead.py``).

Which of the two it is shows when runs are handed over for the first time on a channel: if the
broker's server has none of the leases although the schedule's own connection still shows them, that
is another server; and so it is if they are written there and not here, as on a replica that may be
written. Then it is tried again once a minute, and whenever kombu connects again: rights may be
granted, and after a failover both may lead to one server again.

An override may save or delete the entry whose turn it is, which ends the lease. What was recorded
for it is sent before that, and the rest in two steps.

How it can fail. A run that the broker's user may not write takes two steps among others that take
one. Where a connection of either side leads to another server without being closed, beat notices
that nothing is leased there any more, and connects again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from celery.utils.log import get_logger
from redis.client import Redis
from redis.exceptions import RedisError, ResponseError

from ..store.handover import Fate, Handover, Parcel, RefusedError, Result
from ..store.storage import Storage
from ..store.topology import size_of
from .ahead import SendingAhead, is_out_of_memory, try_each
from .batch import Batch, Claim
from .broker import Broker, broker_away
from .faults import BrokenOffError, describe
from .guarantees import Guarantee
from .recording import Recording, is_recordable

logger = get_logger("celery.beat")

#: Seconds until a broker that seemed to be on another server is tried again.
TRIAL_INTERVAL = 60.0


class Outbox:
    """The outbox of one beat."""

    def __init__(self, broker: Broker, get_storage: Callable[[], Storage]) -> None:
        self._broker = broker
        self._get_storage = get_storage
        #: What was found out last; ``None`` before the first run.
        self.guarantee: Guarantee | None = None
        #: The channel that the rest is about, at first none that there is.
        self._channel: Any = object()
        #: Sends in two steps; ``None`` if nothing can be recorded.
        self._ahead: SendingAhead | None = None
        #: Sends in one step; ``None`` if that is not possible.
        self._handover: Handover | None = None
        #: When to try it again, in monotonic time.
        self._again_at = 0.0
        #: Whether runs were handed over on this channel.
        self._is_proven = False
        self._warned_of: set[str] = set()

    def record(self, producer: Any, keys: Iterable[str]) -> Recording | None:
        """Begin to record what the producer sends; ``None`` if it has to send at once."""
        channel = getattr(producer, "channel", None)
        if channel is not self._channel:
            self._meet(channel)
        if self._ahead is None:
            return None
        if self._handover is None and time.monotonic() >= self._again_at:
            self._try_in_one_step(self._ahead)
        if self._handover is None and not self._ahead.may_send_together(keys):
            return None
        return Recording(producer)

    def send(self, batch: Batch) -> None:
        """Send what was recorded for a batch, and commit as much of it as can be in one step.

        One round trip; more if anything is refused. Raises ``BrokerAwayError``. Claims whose
        messages were refused are put off, those whose leases are gone do not count as run.
        """
        for claims in self._broker.in_groups(batch.sendable()):
            try:
                self._send(batch, claims)
            except BrokenOffError as exc:
                if len(claims) > 1:
                    raise
                self._broker.put_off_alone(batch, claims[0], exc)

    def send_before_change(self, batch: Batch, claims: Sequence[Claim]) -> None:
        """Send what was recorded for entries that are about to be changed by an override.

        One round trip, none for nothing; raises ``BrokerAwayError``.
        """
        assert self._ahead is not None, "something was recorded"
        for claim in claims:
            claim.is_changed = True
        self._ahead.send(batch, [claim for claim in claims if claim.messages])

    def _send(self, batch: Batch, claims: Sequence[Claim]) -> None:
        assert self._ahead is not None, "something was recorded"
        if self._handover is not None:
            changed = [claim for claim in claims if claim.is_changed]
            others = [claim for claim in claims if not claim.is_changed]
            claims = [*changed, *(self._hand_over(batch, self._handover, others) if others else ())]
        self._ahead.send(batch, claims)

    def _meet(self, channel: Any) -> None:
        """Find out what a new channel allows; no round trip."""
        self._channel, self._ahead, self._handover, self._is_proven = channel, None, None, False
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
            self._ahead = SendingAhead(self._broker, Redis(connection_pool=channel.pool))
            self._try_in_one_step(self._ahead)

    def _try_in_one_step(self, ahead: SendingAhead) -> None:
        storage = self._get_storage()
        databases = (_database(storage.access.direct), _database(ahead.client))
        self._handover = Handover(ahead.client, storage.keys.schedule_key, databases)

    def _hand_over(
        self, batch: Batch, handover: Handover, claims: Sequence[Claim]
    ) -> Sequence[Claim]:
        """Hand runs over; returns those that have to be sent in two steps."""
        try:
            results = _run(handover, [batch.parcel(claim) for claim in claims])
        except RefusedError as exc:
            self._settle_for_two_steps(
                f"the broker's server does not run the script ({describe(exc)}). If it is the "
                "server of the schedule, allow the broker's user EVAL, EVALSHA and SELECT"
            )
            # An earlier part of the batch may have been handed over.
            leased = self._still_leased(claims)
            batch.note_lost([claim for claim in claims if claim not in leased])
            return leased
        except ResponseError as exc:
            raise broker_away(exc) from exc
        except (OSError, RedisError) as exc:
            raise self._broker.break_off(claims, exc) from exc
        fates: dict[Fate, list[Claim]] = {fate: [] for fate in Fate}
        errors: dict[str, ResponseError] = {}
        for claim, (fate, error) in zip(claims, results, strict=True):
            fates[fate].append(claim)
            if error is not None:
                errors[claim.key] = error
        done = fates[Fate.DONE] + fates[Fate.DONE_BEFORE]
        lost, unsuited = fates[Fate.NOT_OURS], fates[Fate.UNSUITED]
        copied = self._still_leased(done) if done and not self._is_proven else []
        elsewhere = self._still_leased(lost) if lost and not done else []
        batch.note_sent(copied)
        batch.note_handed_over([claim for claim in done if claim not in copied])
        batch.note_lost([claim for claim in lost if claim not in elsewhere])
        if copied:
            self._settle_for_two_steps("the broker is a replica of the schedule's server")
        elif done:
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
        if self._is_proven and self._is_news("keys"):
            logger.warning(
                "beat: The broker's user may not write all that a run changes, its entry and its "
                "queue (%s). Such runs are sent first and recorded afterwards, and a beat that is "
                "killed may repeat them. Let this user write the keys of the schedule; in a "
                "cluster, give them and the queues the same hash tag.",
                describe(error),
            )
        elif are_all and not self._is_proven:
            self._settle_for_two_steps(
                f"the broker's user may not write the schedule ({describe(error)}). If they are on "
                "one server, allow it the keys of the schedule; in a cluster, give them and the "
                "queues the same hash tag"
            )

    def _settle_for_two_steps(self, reason: str) -> None:
        self._handover = None
        self._again_at = time.monotonic() + TRIAL_INTERVAL
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

    def succeeds(place: int) -> bool:
        (results[place],) = handover.run([parcels[place]])
        return not is_out_of_memory(results[place].error)

    full = [place for place, each in enumerate(results) if is_out_of_memory(each.error)]
    try_each(handover.client, full, lambda place: size_of(parcels[place]), succeeds)
    return results


def _database(client: Any) -> int:
    """The number of the database that a client uses; a cluster has only the first."""
    pool = getattr(client, "connection_pool", None)
    return int(getattr(pool, "connection_kwargs", {}).get("db") or 0)
