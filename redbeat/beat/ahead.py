"""Sending the messages of a batch to Redis ahead of its commit, all in one pipeline.

How it can fail. A beat that is killed before the commit sends them again. When the connection
breaks, nobody knows which of them the broker accepted: they are sent one by one from then on, until
they have run (``broker.py``), so that it does not accept them again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from redis.client import Redis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from ..store.topology import size_of
from .batch import Batch, Claim
from .broker import Broker

Item = TypeVar("Item")


class SendingAhead:
    """Sends what was recorded, with a plain client of the broker."""

    def __init__(self, broker: Broker, client: Redis) -> None:
        self._broker = broker
        self.client: Any = client
        options = client.connection_pool.connection_kwargs
        names = ("retry", "retry_on_error", "retry_on_timeout")
        #: Whether redis-py sends a pipeline again after an error, as options of kombu may ask.
        self._repeats = any(options.get(name) for name in names)

    def may_send_together(self, keys: Iterable[str]) -> bool:
        """Whether the messages of these entries may go out in one pipeline."""
        return not self._repeats and not self._broker.has_doubts(keys)

    def send(self, batch: Batch, claims: Sequence[Claim]) -> None:
        """Send the messages of these claims; one round trip, more if there is no memory for all.

        Claims whose messages are refused are put off. Raises ``BrokerAwayError``.
        """
        for group in [[claim] for claim in claims] if self._repeats else [claims]:
            self._send(batch, group)

    def _send(self, batch: Batch, claims: Sequence[Claim]) -> None:
        errors = self._ask(claims)
        batch.note_sent(claim for claim in claims if claim.key not in errors)

        def succeeds(claim: Claim) -> bool:
            if self._ask([claim]):
                return False
            del errors[claim.key]
            batch.note_sent([claim])
            return True

        full = [claim for claim in claims if is_out_of_memory(errors.get(claim.key))]
        try_each(self.client, full, lambda claim: size_of(claim.messages), succeeds)
        for claim in claims:
            if claim.key in errors:
                self._broker.put_off(batch, claim, errors[claim.key])

    def _ask(self, claims: Sequence[Claim]) -> dict[str, ResponseError]:
        """Send messages; returns the first error of each claim that has one, by its key."""
        commands = [(claim, command) for claim in claims for command in claim.messages]
        try:
            with self.client.pipeline(transaction=False) as pipe:
                for _, command in commands:
                    pipe.execute_command(*command)
                replies = pipe.execute(raise_on_error=False)
        except (OSError, RedisError) as exc:
            raise self._broker.break_off(claims, exc) from exc
        errors: dict[str, ResponseError] = {}
        for (claim, _), reply in zip(commands, replies, strict=True):
            if isinstance(reply, ResponseError):
                errors.setdefault(claim.key, reply)
        return errors


def try_each(
    client: Any,
    refused: Sequence[Item],
    size: Callable[[Item], int],
    succeeds: Callable[[Item], bool],
) -> None:
    """Try again, each alone, what was refused together for lack of memory.

    The smallest comes first, and the first that fails ends it. What a server has read and not yet
    done takes up its memory, too, and so does the buffer for that: the connection is closed.
    """
    if len(refused) > 1:
        client.connection_pool.disconnect()
        for item in sorted(refused, key=size):
            if not succeeds(item):
                break


def is_out_of_memory(error: ResponseError | None) -> bool:
    """Whether a server refused a command because its memory is full."""
    return isinstance(error, OutOfMemoryError)
