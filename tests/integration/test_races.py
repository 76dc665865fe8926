"""What happens between two steps of a change: answers that get lost, and edits by others."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry, Timetable
from support.apps import MakeApp
from support.losing import LosingClient, losing_client
from support.servers import RedisServer

SCHEDULE = "redbeat::schedule"


@pytest.fixture
def losing(redis_server: RedisServer) -> Iterator[LosingClient]:
    """A client whose connection breaks when it is told to."""
    with contextlib.closing(losing_client(redis_server)) as client:
        yield client


@pytest.fixture
def losing_app(make_app_with: MakeApp, losing: LosingClient) -> Celery:
    """An application that talks to Redis by that client."""
    app = make_app_with(redbeat_redis_url="redis://injected.invalid/0")
    app.redbeat_redis = losing
    return app


def make(app: Celery, name: str, every: float = 3600, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, "tasks.add", schedule(every), app=app, **fields)


@pytest.mark.parametrize("is_in_schedule", [True, False], ids=["whole", "without its place"])
def test_an_entry_that_was_there_is_removed_without_an_error_though_the_answer_is_lost(
    losing_app: Celery, losing: LosingClient, redis_client: redis.Redis, is_in_schedule: bool
) -> None:
    """The second try finds nothing to remove: that there was an entry is known from before."""
    timetable = Timetable(losing_app)
    make(losing_app, "one").save()
    make(losing_app, "other").save()
    del timetable["other"]
    if not is_in_schedule:
        redis_client.zrem(SCHEDULE, "redbeat:one")
    losing.losses = 1
    del timetable["one"]
    assert losing.losses == 0
    assert not redis_client.exists("redbeat:one")
    with pytest.raises(KeyError, match="one"):
        del timetable["one"]


def test_a_name_without_an_entry_is_told_though_the_answer_is_lost(
    losing_app: Celery, losing: LosingClient
) -> None:
    """A try that broke off is no reason to believe that there was one."""
    losing.losses = 1
    with pytest.raises(KeyError, match="none"):
        del Timetable(losing_app)["none"]


def test_the_place_of_an_entry_whose_hash_is_gone_is_removed(
    client_app: Celery, client: redis.Redis
) -> None:
    client.zadd(SCHEDULE, {"redbeat:gone": 1})
    del Timetable(client_app)["gone"]
    assert client.zscore(SCHEDULE, "redbeat:gone") is None
