"""Queues of kombu, which has no types."""

from typing import Any

import kombu.common
import kombu.entity


def queue(name: str, **options: Any) -> Any:
    """A queue, and an exchange of that name."""
    exchange = kombu.entity.Exchange(name)  # type: ignore[no-untyped-call]  # kombu's own gap
    return kombu.entity.Queue(name, exchange, name, **options)  # type: ignore[no-untyped-call]  # the same


def broadcast(name: str) -> Any:
    """A queue of each worker, all of which get every message."""
    return kombu.common.Broadcast(name)  # type: ignore[no-untyped-call]  # kombu's own gap
