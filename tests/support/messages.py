"""The messages that beat has sent, read from the broker's queue in Redis."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import redis

QUEUE = "celery"


@dataclass(frozen=True)
class Message:
    """One task message as the broker holds it."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, Any]
    properties: dict[str, Any]


def read_messages(broker: redis.Redis, queue: str = QUEUE) -> list[Message]:
    """All messages of a queue that no worker has taken, the oldest first."""
    return [_decode(text) for text in reversed(broker.lrange(queue, 0, -1))]


def names_sent(broker: redis.Redis, queue: str = QUEUE) -> list[str]:
    """The first argument of each message, in alphabetic order: the names of entries that ran."""
    return sorted(message.args[0] for message in read_messages(broker, queue))


def _decode(text: str | bytes) -> Message:
    envelope = json.loads(text)
    args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
    headers = envelope["headers"]
    return Message(headers["task"], args, kwargs, headers, envelope["properties"])
