"""The lock: taken by the hook of `beat_init`, renewed by ticks, released at the end."""

import logging
from typing import Any
from unittest import mock

import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery
from redis.exceptions import LockNotOwnedError

from redbeat import RedBeatScheduler
from redbeat.schedulers import (
    LUA_EXTEND_TO_SCRIPT,
    acquire_distributed_beat_lock,
)
from support.apps import MakeApp
from support.entries import due


def test_the_lock_settings_are_the_argument_the_setting_or_the_default(client_app: Celery) -> None:
    """In this order."""
    assert RedBeatScheduler(client_app).lock_timeout == 1500
    assert RedBeatScheduler(client_app, max_interval=10).lock_timeout == 50
    client_app.redbeat_conf.lock_timeout = 70
    assert RedBeatScheduler(client_app).lock_timeout == 70
    scheduler = RedBeatScheduler(client_app, lock_key="mine", lock_timeout=90)
    assert (scheduler.lock_key, scheduler.lock_timeout) == ("mine", 90)


def test_a_tick_without_the_hook_is_an_attribute_error(locked: RedBeatScheduler) -> None:
    """It says what to do."""
    with pytest.raises(AttributeError, match="beat_init"):
        locked.tick()


def test_the_hook_takes_the_free_lock_and_ticks_renew_it(
    locked: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """To its full time to live, however recent the last renewal was."""
    caplog.set_level(logging.DEBUG, "celery.beat")
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    assert "beat: Acquiring lock..." in caplog.text
    assert "beat: Acquired lock" in caplog.text
    assert locked.lock.owned()
    client.pexpire("redbeat::lock", 5000)
    locked.tick()
    assert client.pttl("redbeat::lock") > 1_490_000
    assert "beat: Extending lock..." in caplog.text
    locked.lock_timeout = 60
    locked.tick()
    assert 55_000 < client.pttl("redbeat::lock") <= 60_000


def test_closing_releases_the_lock_and_can_be_repeated(
    locked: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the holder releases it."""
    caplog.set_level(logging.DEBUG, "celery.beat")
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    locked.close()
    assert "beat: Releasing lock" in caplog.text
    assert locked.lock is None
    assert client.exists("redbeat::lock") == 0
    locked.close()


def test_closing_releases_the_lock_while_a_log_handler_is_locked(
    locked: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A signal may interrupt the handler; other threads that log then wait for its end."""
    caplog.set_level(logging.INFO, "celery.beat")
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    locked.tick()
    caplog.handler.acquire()
    try:
        locked.close()
    finally:
        caplog.handler.release()
    assert client.exists("redbeat::lock") == 0
    assert "beat: Releasing lock" in caplog.text
    assert "does not answer" not in caplog.text


def test_closing_leaves_the_lock_of_another_holder_alone(
    locked: RedBeatScheduler, client: redis.Redis
) -> None:
    """Ours was lost in the meantime."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    client.set("redbeat::lock", "another")
    locked.close()
    assert client.get("redbeat::lock") == "another"


def test_a_standby_waits_says_so_and_dispatches_nothing(
    client_app: Celery,
    client: redis.Redis,
    sent: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It logs the holder once, and leads as soon as the lock is free."""
    caplog.set_level(logging.INFO, "celery.beat")
    client.set("redbeat::lock", "another")
    due(client_app, "a")
    standby = RedBeatScheduler(client_app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=standby))
    assert 0 < standby.tick() <= 2
    standby.tick()
    assert sent == []
    assert caplog.text.count("Waiting for the lock redbeat::lock, held by another") == 1
    client.delete("redbeat::lock")
    standby.tick()
    assert sent == ["tasks.a"]


def test_a_deleted_lock_is_taken_again(
    locked: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """The same process goes on leading."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    client.delete("redbeat::lock")
    due(locked.app, "a")
    locked.tick()
    assert sent == ["tasks.a"]
    assert locked.lock.owned()


def test_a_leader_whose_lock_is_taken_becomes_a_standby(
    locked: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """It neither exits nor dispatches."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    client.set("redbeat::lock", "another")
    due(locked.app, "a")
    assert locked.tick() <= 2
    assert sent == []
    assert locked.lock is None


def test_a_tick_raises_when_an_assigned_lock_is_lost(locked: RedBeatScheduler) -> None:
    """Subclasses catch `LockNotOwnedError`."""
    locked.lock = mock.Mock()
    locked.lock.extend.side_effect = LockNotOwnedError("lost")
    with pytest.raises(LockNotOwnedError):
        locked.tick()


@pytest.mark.parametrize("is_held", [True, False])
def test_an_assigned_lock_is_released_only_while_it_is_held(
    scheduler: RedBeatScheduler, is_held: bool
) -> None:
    """Closing leaves it alone if another has taken it."""
    lock = scheduler.lock = mock.Mock()
    lock.owned.return_value = is_held
    scheduler.close()
    assert scheduler.lock is None
    assert lock.release.called is is_held


def test_closing_releases_an_assigned_lock(
    make_app_with: MakeApp, redis_url: str, redis_client: redis.Redis
) -> None:
    """By the thread that took it: no other can."""
    scheduler = RedBeatScheduler(make_app_with(redbeat_redis_url=redis_url))
    lock = redis.lock.Lock(redis_client, "redbeat::lock", timeout=100)
    assert lock.acquire()
    scheduler.lock = lock
    scheduler.close()
    assert scheduler.lock is None
    assert not redis_client.exists("redbeat::lock")


def test_the_extend_script_works_in_a_lock_of_redis_py(redis_client: redis.Redis) -> None:
    """The lock keeps its token and gets its full time to live."""
    lock = redis.lock.Lock(redis_client, "lock", timeout=100)
    extend: Any = redis_client.register_script(LUA_EXTEND_TO_SCRIPT)
    lock.lua_extend = extend
    assert lock.acquire()
    lock.extend(100)
    assert lock.owned()
    remaining: Any = redis_client.ttl("lock")
    assert 95 <= remaining <= 100
    lock.release()
    assert not redis_client.exists("lock")


def test_the_hook_ignores_other_schedulers() -> None:
    """A project may import this package and run Celery's own scheduler."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=object()))
