"""The application of the workloads: default settings, no lock, a schedule and a broker."""

from celery import Celery

from support.apps import make_app


def open_app(schedule: str, broker: str) -> Celery:
    """An application on these two URLs."""
    return make_app(
        broker_url=broker,
        redbeat_redis_url=schedule,
        redbeat_redis_options={},
        redbeat_lock_key=None,
    )
