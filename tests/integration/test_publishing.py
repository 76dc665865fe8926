"""Batches of messages: what they cost the broker, and what becomes of them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu.messaging
import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.delivery import HANDFUL
from support.apps import MakeApp
from support.entries import due
from support.messages import QUEUE, read_messages
from support.wire import Proxy


@pytest.fixture
def app(make_app_with: MakeApp, proxy: Proxy, redis_url: str) -> Celery:
    """An application whose broker is behind a proxy, and whose schedule is not."""
    return make_app_with(broker_url=proxy.url(), redbeat_redis_url=redis_url, redbeat_lock_key=None)


@pytest.fixture
def scheduler(app: Celery) -> Iterator[RedBeatScheduler]:
    """A scheduler that has sent nothing yet."""
    scheduler = RedBeatScheduler(app)
    yield scheduler
    scheduler.close()


def test_a_batch_for_a_known_queue_costs_the_broker_nothing_but_its_messages(
    scheduler: RedBeatScheduler, redis_client: redis.Redis, proxy: Proxy
) -> None:
    """One round trip: nothing is declared again."""
    due(scheduler.app, "first")
    scheduler.tick()
    for number in range(20):
        due(scheduler.app, str(number))
    with proxy.counting() as traffic:
        scheduler.tick()
    assert redis_client.llen(QUEUE) == 21
    assert traffic.names == ["EVALSHA"]
    assert traffic.round_trips == 1


def test_a_queue_that_is_new_in_the_middle_of_a_batch_is_declared(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    """Also when the messages before and after it go to one that is known."""
    for name in "ac":
        due(scheduler.app, name)
    due(scheduler.app, "b", options={"queue": "other"})
    scheduler.tick()
    assert redis_client.exists("_kombu.binding.celery", "_kombu.binding.other") == 2
    assert redis_client.llen(QUEUE) == 2
    assert redis_client.llen("other") == 1


class Stamping(kombu.messaging.Producer):
    """The producer of an application."""

    def publish(self, *args: Any, **options: Any) -> Any:
        return super().publish(*args, **options, app_id="stamped")  # type: ignore[no-untyped-call]  # kombu's


def make_stamping(*args: Any, **options: Any) -> Stamping:
    return Stamping(*args, **options)  # type: ignore[no-untyped-call]  # kombu's own gap


@pytest.mark.parametrize("producer", [Stamping, make_stamping])
def test_an_application_may_use_its_own_producer(
    app: Celery, redis_client: redis.Redis, producer: Any
) -> None:
    """The scheduler gets its class, or a function that makes one."""
    scheduler = RedBeatScheduler(app, Producer=producer)
    for name in "ab":
        due(app, name)
    scheduler.tick()
    scheduler.close()
    messages = read_messages(redis_client)
    assert [message.properties["app_id"] for message in messages] == ["stamped"] * 2


def test_loading_over_a_slow_network_leaves_time_to_fill_the_batch(
    make_app_with: MakeApp,
    redis_url: str,
    proxy: Proxy,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise each batch would send one message, and load all the others again."""
    app = make_app_with(broker_url=redis_url, redbeat_redis_url=proxy.url(), redbeat_lock_key=None)
    for number in range(20):
        due(app, str(number))
    scheduler = RedBeatScheduler(app)
    monkeypatch.setattr("redbeat.beat.batch.FILLING_TIME", 0.08)
    proxy.delay = 0.1
    with proxy.counting() as traffic:
        scheduler.tick()
    assert redis_client.llen(QUEUE) == 20
    assert traffic.names.count("HMGET") < 60
    proxy.delay = 0
    scheduler.close()


def test_a_slow_load_leaves_time_to_publish(
    make_app_with: MakeApp, redis_url: str, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """Without a leader, a batch is sent within half of the claim timeout, or not at all."""
    app = make_app_with(
        broker_url=redis_url,
        redbeat_redis_url=proxy.url(),
        redbeat_lock_key=None,
        redbeat_claim_timeout=2,
    )
    for number in range(50):
        due(app, str(number))

    class Slow(RedBeatScheduler):
        def apply_async(self, entry: RedBeatSchedulerEntry, *args: Any, **kwargs: Any) -> Any:
            time.sleep(0.01)
            return super().apply_async(entry, *args, **kwargs)

    scheduler = Slow(app)
    proxy.delay = 0.3
    for _ in range(5):
        scheduler.tick()
    assert redis_client.llen(QUEUE) == 50
    proxy.delay = 0
    scheduler.close()


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("amqp://broker.invalid", {}, True),
        ("pyamqp://broker.invalid", {"confirm_publish": False}, False),
        ("redis://broker.invalid", {}, None),
    ],
)
def test_rabbitmq_confirms_messages_unless_the_application_says_otherwise(
    make_app_with: MakeApp, redis_url: str, url: str, options: dict[str, Any], expected: bool | None
) -> None:
    """Otherwise a message in the buffer of a socket would count as sent."""
    app = make_app_with(
        broker_url=url,
        broker_transport_options=options,
        redbeat_redis_url=redis_url,
        redbeat_redis_options={},
    )
    connection = RedBeatScheduler(app).connection
    assert connection.transport_options.get("confirm_publish") is expected
    assert app.conf.broker_transport_options == options


@pytest.fixture
def folder_app(make_app_with: MakeApp, redis_url: str, tmp_path: Path) -> Celery:
    """An application whose broker is a folder, which does not exist yet."""
    folder = str(tmp_path / "broker")
    options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
    return make_app_with(
        broker_url="filesystem://",
        broker_transport_options=options,
        redbeat_redis_url=redis_url,
        redbeat_redis_options={},
        redbeat_lock_key=None,
    )


def test_no_run_is_lost_while_the_folder_of_the_broker_is_missing(
    folder_app: Celery, tmp_path: Path, redis_client: redis.Redis
) -> None:
    """Its errors look like those of a task's own code, but come from the transport."""
    names = [f"entry-{number}" for number in range(10)]
    scheduler = RedBeatScheduler(folder_app)
    for name in names:
        due(folder_app, name)
    scheduler.tick()
    for name in names:
        entry = RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=folder_app)
        assert entry.total_run_count == 0
        score = redis_client.zscore("redbeat::schedule", entry.key)
        assert score is not None
        assert 0 < score < time.time() + 60
    folder = tmp_path / "broker"
    folder.mkdir()
    redis_client.zadd("redbeat::schedule", {f"redbeat:{name}": 1 for name in names})
    scheduler.tick()
    assert len(list(folder.glob("*.celery.msg"))) == len(names)
    scheduler.close()


class QuotaError(Exception):
    """An error of a transport that kombu does not count among its own."""


@pytest.mark.parametrize(
    ("error", "is_counted"),
    [(QuotaError("try later"), False), (OSError(28, "No space left"), False), (TypeError(), True)],
    ids=repr,
)
def test_a_message_that_fails_in_the_transport_stays_due_unless_it_cannot_be_serialised(
    make_app_with: MakeApp,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    is_counted: bool,
) -> None:
    """A transport may raise any error of its library."""
    app = make_app_with(redbeat_redis_url=redis_url, redbeat_lock_key=None)

    def put(self: Any, queue: str, message: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("kombu.transport.memory.Channel._put", put)
    scheduler = RedBeatScheduler(app)
    due(app, "a")
    scheduler.tick()
    entry = RedBeatSchedulerEntry.from_key("redbeat:a", app=app)
    assert entry.total_run_count == int(is_counted)
    scheduler.close()


class PulledPlugError(BaseException):
    """Ends a tick at once, as a kill does: nothing more is committed."""


def test_a_killed_beat_repeats_one_handful_of_messages_at_most(
    make_app_with: MakeApp, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where messages are sent one by one: those since the last commit."""
    app = make_app_with(redbeat_redis_url=redis_url, redbeat_lock_key=None)
    names = [f"entry-{number}" for number in range(200)]
    for name in names:
        due(app, name)
    scheduler = RedBeatScheduler(app)
    sent: list[str] = []

    def send(self: Any, task: str, args: list[str], *others: Any, **options: Any) -> None:
        if len(sent) == 130:
            raise PulledPlugError
        sent.append(args[0])

    monkeypatch.setattr(RedBeatScheduler, "send_task", send)
    with pytest.raises(PulledPlugError):
        scheduler.tick()
    entries = [RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app) for name in names]
    counted = {entry.name for entry in entries if entry.total_run_count}
    assert counted <= set(sent)
    assert 0 <= len(sent) - len(counted) <= HANDFUL
    scheduler.close()
