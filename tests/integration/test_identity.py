"""Runs that bear an identity, as the setting `redbeat_identify_runs` asks for."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from support.entries import SCHEDULE, due, stored
from support.messages import Message, read_messages

UTC = timezone.utc


@pytest.fixture
def scheduler(app: Celery, redis_url: str) -> Iterator[RedBeatScheduler]:
    app.conf.update(broker_url=redis_url, redbeat_lock_key=None, redbeat_identify_runs=True)
    scheduler = RedBeatScheduler(app)
    yield scheduler
    scheduler.close()


def send(scheduler: RedBeatScheduler, client: redis.Redis) -> list[Message]:
    """Tick, and take what was sent out of the queue."""
    scheduler.tick()
    messages = read_messages(client)
    client.delete("celery")
    return messages


def test_a_run_names_its_entry_and_its_slot(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    entry = due(scheduler.app, "a")
    assert entry.last_run_at is not None
    slot = entry.last_run_at + timedelta(hours=1)
    (message,) = send(scheduler, redis_client)
    assert message.headers["periodic_task_name"] == "a"
    assert datetime.fromisoformat(message.headers["scheduled_at"]) == slot


@pytest.mark.parametrize("rule", [schedule(3600), crontab(minute="*")])
def test_a_run_that_is_sent_twice_has_the_same_id(
    scheduler: RedBeatScheduler, redis_client: redis.Redis, rule: object
) -> None:
    """As after a beat that was killed between sending a message and its commit."""
    ran = datetime.now(UTC) - timedelta(hours=2)
    entry = RedBeatSchedulerEntry("a", "t", rule, app=scheduler.app, last_run_at=ran).save()
    meta = redis_client.hget(entry.key, "meta")
    (first,) = send(scheduler, redis_client)
    redis_client.hset(entry.key, "meta", str(meta))
    redis_client.zadd(SCHEDULE, {entry.key: 1})
    (second,) = send(scheduler, redis_client)
    assert first.headers["id"] == second.headers["id"]
    assert first.headers["scheduled_at"] == second.headers["scheduled_at"]


def test_two_slots_have_two_ids(scheduler: RedBeatScheduler, redis_client: redis.Redis) -> None:
    entry = due(scheduler.app, "a")
    (first,) = send(scheduler, redis_client)
    entry.reschedule(datetime.now(UTC) - timedelta(hours=2))
    (second,) = send(scheduler, redis_client)
    assert first.headers["id"] != second.headers["id"]


def test_the_stored_entry_knows_nothing_of_its_runs(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    options = {"task_id": "mine", "headers": {"x": 1}}
    due(scheduler.app, "a", options=options)
    (message,) = send(scheduler, redis_client)
    assert message.headers["id"] == "mine"
    assert message.headers["x"] == 1
    assert message.headers["periodic_task_name"] == "a"
    assert stored(scheduler.app, "a").options == options


def test_a_run_by_hand_has_an_id_of_its_own(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    due(scheduler.app, "a")
    timetable = Timetable(scheduler.app)
    ids = {timetable.run("a").id, timetable.run("a").id}
    redis_client.delete("celery")
    (message,) = send(scheduler, redis_client)
    assert len(ids | {message.headers["id"]}) == 3


def test_without_the_setting_a_message_is_as_celery_makes_it(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    scheduler.app.redbeat_conf.identify_runs = False
    due(scheduler.app, "a")
    (message,) = send(scheduler, redis_client)
    assert "scheduled_at" not in message.headers
    assert "periodic_task_name" not in message.headers
