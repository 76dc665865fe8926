"""The broker as one beat sees it: its channel, whether it can be reached, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from celery.utils.log import get_logger
from redis.exceptions import OutOfMemoryError, ResponseError

from ..store.retrying import is_of_one_key
from .batch import HELD_BACK_DELAY, Batch, Claim
from .faults import (
    BrokenOffError,
    BrokerAwayError,
    NotSentError,
    describe,
    is_lost_connection,
    is_of_files,
    is_of_the_message,
    is_refusal,
    raised_first,
)
from .pauses import MAX_PAUSE, Pauses
from .publishing import connection_for_sending

logger = get_logger("celery.beat")


class Sender(Protocol):
    """What the broker needs of a scheduler: the hooks by which Celery's scheduler connects."""

    app: Any
    connection: Any

    @property
    def _maybe_due_kwargs(self) -> dict[str, Any]: ...

    def _forget_producer(self) -> None:
        """Make a new producer, with a new channel, on the next use."""


class Broker:
    """Where beat sends messages, and which of them have to be sent one by one.

    Those are the messages that were sent together when the connection broke: nobody knows which of
    them the broker accepted, and it must not accept those again and again.
    """

    def __init__(self, sender: Sender, pauses: Pauses) -> None:
        self._sender = sender
        self._pauses = pauses
        #: The channel on which this tick publishes; it has no connection once that is lost.
        self.channel: Any = None
        self._has_doubtful_channel = False
        self._doubtful: set[str] = set()
        #: Whether a new connection could be made in this tick; ``None``: nobody tried.
        self._answers: bool | None = None
        #: Whether the broker had no room for a message in this tick.
        self._is_full = False

    def begin_tick(self) -> None:
        """Forget what the last tick found out."""
        self._answers = None
        self._is_full = False

    def renew(self) -> bool:
        """Replace a channel on which a message could not be sent: a closed one stays closed.

        Returns whether that was necessary: the next :meth:`connect` makes a new one.
        """
        if not self._has_doubtful_channel:
            return False
        self._has_doubtful_channel = False
        self._forget_channel()
        return True

    def connect(self) -> dict[str, Any]:
        """The keywords for ``maybe_due``, connecting if need be; raises ``BrokerAwayError``."""
        try:
            kwargs = self._take_kwargs()
            if self.channel is not None and getattr(self.channel, "connection", self) is None:
                # kombu has left a closed channel, also as the default of its connection.
                self.disconnect()
                kwargs = self._take_kwargs()
        except Exception as exc:
            raise broker_away(exc) from exc
        return kwargs

    def _take_kwargs(self) -> dict[str, Any]:
        kwargs = self._sender._maybe_due_kwargs
        self.channel = getattr(kwargs.get("producer"), "channel", None)
        return kwargs

    def disconnect(self) -> None:
        """Connect again on the next use, and declare the queues: the broker may have lost them."""
        self._forget_channel()
        if "connection" in vars(self._sender):
            self._sender.connection.collect()

    def _forget_channel(self) -> None:
        self.channel = None
        self._sender._forget_producer()

    # Messages that are sent together

    def has_doubts(self, keys: Iterable[str]) -> bool:
        """Whether any of these entries has a message that the broker may have accepted already."""
        return not self._doubtful.isdisjoint(keys)

    def break_off(self, claims: Iterable[Claim], exc: BaseException) -> BrokenOffError:
        """The error for a connection that broke with ``exc`` while these messages were sent.

        From now on their entries are sent one by one, until they have run.
        """
        self._doubtful.update(claim.key for claim in claims)
        error = BrokenOffError(str(broker_away(exc)))
        error.__cause__ = exc
        return error

    def in_groups(self, claims: Sequence[Claim]) -> Iterator[Sequence[Claim]]:
        """The claims that may be sent together, and each of the others alone."""
        alone = [claim for claim in claims if claim.key in self._doubtful]
        if len(alone) < len(claims):
            yield [claim for claim in claims if claim.key not in self._doubtful]
        for claim in alone:
            yield [claim]

    def note_runs(self, keys: Iterable[str]) -> None:
        """Take note of entries that have run: they may share a batch again."""
        self._doubtful.difference_update(keys)
        self._pauses.note_runs()

    # Errors

    def put_off_alone(self, batch: Batch, claim: Claim, exc: BrokenOffError) -> None:
        """Put off a claim on whose messages alone the connection broke.

        Raises ``exc`` if no new connection can be made.
        """
        is_news = self._answers is None
        if not self._can_be_reached():
            raise exc
        message = (
            f"{claim.entry.name} was not sent ({describe(exc)}), though the broker is available"
        )
        error = NotSentError(message, HELD_BACK_DELAY, is_news)
        error.__cause__ = exc
        batch.put_off(claim, error)

    def put_off(self, batch: Batch, claim: Claim, exc: ResponseError) -> None:
        """Put off a claim whose messages alone the broker refused; else raise BrokerAwayError."""
        message = self._own_refusal(claim.entry.name, exc, is_of_one_key(exc))
        if not message:
            raise broker_away(exc) from exc
        error = NotSentError(message, MAX_PAUSE)
        error.__cause__ = exc
        batch.put_off(claim, error)

    def require_own_fault(self, entry: Any, exc: Exception) -> None:
        """Return if the entry's message cannot be built or serialised; else raise.

        What failed on its way leaves the run due: `NotSentError` for this entry alone,
        `BrokerAwayError` for all.
        """
        first = raised_first(exc)
        is_refused = is_refusal(first, self._sender.connection) and not is_of_files(exc)
        if message := self._own_refusal(entry.name, exc, is_refused):
            raise self._not_sent(message, MAX_PAUSE) from exc
        is_news = self._answers is None
        if not self._is_away(exc):
            if is_of_the_message(exc):
                return
            message = f"{entry.name} was not sent ({describe(exc)})"
            raise self._not_sent(message, MAX_PAUSE) from exc
        if (isinstance(first, OSError) or is_of_files(exc)) and self._can_be_reached():
            # The old connection failed, or a service that the task's own code uses.
            message = f"{entry.name} was not sent ({describe(exc)}), though the broker is available"
            raise self._not_sent(message, HELD_BACK_DELAY, is_news) from exc
        raise broker_away(exc) from exc

    def _own_refusal(self, name: str, exc: Exception, is_refused: bool) -> str:
        """What to say if the broker refuses the message of this entry alone; empty if it does not.

        ``is_refused``: it has said so.
        """
        if is_refused:
            return f"The broker refuses {name} ({describe(exc)})"
        if isinstance(raised_first(exc), OutOfMemoryError) and not self._is_full:
            # Perhaps for this message only: the next one will tell.
            self._is_full = True
            return f"The broker has no room for {name} ({describe(exc)})"
        return ""

    def _not_sent(self, message: str, seconds: float, is_news: bool = True) -> NotSentError:
        self._has_doubtful_channel = True
        return NotSentError(message, seconds, is_news)

    def _is_away(self, exc: Exception) -> bool:
        """Whether the connection is what failed.

        kombu may reconnect while it declares a queue, and go on with the old, closed channel: the
        error of that says nothing about a connection.
        """
        if self.channel is not None and self.channel.connection is None:
            return True
        return is_lost_connection(exc, self._sender.connection)

    def _can_be_reached(self) -> bool:
        """Whether a new connection can be made; tried once in a tick."""
        if self._answers is None:
            try:
                with connection_for_sending(self._sender.app) as probe:
                    connect_once(probe)
                self._answers = True
            except Exception:
                self._answers = False
        return self._answers


def connect_once(connection: Any) -> Any:
    """Connect, trying once: the ticks pace the tries, and nothing stays claimed meanwhile."""
    return connection.ensure_connection(max_retries=1, interval_start=0)


def broker_away(exc: BaseException) -> BrokerAwayError:
    """The error for a broker that failed with ``exc``."""
    answers = isinstance(raised_first(exc), ResponseError)
    failure = "accepts no messages" if answers else "is unavailable"
    return BrokerAwayError(f"The broker {failure} ({describe(exc)})")
