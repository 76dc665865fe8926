"""A kombu that sends messages to Redis in a way of its own."""

import json
from typing import Any

import pytest
import redis


def send_unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kombu push each message with a client that its channel does not know of."""

    def put(self: Any, queue: str, message: Any, **kwargs: Any) -> None:
        with self.conn_or_acquire():
            redis.Redis(connection_pool=self.pool).lpush(queue, json.dumps(message))

    monkeypatch.setattr("kombu.transport.redis.Channel._put", put)
