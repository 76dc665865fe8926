"""Recording the commands with which kombu would send messages to Redis, in place of sending them.

kombu publishes as ever: it routes, serialises, compresses and prefixes. Only the client that its
channel takes for each command is lent to it, one client for a whole batch. That client notes the
commands that send messages, as they would go over the wire, and passes all others on: queues are
declared and bindings are read at once.

How it can fail. A kombu that sends in another way would not be recorded: :func:`is_recordable`
tries it with a message. kombu may connect again in the middle of a turn, and go on with a new
channel that is not recorded: what it sends there in the rest of this turn goes out at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from celery.utils.log import get_logger

from ..store.handover import SENDING, Command
from .publishing import preparing

logger = get_logger("celery.beat")

#: The queue of the message that a channel is tried with, which is never sent.
TRIAL_QUEUE = "redbeat.trial"


class LentClient:
    """A client of a channel that notes the commands that send messages, and runs all others."""

    def __init__(self, client: Any) -> None:
        self._client = client
        #: Notes the commands as kombu's own pipeline would send them, with their prefix.
        self._notes = client.pipeline(transaction=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def lpush(self, *args: Any) -> int:
        """Note a message to a queue."""
        self._notes.lpush(*args)
        return 0

    def publish(self, *args: Any) -> int:
        """Note a message to all who listen."""
        self._notes.publish(*args)
        return 0

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        """A pipeline of the client, which is noted if it does nothing but send messages."""
        pipe = self._client.pipeline(*args, **kwargs)
        pipe.execute = partial(self._execute, pipe, pipe.execute)
        return pipe

    def _execute(self, pipe: Any, execute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        stack = pipe.command_stack
        if any(command[0] not in SENDING for command, _ in stack):
            return execute(*args, **kwargs)
        self._notes.command_stack += stack
        replies = [0] * len(stack)
        pipe.reset()
        return replies

    def take(self) -> list[Command]:
        """The commands since the last time."""
        taken, self._notes.command_stack = self._notes.command_stack, []
        return [command for command, _ in taken]


@contextmanager
def lending(channel: Any) -> Iterator[LentClient]:
    """In this block, the channel takes a lent client for its commands."""
    with channel.conn_or_acquire() as client:
        lent = LentClient(client)

        @contextmanager
        def lend(client: Any = None) -> Iterator[Any]:
            yield client or lent

        channel.conn_or_acquire = lend
        try:
            yield lent
        finally:
            del channel.conn_or_acquire


def is_recordable(channel: Any) -> bool:
    """Whether kombu's channel sends a message by one command that can be recorded.

    No round trip, unless the message of the trial escapes: then it is removed again.
    """
    try:
        with lending(channel) as lent:
            message = channel.prepare_message("", properties={})
            channel.basic_publish(message, exchange="", routing_key=TRIAL_QUEUE)
            commands = lent.take()
        queue = getattr(channel, "global_keyprefix", "") + TRIAL_QUEUE
        (name, key, _text), *others = commands
        if name == "LPUSH" and key.startswith(queue) and not others:
            return True
    except Exception as exc:
        logger.debug("beat: Cannot record what kombu sends: %r", exc)
    with suppress(Exception):
        channel.queue_purge(TRIAL_QUEUE)
    return False


class Recording:
    """Records what a producer would send, turn by turn, until it is closed."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self._channel: Any = None
        self._open = ExitStack()
        self._follow()

    def take(self) -> list[Command]:
        """The commands since the last time."""
        return self._client.take()

    @property
    def has_moved(self) -> bool:
        """Whether kombu has gone on to another channel: it may have sent something at once."""
        try:
            return self._producer.channel is not self._channel
        except Exception:
            # It has none now: `follow` will say so.
            return False

    def follow(self, producer: Any) -> None:
        """Go on with the present channel of this producer."""
        if producer is not self._producer or producer.channel is not self._channel:
            self._producer = producer
            self._follow()

    def close(self) -> None:
        """Let the producer send at once again."""
        self._open.close()

    def _follow(self) -> None:
        self._open.close()
        self._channel = self._producer.channel
        self._open.enter_context(preparing(self._producer))
        self._client = self._open.enter_context(lending(self._channel))
