"""Keys and commands that the ACL of Redis refuses."""

from unittest import mock

import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedulers import acquire_distributed_beat_lock, ensure_conf, get_redis, get_storage
from support.apps import MakeApp
from support.entries import SCHEDULE, overdue
from support.servers import StartRedis

NOW = '{"__type__": "interval", "every": 60.0, "relative": false}'


@pytest.fixture
def guarded_app(start_redis: StartRedis, make_app_with: MakeApp) -> Celery:
    """An application without a lock, whose user may access the keys of redbeat only.

    Each tick retries the entries that were set aside.
    """
    server = start_redis(user=["beat on >pass ~redbeat:* &* +@all"])
    url = f"redis://beat:pass@127.0.0.1:{server.port}/0"
    app = make_app_with(redbeat_redis_url=url, redbeat_lock_key=None)
    ensure_conf(app).poll_interval = 0
    return app


def test_a_member_that_the_acl_refuses_affects_no_other_entry(
    guarded_app: Celery, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside by its score alone, and its key is logged once."""
    scheduler, client = RedBeatScheduler(guarded_app), get_redis(guarded_app)
    client.zadd(SCHEDULE, {"heartbeat": 0})
    for round_ in range(3):
        overdue(guarded_app, f"good-{round_}")
        scheduler.tick()
    assert sent == ["tasks.good-0", "tasks.good-1", "tasks.good-2"]
    assert RedBeatSchedulerEntry.from_key("redbeat:good-2", guarded_app).total_run_count == 1
    assert client.zscore(SCHEDULE, "heartbeat") == -2
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "Set aside heartbeat" in told
    assert "Allow the key in the ACL" in told


def test_a_member_that_the_acl_refuses_runs_once_it_is_allowed(
    guarded_app: Celery, sent: list[str]
) -> None:
    scheduler, client = RedBeatScheduler(guarded_app), get_redis(guarded_app)
    client.zadd(SCHEDULE, {"heartbeat": 0})
    scheduler.tick()
    client.acl_setuser("beat", enabled=True, keys=["*"])
    client.hset("heartbeat", "definition", f'{{"name": "h", "task": "t", "schedule": {NOW}}}')
    for _ in range(2):
        scheduler.tick()
    assert sent == ["t"]


def test_an_acl_that_refuses_to_read_any_entry_sets_none_aside(
    start_redis: StartRedis, make_app_with: MakeApp
) -> None:
    """If the command is refused, nothing is wrong with the entries."""
    server = start_redis(user=["beat on >pass ~* &* +@all -hmget"])
    app = make_app_with(redbeat_redis_url=f"redis://beat:pass@127.0.0.1:{server.port}/0")
    with pytest.raises(redis.exceptions.NoPermissionError):
        get_storage(app).read_entries(["redbeat:a"])


def test_a_beat_that_may_not_read_reports_leads(
    start_redis: StartRedis, make_app_with: MakeApp, sent: list[str]
) -> None:
    server = start_redis(user=["guest on >pass ~* &* +@all -hgetall -hdel"])
    url = f"redis://guest:pass@127.0.0.1:{server.port}/0"
    scheduler = RedBeatScheduler(make_app_with(redbeat_redis_url=url))
    overdue(scheduler.app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    assert sent == ["tasks.a"]
