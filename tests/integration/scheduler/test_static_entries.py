"""The entries of `beat_schedule`: stored, kept across a restart, and removed with the code."""

import logging
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from support.apps import MakeApp
from support.entries import SCHEDULE, due, score_of, stored
from support.servers import RedisServer
from support.wire import Proxy

UTC = timezone.utc


STATIC = {"task": "tasks.static", "schedule": 30}


def make_zoned(make_app_with: MakeApp, server: RedisServer, zone: str) -> Celery:
    """An application with a task at an hour in a zone, which its code does not name.

    In UTC that is in four or five hours.
    """
    hour = (datetime.now(UTC) + timedelta(hours=5)).hour
    fields = {"task": "tasks.daily", "schedule": crontab(minute="0", hour=str(hour))}
    return make_app_with(
        redbeat_redis_url=server.url(),
        redbeat_lock_key=None,
        timezone=zone,
        beat_schedule={"daily": fields},
    )


def test_a_static_entry_whose_hash_is_gone_is_restored(
    client_app: Celery, client: redis.Redis
) -> None:
    """From `beat_schedule`, whether it is due or not."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"due": STATIC, "later": STATIC}
    scheduler = RedBeatScheduler(client_app)
    client.delete("redbeat:due", "redbeat:later")
    client.zadd(SCHEDULE, {"redbeat:due": 1})
    scheduler.tick()
    assert client.exists("redbeat:due", "redbeat:later") == 2
    assert client.zcard(SCHEDULE) == 2


def test_static_entries_are_stored_and_removed_with_the_code(
    client_app: Celery, client: redis.Redis
) -> None:
    """Their names are tracked, so that removed ones go and dynamic ones stay."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC, "two": STATIC}
    due(client_app, "dynamic")
    RedBeatScheduler(client_app)
    assert client.smembers("redbeat::statics") == {"one", "two"}
    client_app.conf.beat_schedule = {"two": STATIC}
    RedBeatScheduler(client_app).tick()
    assert client.smembers("redbeat::statics") == {"two"}
    assert client.exists("redbeat:one") == 0
    assert client.exists("redbeat:two", "redbeat:dynamic") == 2


def test_a_static_entry_keeps_its_last_run_across_a_restart(client_app: Celery) -> None:
    """Restarting beat does not restart the interval."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app)
    ran = stored(client_app, "one").next().last_run_at
    RedBeatScheduler(client_app)
    assert stored(client_app, "one").last_run_at == ran
    assert stored(client_app, "one").total_run_count == 1


def test_unchanged_static_entries_cost_one_round_trip_each_and_no_write(
    make_app_with: MakeApp, proxy: Proxy
) -> None:
    """Restarting beat rewrites nothing."""
    static = {f"static{number}": STATIC for number in range(10)}
    app = make_app_with(redbeat_redis_url=proxy.url(), redbeat_lock_key=None, beat_schedule=static)
    RedBeatScheduler(app)
    with proxy.counting() as traffic:
        RedBeatScheduler(app)
    assert traffic.round_trips <= 10 + 5
    assert not {"HSET", "ZADD", "EVALSHA", "SADD", "SREM", "DEL"} & set(traffic.names)


def test_a_static_entry_that_a_user_paused_stays_paused(client_app: Celery) -> None:
    """Across a restart, unless the code says whether it is enabled."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app)
    entry = stored(client_app, "one")
    entry.enabled = False
    entry.save()
    RedBeatScheduler(client_app)
    assert not stored(client_app, "one").enabled
    client_app.conf.beat_schedule = {"one": STATIC | {"enabled": True}}
    RedBeatScheduler(client_app)
    assert stored(client_app, "one").enabled


def test_a_static_entry_that_stays_paused_is_logged_at_each_start(
    client_app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever removes `"enabled": False` from the code may expect it to run again."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC | {"enabled": False}}
    RedBeatScheduler(client_app)
    assert "stays paused" not in caplog.text
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app)
    assert "'one' of beat_schedule is paused in Redis and stays paused" in caplog.text


def test_a_resumed_static_entry_stays_enabled_though_its_class_starts_paused(
    scheduler: RedBeatScheduler,
) -> None:
    """The code does not say whether it is enabled."""

    class PausedAtFirst(RedBeatSchedulerEntry):
        def __init__(self, *args: Any, **fields: Any) -> None:
            super().__init__(*args, **{"enabled": False, **fields})

    scheduler.Entry = PausedAtFirst
    scheduler.app.conf.beat_schedule = {"one": STATIC}
    scheduler.setup_schedule()
    assert not stored(scheduler.app, "one").enabled
    entry = stored(scheduler.app, "one")
    entry.enabled = True
    entry.save()
    scheduler.setup_schedule()
    assert stored(scheduler.app, "one").enabled


def test_a_static_entry_that_was_set_aside_is_tried_again_after_a_restart(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Its definition is unchanged, but the fault may have been in the code."""
    scheduler.app.conf.beat_schedule = {"one": STATIC}

    class Broken(RedBeatSchedulerEntry):
        def is_due(self) -> Any:
            raise RuntimeError("a bug")

    scheduler.Entry = Broken
    scheduler.setup_schedule()
    client.zadd(SCHEDULE, {"redbeat:one": time.time() - 1})
    scheduler.tick()
    assert score_of(client, "one") == -2
    mended = RedBeatScheduler(scheduler.app)
    assert score_of(client, "one") == pytest.approx(time.time() + 30, abs=5)
    client.hset("redbeat:one", "meta", '{"last_run_at": null}')
    client.zadd(SCHEDULE, {"redbeat:one": 0})
    mended.tick()
    assert sent == ["tasks.static"]


def test_a_static_entry_that_is_missing_from_the_schedule_is_stored_again(
    client_app: Celery, client: redis.Redis
) -> None:
    """Although its hash is intact."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app)
    client.zrem(SCHEDULE, "redbeat:one")
    RedBeatScheduler(client_app)
    assert score_of(client, "one") is not None


def test_a_static_entry_moves_with_the_time_zone_of_its_application(
    make_app_with: MakeApp, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Although what is stored does not change."""
    RedBeatScheduler(make_zoned(make_app_with, redis_server, "UTC"))
    in_utc = score_of(redis_client, "daily")
    app = make_zoned(make_app_with, redis_server, "Asia/Kathmandu")
    RedBeatScheduler(app)
    assert score_of(redis_client, "daily") == stored(app, "daily").score
    assert score_of(redis_client, "daily") != in_utc


def test_a_static_entry_whose_slot_is_past_is_left_to_the_tick(
    make_app_with: MakeApp, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """An entry that another program enabled keeps waiting for its next slot."""
    app = make_zoned(make_app_with, redis_server, "UTC")
    RedBeatScheduler(app)
    entry = stored(app, "daily")
    entry.last_run_at = datetime.now(UTC) - timedelta(days=3)
    redis_client.hset("redbeat:daily", "meta", entry.encode_meta())
    score = score_of(redis_client, "daily")
    RedBeatScheduler(app)
    assert score_of(redis_client, "daily") == score


def test_an_entry_that_cannot_be_built_is_logged_and_left_out(
    client_app: Celery, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are stored."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {
        "bad": {"task": "tasks.bad", "schedule": 30, "args": [object()]},
        "worse": {"nonsense": 1},
        "good": STATIC,
    }
    RedBeatScheduler(client_app)
    assert client.exists("redbeat:good") == 1
    assert client.exists("redbeat:bad", "redbeat:worse") == 0
    assert "'bad'" in caplog.text
    assert "'worse'" in caplog.text


def test_names_become_text(client_app: Celery, client: Any) -> None:
    """Also those of `beat_schedule`."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {1: STATIC}
    RedBeatScheduler(client_app)
    RedBeatScheduler(client_app)
    assert client.smembers("redbeat::statics") == {"1"}
    assert score_of(client, "1") is not None


def test_an_entry_object_in_the_static_schedule_says_whether_it_is_enabled(
    make_app_with: MakeApp, redis_url: str
) -> None:
    app = make_app_with(redbeat_redis_url=redis_url)
    entry = RedBeatSchedulerEntry("s", "t", schedule(9), app=app).save()
    entry.enabled = False
    app.conf.beat_schedule = {"s": entry}
    RedBeatScheduler(app)
    assert not Timetable(app)["s"].enabled


def test_every_start_logs_the_static_entries(
    make_app_with: MakeApp, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also the unchanged ones."""
    caplog.set_level(logging.DEBUG, "celery.beat")
    schedule_ = {"static": {"task": "t", "schedule": 3600}}
    for _ in range(2):
        RedBeatScheduler(make_app_with(redbeat_redis_url=redis_url, beat_schedule=schedule_))
    told = [record for record in caplog.messages if record.startswith("beat: Stored entry: ")]
    assert sum("static" in line for line in told) == 2


def test_static_entries_are_restored_without_a_leader_when_redis_loses_its_data(
    make_app_with: MakeApp, redis_url: str, redis_client: redis.Redis
) -> None:
    app = make_app_with(
        redbeat_redis_url=redis_url,
        redbeat_lock_key=None,
        beat_schedule={"static": {"task": "t", "schedule": 3600}},
    )
    scheduler = RedBeatScheduler(app)
    scheduler.tick()
    redis_client.flushall()
    for _ in range(2):
        scheduler.tick()
    assert "static" in Timetable(app)


def test_storing_a_long_beat_schedule_does_not_count_as_a_stall(
    scheduler: RedBeatScheduler,
) -> None:
    """Each entry is a sign of life."""
    now, stalls = [0.0], []
    scheduler.redbeat_parts.leadership.watchdog.clock = lambda: now[0]

    class Slow(RedBeatSchedulerEntry):
        def save(self) -> RedBeatSchedulerEntry:
            now[0] += scheduler.redbeat_parts.leadership.watchdog.stall_timeout * 0.9
            stalls.append(scheduler.redbeat_parts.leadership.watchdog.is_stalled)
            return super().save()

    scheduler.Entry = Slow
    scheduler.redbeat_parts.leadership.watchdog.expect(0)
    scheduler.update_from_dict({name: {"task": "tasks.a", "schedule": 60} for name in "abc"})
    assert stalls == [False] * 3
