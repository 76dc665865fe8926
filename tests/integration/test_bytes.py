"""Data that is not text or not readable, and clients that answer in bytes."""

from datetime import timedelta
from typing import Any
from unittest import mock

import fakeredis
import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.schedulers import (
    acquire_distributed_beat_lock,
)
from support.apps import MakeApp
from support.entries import overdue


@pytest.mark.parametrize("meta", ["garbage", "null", "[]", '{"last_run_at": "2020"}', '"x"'])
def test_saving_replaces_an_unreadable_meta(
    client_app: Celery, client: redis.Redis, meta: str
) -> None:
    """As the log line of an entry that was set aside promises."""
    entry = overdue(client_app, total_run_count=5)
    client.hset(entry.key, "meta", meta)
    overdue(client_app, total_run_count=5)
    assert RedBeatSchedulerEntry.from_key(entry.key, app=client_app).total_run_count == 5


def test_replacing_an_entry_whose_meta_is_not_text_and_removing_another_is_one_change(
    client_app: Celery, client: redis.Redis
) -> None:
    """Both are done."""
    timetable, fields = Timetable(client_app), {"task": "t", "schedule": timedelta(hours=1)}
    timetable.update({"a": fields, "gone": fields})
    client.hset("redbeat:a", "meta", b"\xff\xfe")
    timetable.replace([timetable.build("a", fields)], deleted=["gone"])
    assert list(timetable) == ["a"]
    assert timetable["a"].total_run_count == 0


def test_a_beat_waits_for_a_lock_whose_token_is_not_text(
    client_app: Celery, client: redis.Redis
) -> None:
    """Its holder is unknown."""
    client.set("redbeat::lock", b"\xff\xfe", px=60000)
    scheduler = RedBeatScheduler(client_app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    assert scheduler.lock is None
    client.delete("redbeat::lock")
    scheduler.tick()
    assert scheduler.lock is not None


@pytest.mark.parametrize("make", [fakeredis.FakeRedis, redis.Redis], ids=["fakeredis", "redis"])
def test_a_client_that_answers_in_bytes_works(
    make_app_with: MakeApp, redis_server: Any, make: Any
) -> None:
    """Beat leads, dispatches and releases the lock with it."""
    app = make_app_with(
        redbeat_redis_url="redis://injected.invalid/0",
        beat_schedule={"static": {"task": "tasks.a", "schedule": 3600}},
    )
    app.redbeat_redis = make(port=redis_server.port)
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    assert scheduler.lock is not None
    assert list(Timetable(app)) == ["static"]
    assert RedBeatScheduler(app, lazy=True).info.count("leader ->") == 1
    scheduler.close()
    assert Timetable(app).leader() is None


def test_beat_survives_bytes_that_are_not_text(
    make_app_with: MakeApp, redis_url: str, redis_client: redis.Redis
) -> None:
    """In the channel, among the names of static entries, and in reports."""
    redis_client.sadd("redbeat::statics", b"\xff")
    redis_client.hset("redbeat::reports", b"\xff", b"\xff")
    app = make_app_with(
        redbeat_redis_url=redis_url, beat_schedule={"s": {"task": "t", "schedule": 9}}
    )
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.redbeat_parts.rest.listen(0.01, before=0)
    redis_client.publish("redbeat::changed", b"\xff")
    assert scheduler.redbeat_parts.rest.listen(5, before=0)
    scheduler.tick()
    assert scheduler.lock is not None
