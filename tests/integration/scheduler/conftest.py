"""A scheduler with a lock, and the signals that are sent."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from redbeat import RedBeatScheduler, signals


@pytest.fixture
def locked(client_app: Celery) -> RedBeatScheduler:
    """A scheduler with a lock whose hook has not run."""
    return RedBeatScheduler(client_app)


@pytest.fixture
def signalled() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The signals that were sent, with their facts, in order."""
    seen: list[tuple[str, dict[str, Any]]] = []
    receivers = []
    for name in signals.__all__:

        def receive(signal: Any, sender: Any, name: str = name, **facts: Any) -> None:
            seen.append((name, facts))

        getattr(signals, name).connect(receive)
        receivers.append(receive)
    yield seen
    for name, receiver in zip(signals.__all__, receivers, strict=True):
        getattr(signals, name).disconnect(receiver)
