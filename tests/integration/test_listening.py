"""Changes are published and heard, and are made even if they cannot be published."""

import inspect
import threading
import time
from typing import Any

import pytest
import redis
import redis.connection
import redis.exceptions
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedulers import get_storage
from redbeat.store.listening import Listener
from support.apps import MakeApp
from support.servers import StartRedis
from support.waiting import wait_until
from support.wire import Proxy


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


def test_saving_deleting_and_rescheduling_are_published(
    client_app: Celery, client: redis.Redis
) -> None:
    """Each as the score that it gives to the entry."""
    (told,) = heard(client, lambda: entry(client_app).save())
    assert float(told) == client.zscore("redbeat::schedule", "redbeat:a")
    (told,) = heard(client, lambda: entry(client_app).reschedule())
    assert float(told) == client.zscore("redbeat::schedule", "redbeat:a")
    assert heard(client, lambda: entry(client_app).delete()) == [""]


def test_a_listener_wakes_for_what_is_due_before_it_would_wake_otherwise(app: Celery) -> None:
    """Other changes do not end its sleep."""
    listener = get_storage(app).listen()
    now = time.time()
    entry(app, every=600).save()
    assert not listener.wait(0.3, before=now + 300)
    threading.Timer(0.1, lambda: entry(app, every=10).save()).start()
    assert not listener.wait(0.2, before=now - 1000)
    entry(app, every=10).save()
    assert listener.wait(60, before=now + 300)
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


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a subscription for a sign of life at each wait."""
    monkeypatch.setattr("redbeat.store.listening.ASKING_INTERVAL", 0.0)
    monkeypatch.setattr("redbeat.store.listening.ANSWERING_TIME", 1.0)


def is_kept(app: Celery, listener: Listener) -> bool:
    """Whether a subscription lives longer than an answer may take, and hears of changes."""
    began = time.monotonic()
    while time.monotonic() < began + 1.5:
        assert not listener.wait(0.1, before=0)
    entry(app, every=10).save()
    has_heard = listener.wait(5, before=time.time() + 300)
    listener.close()
    return has_heard


@pytest.mark.usefixtures("_impatient")
def test_a_quiet_subscription_is_kept(client_app: Celery) -> None:
    """It answers when it is asked."""
    assert is_kept(client_app, get_storage(client_app).listen())


@pytest.mark.usefixtures("_impatient")
def test_a_quiet_subscription_is_kept_on_each_topology(topology_app: Celery) -> None:
    """In a cluster as well."""
    assert is_kept(topology_app, get_storage(topology_app).listen())


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_quiet_subscription_is_kept_by_either_protocol(
    make_app_with: MakeApp, redis_url: str, protocol: int
) -> None:
    """They answer in different ways."""
    if "protocol" not in inspect.signature(redis.connection.AbstractConnection).parameters:
        pytest.skip("this redis-py knows one protocol")
    app = make_app_with(redbeat_redis_url=f"{redis_url}?protocol={protocol}")
    assert is_kept(app, get_storage(app).listen())


@pytest.mark.usefixtures("_impatient")
def test_a_quiet_subscription_is_kept_where_it_may_not_ask(
    start_redis: StartRedis, make_app_with: MakeApp
) -> None:
    """It is not cut off."""
    server = start_redis(user=["quiet on >pass ~* &* +@all -ping"])
    app = make_app_with(redbeat_redis_url=f"redis://quiet:pass@127.0.0.1:{server.port}/0")
    assert is_kept(app, get_storage(app).listen())


@pytest.mark.usefixtures("_impatient")
def test_a_subscription_that_died_silently_is_replaced(
    app: Celery, make_app_with: MakeApp, proxy: Proxy
) -> None:
    """Beat looks for what it has missed, and hears of the next change at once."""
    rest = RedBeatScheduler(make_app_with(redbeat_redis_url=proxy.url())).redbeat_parts.rest
    assert not rest.listen(0.1, before=0)
    proxy.mute()
    entry(app, every=10).save()
    wait_until(lambda: rest.listen(0.1, before=0), 10, "the end of the subscription")
    assert not rest.listen(0.1, before=0)
    entry(app, every=10).save()
    assert rest.listen(5, before=time.time() + 300)
    rest.close()
