"""Edits while a real beat sleeps: default settings, a broker and a schedule in Redis."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry
from support.messages import read_messages
from support.programs import MakeProject, Program
from support.waiting import wait_until

SCHEDULE = "redbeat::schedule"

SECONDS = {"__type__": "interval", "every": 3600.0, "relative": False}


@pytest.fixture
def sleeping(make_project: MakeProject, redis_client: redis.Redis) -> Program:
    """A beat that leads and has nothing to do for minutes."""
    beat = make_project(beat_max_loop_interval=None, redbeat_lock_timeout=None).beat()
    beat.wait_for_line("Acquired lock")
    wait_until(lambda: redis_client.pubsub_numsub("redbeat::changed")[0][1], 10, "the listener")
    return beat


def was_sent(broker: redis.Redis, name: str) -> Callable[[], bool]:
    return lambda: any(message.args == [name] for message in read_messages(broker))


def new_entry(app: Celery, name: str) -> RedBeatSchedulerEntry:
    entry = RedBeatSchedulerEntry(name, "proj.record", schedule(3600), args=[name], app=app)
    entry.last_run_at = None
    return entry


@pytest.mark.usefixtures("sleeping")
def test_saving_an_entry_wakes_beat(app: Celery, broker: redis.Redis) -> None:
    """At once, not at the next poll: ten in a row take less than one poll interval each."""
    began = time.monotonic()
    for number in range(10):
        new_entry(app, f"entry{number}").save()
        wait_until(was_sent(broker, f"entry{number}"), 5, "the run")
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("sleeping")
def test_an_entry_written_without_a_notification_is_noticed_by_polling(
    redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """HSET and ZADD, as from any language, are noticed within a poll interval."""
    definition = {"name": "raw", "task": "proj.record", "args": ["raw"], "schedule": SECONDS}
    redis_client.hset("redbeat:raw", "definition", json.dumps(definition))
    redis_client.zadd(SCHEDULE, {"redbeat:raw": 0})
    wait_until(was_sent(broker, "raw"), 5 + 2, "the run")


@pytest.mark.usefixtures("sleeping")
def test_a_paused_entry_stops_and_a_resumed_one_runs_again(
    app: Celery, broker: redis.Redis, redis_client: redis.Redis
) -> None:
    """Saved with `enabled=False`, it does not run; saved with `True`, it does."""
    entry = new_entry(app, "paused")
    entry.enabled = False
    entry.save()
    wait_until(lambda: score(redis_client, entry) > time.time() + 3000, 10, "its next slot")
    assert not was_sent(broker, "paused")()
    resumed = new_entry(app, "paused")
    resumed.save()
    wait_until(was_sent(broker, "paused"), 5, "the run")


def score(client: redis.Redis, entry: RedBeatSchedulerEntry) -> float:
    found: Any = client.zscore(SCHEDULE, entry.key)
    return 0.0 if found is None else float(found)


def test_an_idle_beat_sends_few_commands_to_redis(
    sleeping: Program, app: Celery, redis_client: redis.Redis
) -> None:
    """At most 40 a minute, including those in scripts; the next entry is far ahead."""
    new_entry(app, "far").reschedule()
    let_pass(5)
    before = commands(redis_client)
    let_pass(60)
    asking = 1
    assert commands(redis_client) - before <= 40 + asking
    assert sleeping.is_running()


def let_pass(seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > ends_at, seconds + 1, f"{seconds} seconds")


def commands(client: redis.Redis) -> int:
    """What the server has executed so far; asking counts as well."""
    info: Any = client.info("stats")
    return int(info["total_commands_processed"])
