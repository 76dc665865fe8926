"""A schedule that is lost repeatedly, as in a Redis that restarts without persistence."""

import logging
from unittest import mock

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler
from redbeat.schedulers import acquire_distributed_beat_lock

STATIC = {"static": {"task": "tasks.static", "schedule": 3600}}


@pytest.mark.parametrize("lock_key", ["redbeat::lock", None], ids=["led", "shared"])
def test_each_loss_is_reported_and_static_entries_are_stored_again_each_time(
    app: Celery, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture, lock_key: str | None
) -> None:
    """The note of the last loss is lost as well."""
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
        reported = [r for r in caplog.records if r.levelno == logging.ERROR and "has lost" in r.msg]
        assert len(reported) == times
    scheduler.close()
