"""What a scheduler offers outside of its ticks: construction, schedule, banner."""

import logging
from unittest import mock

import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from support.apps import MakeApp
from support.entries import SCHEDULE, due, later, stored

STATIC = {"task": "tasks.static", "schedule": 30}


def test_a_lazily_built_scheduler_stores_nothing(client_app: Celery, client: redis.Redis) -> None:
    """Celery builds one to print its banner."""
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app, lazy=True)
    assert client.keys("*") == []


def test_a_mock_may_stand_in_for_the_client(make_app_with: MakeApp) -> None:
    """Applications' tests inject one to keep Redis out."""
    app = make_app_with(redbeat_redis_url="redis://injected.invalid", beat_schedule={"a": STATIC})
    app.redbeat_redis = mock.MagicMock()
    scheduler = RedBeatScheduler(app)
    assert "redis://injected.invalid" in scheduler.info
    entry = RedBeatSchedulerEntry("a", "tasks.a", schedule(60), app=app)
    assert entry.save() is entry
    entry.delete()


def test_the_schedule_shows_due_entries_and_the_first_later_one(
    scheduler: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """By name; a member without an entry is removed and logged at error."""
    due(scheduler.app, "a")
    for number, seconds in enumerate((30, 40)):
        later(scheduler.app, f"later{number}", seconds)
    client.zadd(SCHEDULE, {"redbeat:ghost": 5})
    assert set(scheduler.schedule) == {"a", "later0"}
    assert [r.levelno for r in caplog.records if "Failed to load" in r.message] == [logging.ERROR]
    assert client.zscore(SCHEDULE, "redbeat:ghost") is None


def test_reserve_stores_the_advanced_entry_at_once(scheduler: RedBeatScheduler) -> None:
    """Outside a tick."""
    entry = due(scheduler.app, "a")
    assert scheduler.reserve(entry).total_run_count == 1
    assert stored(scheduler.app, "a").total_run_count == 1


def test_the_banner_shows_url_lock_and_findings(make_app_with: MakeApp) -> None:
    """Without the password."""
    app = make_app_with(redbeat_redis_url="redis://:secret@127.0.0.1:1/0")
    app.redbeat_redis = mock.Mock()
    app.redbeat_redis.config_get.return_value = {
        "maxmemory": "100",
        "maxmemory-policy": "allkeys-lru",
    }
    info = RedBeatScheduler(app, lazy=True).info
    assert "redis -> redis://:**@127.0.0.1:1/0" in info
    assert "redbeat::lock" in info
    assert "WARNING" in info
    assert "secret" not in info
