"""A subscription to the changes of a schedule."""

from __future__ import annotations

import time
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

#: The most seconds to spend on forgetting changes that the next tick sees anyway.
DRAIN_TIME = 0.05

#: Seconds between two checks whether a subscription is alive: an idle beat sends few commands.
#: Seconds for the answer: less than the default poll interval, which is how long a sleep lasts.
ASKING_INTERVAL = 30.0
ANSWERING_TIME = 3.0


class Listener:
    """A subscription to changes, each published as the score that it gave to some entry.

    A connection may die silently, as in a firewall that forgets it. So it is asked for a sign of
    life now and then.
    """

    def __init__(self, client: Any, channel: str) -> None:
        self._channel = channel
        self._pubsub = client.pubsub()
        self._pubsub.subscribe(channel)
        #: Whether the server lets a subscriber ask, whether it was asked, and has yet to answer.
        self._may_ask = True
        self._has_asked = self._awaits_answer = False
        self._asked_at = time.monotonic()

    def wait(self, seconds: float, before: float) -> bool:
        """Wait up to so many seconds for a change that makes an entry due before ``before``.

        Returns whether there was one. Costs no round trip, and one command per ``ASKING_INTERVAL``.
        Raises :exc:`redis.exceptions.ConnectionError` if the subscription gives no sign of life.
        """
        began = time.monotonic()
        is_time = began >= self._asked_at + ASKING_INTERVAL
        if self._may_ask and is_time and not self._awaits_answer:
            self._has_asked = self._awaits_answer = True
            self._asked_at = began
            # With a text: some versions of redis-py ignore an empty answer.
            self._pubsub.ping("alive")
        while (remaining := began + seconds - time.monotonic()) > 0:
            message = self._hear(remaining)
            if message is not None and _is_before(message, before):
                # Whatever else was published: the tick that follows sees it all.
                ends_at = time.monotonic() + DRAIN_TIME
                while self._hear(0) is not None and time.monotonic() < ends_at:
                    pass
                return True
        if self._awaits_answer and time.monotonic() > self._asked_at + ANSWERING_TIME:
            raise RedisConnectionError(
                f"the subscription to {self._channel} gives no sign of life; subscribing again"
            )
        return False

    def _hear(self, seconds: float) -> Any:
        """What comes within so many seconds; whatever it is, it is a sign of life."""
        try:
            message = self._pubsub.get_message(timeout=seconds)
        except ResponseError:
            if not self._has_asked:
                raise
            # The server refuses PING to a subscriber: SUBSCRIBE was answered long before.
            self._may_ask = self._awaits_answer = False
            return None
        if message is not None:
            self._awaits_answer = False
        return message

    def close(self) -> None:
        """End the subscription."""
        self._pubsub.close()


def _is_before(message: Any, moment: float) -> bool:
    try:
        return message["type"] == "message" and 0 <= float(message["data"]) < moment
    except ValueError:
        return False
