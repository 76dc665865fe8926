"""Changes are told, heard, and do not depend on being told."""

import threading
import time
from typing import Any

import pytest
import redis
import redis.exceptions
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import get_storage
from support.servers import StartRedis


def entry(app: Celery, every: float = 60) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry("a", "tasks.a", schedule(every), app=app)


def heard(client: Any, change: Any) -> list[str]:
    """What is published while `change` is made."""
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("redbeat::changed")
    pubsub.get_message(timeout=1)
    change()
    message = pubsub.get_message(timeout=1)
    pubsub.close()
    return [] if message is None else [message["data"]]


def test_saving_deleting_and_rescheduling_are_told(client_app: Celery, client: redis.Redis) -> None:
    """Each as the score that it gave to the entry."""
    (told,) = heard(client, lambda: entry(client_app).save())
    assert float(told) == client.zscore("redbeat::schedule", "redbeat:a")
    (told,) = heard(client, lambda: entry(client_app).reschedule())
    assert float(told) == client.zscore("redbeat::schedule", "redbeat:a")
    assert heard(client, lambda: entry(client_app).delete()) == [""]


def test_a_listener_wakes_for_what_is_due_before_it_would_wake_anyway(app: Celery) -> None:
    """Other changes do not end its sleep."""
    listener = get_storage(app).listen()
    now = time.time()
    entry(app, every=600).save()
    assert not listener.wait(0.3, before=now + 300)
    threading.Timer(0.1, lambda: entry(app, every=10).save()).start()
    began = time.monotonic()
    assert not listener.wait(0.2, before=now - 1000)
    entry(app, every=10).save()
    assert listener.wait(5, before=now + 300)
    assert time.monotonic() - began < 4
    listener.close()


def test_edits_work_where_publishing_is_not_allowed(
    start_redis: StartRedis, make_app_with: Any
) -> None:
    """Managed services and ACL rules may refuse PUBLISH: the change is stored all the same."""
    server = start_redis(user=["quiet on >pass ~* &* +@all -publish -subscribe"])
    url = f"redis://quiet:pass@127.0.0.1:{server.port}/0"
    app = make_app_with(redbeat_redis_url=url, redbeat_key_expiry_check="ignore")
    saved = entry(app).save()
    saved.reschedule()
    assert saved.rank == 0
    saved.delete()
    assert saved.rank is None
    with pytest.raises(redis.exceptions.NoPermissionError):
        get_storage(app).listen().wait(1, before=0)
