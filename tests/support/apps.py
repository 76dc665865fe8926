"""Celery applications for tests."""

from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu.transport.memory import Channel

MakeApp = Callable[..., Celery]


def make_app(**settings: Any) -> Celery:
    """An application that is nobody's current one, on a broker in memory unless told otherwise.

    Results never expire in it, so that Celery adds no clean-up entry of its own.
    """
    app = Celery("proj", set_as_current=False)
    app.conf.update({"broker_url": "memory://", "result_expires": None} | settings)
    return app


def empty_memory_broker() -> None:
    """Forget all messages that the broker in memory holds for this process."""
    Channel.queues.clear()
