"""A schedule that is lost again and again, as with a Redis that keeps nothing and restarts."""

import logging
from unittest import mock

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler
from redbeat.schedulers import acquire_distributed_beat_lock

STATIC = {"static": {"task": "tasks.static", "schedule": 3600}}


@pytest.mark.parametrize("lock_key", ["redbeat::lock", None], ids=["led", "shared"])
def test_each_loss_is_told_and_each_time_static_entries_are_stored_again(
    app: Celery, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture, lock_key: str | None
) -> None:
    """Whoever empties the database takes the note of the loss before with it."""
    app.conf.update(beat_schedule=STATIC, redbeat_lock_key=lock_key)
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    scheduler.tick()
    for times in (1, 2, 3):
        redis_client.flushall()
        for _ in range(3):
            scheduler.tick()
        assert redis_client.zscore("redbeat::schedule", "redbeat:static") is not None
        told = [r for r in caplog.records if r.levelno == logging.ERROR and "has lost" in r.msg]
        assert len(told) == times
    scheduler.close()
