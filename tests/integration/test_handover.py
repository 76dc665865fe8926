"""Runs that are sent and committed in one step, where the broker is on the schedule's server."""

import base64
import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler, signals
from redbeat.beat.guarantees import Guarantee
from redbeat.schedulers import get_storage
from redbeat.store.records import Outcome
from redbeat.store.scripts import HAND_OVER
from redbeat.store.topology import SCRIPT_ARGUMENTS, SCRIPT_BYTES, SCRIPT_ENTRIES
from support.apps import MakeApp
from support.entries import HOUR, UTC, due, score_of, stored
from support.messages import QUEUE, names_sent, read_messages
from support.permissions import Users, guard
from support.ports import LOOPBACK
from support.queues import broadcast, queue
from support.servers import RedisServer, StartRedis
from support.unrecorded import send_unrecorded
from support.waiting import wait_until
from support.wire import Proxy

BROKER_DB = 1


@pytest.fixture
def app(make_app_with: MakeApp, redis_server: RedisServer) -> Celery:
    """An application whose schedule and broker are two databases of one server."""
    return make_app_with(
        broker_url=redis_server.url(BROKER_DB),
        redbeat_redis_url=redis_server.url(),
        redbeat_lock_key=None,
    )


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the broker's database, which is empty."""
    with redis_server.client(BROKER_DB) as client:
        client.flushdb()
        yield client


@pytest.fixture
def scheduler(app: Celery, broker: redis.Redis) -> Iterator[RedBeatScheduler]:
    """A scheduler that has sent nothing yet."""
    scheduler = RedBeatScheduler(app)
    yield scheduler
    scheduler.close()


@pytest.fixture
def dispatched() -> Iterator[list[str]]:
    """The names of the entries that `entry_dispatched` reported."""
    names: list[str] = []

    def receive(entry: Any, **facts: Any) -> None:
        names.append(entry.name)

    signals.entry_dispatched.connect(receive)
    yield names
    signals.entry_dispatched.disconnect(receive)


def guarantee_of(scheduler: RedBeatScheduler) -> Guarantee | None:
    return scheduler.redbeat_parts.outbox.guarantee


def scheduler_with(make_app_with: MakeApp, server: RedisServer, **settings: Any) -> Any:
    urls = {"broker_url": server.url(BROKER_DB), "redbeat_redis_url": server.url()}
    return RedBeatScheduler(make_app_with(**urls | {"redbeat_lock_key": None} | settings))


def make_due(app: Celery) -> None:
    """Make due now what is leased or put off, as time does."""
    storage = get_storage(app)
    for member in storage.read_page(0, time.time() + 60, 500):
        storage.commit(member.score, [Outcome(member.key, 0.0)])


def declare_broadcast(scheduler: RedBeatScheduler) -> None:
    """Tell the channel that the exchange is one; Celery leaves that to those who listen."""
    scheduler.app.amqp.queues["news"].exchange(scheduler.producer.channel).declare()


def listen_for(broker: redis.Redis, pattern: str) -> Any:
    """A subscription that the server has confirmed."""
    listener: Any = broker.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py's
    listener.psubscribe(pattern)
    listener.get_message(timeout=1)
    return listener


def scheduler_of(make_app_with: MakeApp, users: Users) -> RedBeatScheduler:
    """A scheduler whose user of the broker is the guest, and that of the schedule may do all."""
    urls = {
        "broker_url": f"{users.guest_url}/{BROKER_DB}",
        "redbeat_redis_url": users.admin_url,
    }
    return RedBeatScheduler(make_app_with(**urls, redbeat_lock_key=None))


# What reaches the broker


def test_a_run_reaches_the_broker_and_leaves_the_schedule(
    scheduler: RedBeatScheduler, broker: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Also between two databases, and the log says once which way it went."""
    caplog.set_level(logging.INFO, "celery.beat")
    for name in "ab":
        due(scheduler.app, name)
        scheduler.tick()
    assert names_sent(broker) == ["a", "b"]
    assert stored(scheduler.app, "a").total_run_count == 1
    assert guarantee_of(scheduler) is Guarantee.EXACTLY_ONCE
    assert caplog.text.count("beat: delivery: exactly once (same server)") == 1


def ttl_by_kombu(app: Celery, broker: redis.Redis) -> int:
    """The milliseconds left to a queue to which kombu has just sent: older ones set no limit."""
    broker.delete("team.fleeting")
    app.send_task("tasks.direct", queue="fleeting")
    return int(broker.pttl("team.fleeting"))


def test_everything_kombu_does_to_a_message_is_done(
    make_app_with: MakeApp, redis_server: RedisServer, broker: redis.Redis
) -> None:
    """Key prefix, priorities, compression and queues that expire."""
    scheduler = scheduler_with(
        make_app_with,
        redis_server,
        broker_transport_options={"global_keyprefix": "team.", "queue_order_strategy": "priority"},
        redbeat_redis_options={},
        task_queues=[
            queue("celery"),
            queue("fleeting", expires=60),
        ],
    )
    due(scheduler.app, "urgent", options={"priority": 9})
    due(scheduler.app, "packed", options={"compression": "zlib"})
    due(scheduler.app, "fleeting", options={"queue": "fleeting"})
    scheduler.tick()
    assert guarantee_of(scheduler) is Guarantee.EXACTLY_ONCE
    keys = {key for key in broker.scan_iter() if "_kombu" not in key}
    assert keys == {"team.celery", "team.celery\x06\x169", "team.fleeting"}
    ours, theirs = broker.pttl("team.fleeting"), ttl_by_kombu(scheduler.app, broker)
    assert (ours > 0) is (theirs > 0)
    envelope = broker.lindex("team.celery", 0)
    assert envelope is not None
    assert "application/x-gzip" in envelope or "zlib" in envelope
    scheduler.close()


def test_a_broadcast_reaches_those_who_listen(
    make_app_with: MakeApp, redis_server: RedisServer, broker: redis.Redis
) -> None:
    """Kombu publishes it, and no queue keeps it."""
    scheduler = scheduler_with(
        make_app_with, redis_server, task_queues=[broadcast("news"), queue("celery")]
    )
    declare_broadcast(scheduler)
    listener = listen_for(broker, "*news*")
    due(scheduler.app, "a", options={"queue": "news", "exchange": "news"})
    scheduler.tick()
    message = listener.get_message(timeout=2)
    assert message is not None
    assert "tasks.a" in message["data"]
    assert stored(scheduler.app, "a").total_run_count == 1
    assert guarantee_of(scheduler) is Guarantee.EXACTLY_ONCE
    listener.close()
    scheduler.close()


@pytest.mark.parametrize("times", [0, 1, 3])
def test_an_override_may_send_any_number_of_messages(
    app: Celery, broker: redis.Redis, times: int
) -> None:
    """They all go with the run of its entry."""

    class Several(RedBeatScheduler):
        def apply_async(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
            self.reserve(entry)
            for _ in range(times):
                self.send_task(entry.task, entry.args, producer=producer)

    scheduler = Several(app)
    due(app, "a")
    scheduler.tick()
    assert names_sent(broker) == ["a"] * times
    assert stored(app, "a").total_run_count == 1
    scheduler.close()


def test_what_an_override_sends_through_another_producer_goes_at_once(
    app: Celery, broker: redis.Redis
) -> None:
    """Beat knows nothing of it."""
    seen: list[int] = []

    class Other(RedBeatScheduler):
        def apply_async(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
            with app.connection_for_write() as connection:
                app.amqp.Producer(connection).publish("{}", routing_key="audit")
            seen.append(broker.llen("audit"))
            return super().apply_async(entry, producer=producer, **kwargs)

    scheduler = Other(app)
    due(app, "a")
    scheduler.tick()
    assert seen == [1]
    assert names_sent(broker) == ["a"]
    scheduler.close()


def test_an_override_that_does_not_count_its_run_sends_it_and_is_due_again(
    app: Celery, broker: redis.Redis
) -> None:
    """As with 2.x, where the entry stays due until something moves it."""

    class Careless(RedBeatScheduler):
        def apply_async(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
            return self.send_task(entry.task, entry.args, producer=producer)

    scheduler = Careless(app)
    due(app, "a")
    scheduler.tick()
    assert names_sent(broker) == ["a"]
    assert stored(app, "a").total_run_count == 0
    scheduler.close()


# What happens meanwhile


def test_an_entry_that_another_program_deletes_or_saves_meanwhile_sends_nothing(
    app: Celery,
    make_app_with: MakeApp,
    redis_server: RedisServer,
    broker: redis.Redis,
    dispatched: list[str],
) -> None:
    """Neither its message nor the event about it; the saved one runs in its own next turn."""
    app.conf.task_send_sent_event = True

    elsewhere = make_app_with(
        broker_url=redis_server.url(BROKER_DB), redbeat_redis_url=redis_server.url()
    )

    class Meanwhile(RedBeatScheduler):
        def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
            if entry.name == "deleted":
                stored(elsewhere, "deleted").delete()
            elif entry.name == "paused":
                due(elsewhere, "paused", enabled=False)
            return super().apply_async(entry, *args, **kwargs)

    events = listen_for(broker, "*celeryev*")
    scheduler = Meanwhile(app)
    for name in ("deleted", "paused", "kept"):
        due(app, name)
    scheduler.tick()
    assert names_sent(broker) == dispatched == ["kept"]
    event = events.get_message(timeout=2)
    assert event is not None
    assert "tasks.kept" in base64.b64decode(json.loads(event["data"])["body"]).decode()
    assert events.get_message(timeout=0.1) is None
    events.close()
    assert score_of(get_storage(app).client, "deleted") is None
    assert not stored(app, "paused").enabled
    scheduler.close()


def delete_it(entry: Any) -> None:
    entry.delete()


def reschedule_it(entry: Any) -> None:
    entry.reschedule()


def save_it(entry: Any) -> None:
    entry.kwargs["changed"] = True
    entry.save()


@pytest.mark.parametrize("comes_first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("change", [delete_it, reschedule_it, save_it])
def test_an_override_may_change_its_entry_in_its_own_turn(
    app: Celery, broker: redis.Redis, change: Callable[[Any], None], comes_first: bool
) -> None:
    """The run is made once all the same, and sent before a change that comes after it."""
    sent_by_then: list[int] = []

    class Changing(RedBeatScheduler):
        def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
            if comes_first:
                change(entry)
            result = super().apply_async(entry, *args, **kwargs)
            if not comes_first:
                change(entry)
                sent_by_then.append(broker.llen(QUEUE))
            return result

    scheduler = Changing(app)
    for name in "abc":
        due(app, name)
    for _ in range(3):
        scheduler.tick()
    assert names_sent(broker) == ["a", "b", "c"]
    assert sent_by_then in ([], [1, 2, 3])
    if change is save_it:
        assert [stored(app, name).total_run_count for name in "abc"] == [1, 1, 1]
    scheduler.close()


def test_an_override_may_store_what_it_has_reserved(app: Celery, broker: redis.Redis) -> None:
    """As people did who did not trust 2.x to do so."""

    class Storing(RedBeatScheduler):
        def reserve(self, entry: Any) -> Any:
            return super().reserve(entry).save()

    scheduler = Storing(app)
    for name in "ab":
        due(app, name)
    for _ in range(3):
        scheduler.tick()
    assert names_sent(broker) == ["a", "b"]
    assert [stored(app, name).total_run_count for name in "ab"] == [1, 1]
    scheduler.close()


def test_a_beat_whose_leases_are_gone_sends_and_counts_nothing(
    app: Celery, broker: redis.Redis, dispatched: list[str]
) -> None:
    """It was frozen, and another one has made the runs."""

    class Frozen(RedBeatScheduler):
        is_frozen = True

        def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
            result = super().apply_async(entry, *args, **kwargs)
            if self.is_frozen:
                self.is_frozen = False
                make_due(app)
                other = RedBeatScheduler(app)
                other.tick()
                other.close()
            return result

    due(app, "first")
    scheduler = Frozen(app)
    scheduler.is_frozen = False
    scheduler.tick()
    scheduler.is_frozen = True
    for name in "abc":
        due(app, name)
    scheduler.tick()
    assert names_sent(broker) == ["a", "b", "c", "first"]
    assert sorted(dispatched) == ["a", "b", "c", "first"]
    assert scheduler.redbeat_parts.ledger.reporter.runs == 1
    assert [stored(app, name).total_run_count for name in "abc"] == [1, 1, 1]
    scheduler.close()


def test_a_lost_answer_repeats_nothing_and_loses_no_count(
    make_app_with: MakeApp,
    redis_server: RedisServer,
    proxy: Proxy,
    broker: redis.Redis,
    dispatched: list[str],
) -> None:
    """The connection breaks after the server has done it, and before it says so."""
    scheduler = scheduler_with(make_app_with, redis_server, broker_url=proxy.url(BROKER_DB))
    due(scheduler.app, "first")
    scheduler.tick()
    for name in "abc":
        due(scheduler.app, name)
    # The answer is held back until then.
    proxy.delay = 0.3
    cut = threading.Timer(0.15, proxy.drop)
    cut.start()
    scheduler.tick()
    cut.join()
    proxy.delay = 0
    scheduler.tick()
    assert names_sent(broker) == ["a", "b", "c", "first"]
    assert sorted(dispatched) == ["a", "b", "c", "first"]
    scheduler.close()


def test_kombu_may_connect_again_within_a_turn(app: Celery, broker: redis.Redis) -> None:
    """What is recorded goes over the new channel."""

    class Reconnecting(RedBeatScheduler):
        def apply_async(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
            result = super().apply_async(entry, producer=producer, **kwargs)
            if entry.name == "b":
                producer.connection.collect()
                producer.revive(producer.connection.default_channel)
            return result

    scheduler = Reconnecting(app)
    for name in "abc":
        due(app, name)
    scheduler.tick()
    assert names_sent(broker) == ["a", "b", "c"]
    assert [stored(app, name).total_run_count for name in "abc"] == [1, 1, 1]
    scheduler.tick()
    assert names_sent(broker) == ["a", "b", "c"]
    scheduler.close()


def test_a_broker_elsewhere_that_breaks_off_gets_each_message_twice_at_most(
    make_app_with: MakeApp, redis_server: RedisServer, start_redis: StartRedis
) -> None:
    """Also if the connection breaks again and again: then they are sent one by one."""
    other = start_redis()
    proxy = Proxy(other.port)
    scheduler = scheduler_with(make_app_with, redis_server, broker_url=proxy.url())
    due(scheduler.app, "first")
    scheduler.tick()
    for name in "abc":
        due(scheduler.app, name)
    proxy.delay = 0.3
    cut = threading.Timer(0.15, proxy.drop)
    cut.start()
    scheduler.tick()
    cut.join()
    proxy.delay = 0
    with other.client() as client:
        assert names_sent(client) == ["a", "b", "c", "first"]
        for _ in range(3):
            make_due(scheduler.app)
            scheduler.tick()
        assert len(client.lrange(QUEUE, 0, -1)) <= 7
    assert [stored(scheduler.app, name).total_run_count for name in "abc"] == [1, 1, 1]
    scheduler.close()
    proxy.refuse()


def test_a_message_that_breaks_the_connection_holds_up_no_other(
    make_app_with: MakeApp, start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """A server closes the connection on an argument that is too long for it."""
    server = start_redis(proto_max_bulk_len="1mb")
    scheduler = scheduler_with(make_app_with, server)
    due(scheduler.app, "big", kwargs={"ballast": "x" * 900_000})
    for name in "abc":
        due(scheduler.app, name)
    with server.client(BROKER_DB) as broker:
        for _ in range(3):
            scheduler.tick()
            make_due(scheduler.app)
        assert names_sent(broker) == ["a", "b", "c"]
    assert stored(scheduler.app, "big").total_run_count == 0
    assert "big was not sent" in caplog.text
    scheduler.close()


def test_a_channel_that_was_closed_between_two_ticks_is_replaced(
    scheduler: RedBeatScheduler, broker: redis.Redis
) -> None:
    """As kombu leaves it at times after connections were cut in quick succession."""
    for name in "ab":
        due(scheduler.app, name)
        scheduler.tick()
        scheduler.producer.channel.close()
    assert names_sent(broker) == ["a", "b"]


# What is refused


def test_a_queue_of_another_type_keeps_only_its_own_entries_due(
    app: Celery, broker: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is half done: its other message is not sent either."""

    class Twice(RedBeatScheduler):
        def apply_async(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
            self.reserve(entry)
            for name in entry.kwargs["queues"]:
                self.send_task(entry.task, entry.args, queue=name, producer=producer)

    scheduler = Twice(app)
    for name, queues in (("bad", ["good", "payments"]), ("fine", ["good", "other"])):
        due(app, name, kwargs={"queues": queues})
    scheduler.tick()
    broker.delete("good", "other", "payments")
    broker.hset("payments", "is", "a hash")
    for name in ("bad", "fine"):
        stored(app, name).reschedule(datetime.now(UTC) - timedelta(hours=2))
    scheduler.tick()
    assert names_sent(broker, "good") == names_sent(broker, "other") == ["fine"]
    assert stored(app, "bad").is_due()[0]
    assert "The broker refuses bad" in caplog.text
    scheduler.close()


def test_entries_with_a_refused_queue_hold_up_no_other(
    scheduler: RedBeatScheduler, broker: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """However many come first: kombu finds the queue wrong as it declares it."""
    broker.set("payments", "no list")
    for number in range(5):
        due(scheduler.app, f"bad-{number}", every=2 * HOUR, options={"queue": "payments"})
    due(scheduler.app, "good")
    scheduler.tick()
    assert names_sent(broker) == ["good"]
    assert caplog.text.count("The broker refuses bad-") == 5
    assert "unavailable" not in caplog.text


def test_good_entries_among_refused_ones_run_once(
    scheduler: RedBeatScheduler, broker: redis.Redis
) -> None:
    """Each refusal closes the channel of kombu, which connects again when it sends the next one."""
    broker.set("payments", "no list")
    for number, kind in enumerate(["bad", "good", "bad", "good", "bad", "bad", "good"]):
        options = {"queue": "payments"} if kind == "bad" else {}
        due(scheduler.app, f"{number}-{kind}", every=HOUR - number, options=options)
    for _ in range(3):
        scheduler.tick()
    good = [f"{number}-good" for number in (1, 3, 6)]
    assert names_sent(broker) == good
    assert [stored(scheduler.app, name).total_run_count for name in good] == [1, 1, 1]


def test_a_run_that_is_refused_leaves_the_others_in_one_step(
    make_app_with: MakeApp, start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Even if it is the only one of its batch."""
    users = guard(start_redis(), "~redbeat* ~celery* ~_kombu* %R~secret &* +@all")
    scheduler = scheduler_of(make_app_with, users)
    due(scheduler.app, "good")
    scheduler.tick()
    due(scheduler.app, "bad", options={"queue": "secret"})
    scheduler.tick()
    assert guarantee_of(scheduler) is Guarantee.EXACTLY_ONCE
    assert "The broker refuses bad" in caplog.text
    assert stored(scheduler.app, "bad").total_run_count == 0
    scheduler.close()


@pytest.mark.parametrize("reason", ["bad lua script for redis cluster", "no such thing"])
def test_a_server_that_runs_other_scripts_only_gets_messages_in_two_steps(
    scheduler: RedBeatScheduler,
    broker: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
) -> None:
    """Each proxy and service has words of its own for that; what was handed over stays so."""
    text = "for _, key in ipairs(KEYS) do if key == 'redbeat:bad' then "
    text += f"return {{err = 'ERR {reason}'}} end end\n{HAND_OVER.text}"
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    script = HAND_OVER._replace(text=text, digest=digest)
    monkeypatch.setattr("redbeat.store.handover.HAND_OVER", script)
    names = ["bad", *(f"e{number}" for number in range(SCRIPT_ENTRIES + 50))]
    for number, name in enumerate(names):
        due(scheduler.app, name, every=HOUR - number)
    scheduler.tick()
    assert names_sent(broker) == sorted(names)
    assert guarantee_of(scheduler) is Guarantee.AT_LEAST_ONCE
    counts = {stored(scheduler.app, name).total_run_count for name in names}
    assert counts == {1}


def test_rights_that_are_granted_later_count(
    make_app_with: MakeApp, start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beat tries again now and then."""
    monkeypatch.setattr("redbeat.beat.outbox.TRIAL_INTERVAL", 0)
    users = guard(start_redis(), "~* &* +@all -zadd")
    scheduler = scheduler_of(make_app_with, users)
    due(scheduler.app, "a")
    scheduler.tick()
    assert guarantee_of(scheduler) is Guarantee.AT_LEAST_ONCE
    with redis.Redis.from_url(users.admin_url) as client:
        client.execute_command("ACL", "SETUSER", "guest", "+zadd")
    due(scheduler.app, "b")
    scheduler.tick()
    assert guarantee_of(scheduler) is Guarantee.EXACTLY_ONCE
    scheduler.close()


def test_what_an_override_sends_for_a_paused_entry_reaches_a_broker_elsewhere(
    make_app_with: MakeApp, redis_server: RedisServer, start_redis: StartRedis
) -> None:
    """Nothing is written about such a run, so nothing can look like its repetition."""
    other = start_redis()

    class Eager(RedBeatScheduler):
        def maybe_due(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
            self.send_task(entry.task, entry.args, producer=producer)
            return super().maybe_due(entry, producer=producer, **kwargs)

    scheduler = Eager(
        make_app_with(
            broker_url=other.url(), redbeat_redis_url=redis_server.url(), redbeat_lock_key=None
        )
    )
    due(scheduler.app, "paused", enabled=False)
    scheduler.tick()
    with other.client() as client:
        assert names_sent(client) == ["paused"]
    assert guarantee_of(scheduler) is Guarantee.AT_LEAST_ONCE
    scheduler.close()


def test_a_full_server_keeps_its_runs_and_sends_each_once_there_is_room(
    make_app_with: MakeApp, start_redis: StartRedis
) -> None:
    """Not a single one of them is half done."""
    server = start_redis()
    scheduler = scheduler_with(make_app_with, server)
    names = [f"e{number}" for number in range(50)]
    for name in names:
        due(scheduler.app, name)
    with server.client(BROKER_DB) as broker:
        broker.config_set("maxmemory", 1)
        scheduler.tick()
        assert names_sent(broker) == []
        broker.config_set("maxmemory", 0)
        make_due(scheduler.app)
        scheduler.tick()
        assert names_sent(broker) == sorted(names)
    scheduler.close()


def test_a_channel_that_the_user_may_not_publish_to_keeps_its_entry_due(
    make_app_with: MakeApp, start_redis: StartRedis
) -> None:
    """What was pushed for the same entry is taken back."""
    server = start_redis()
    users = guard(server, "~* &redbeat* +@all")

    class Both(RedBeatScheduler):
        def apply_async(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
            self.reserve(entry)
            for options in ({}, {"queue": "news", "exchange": "news"}):
                self.send_task(entry.task, entry.args, producer=producer, **options)

    scheduler = Both(
        make_app_with(
            broker_url=f"{users.guest_url}/{BROKER_DB}",
            redbeat_redis_url=users.admin_url,
            redbeat_lock_key=None,
            task_queues=[broadcast("news"), queue("celery")],
        )
    )
    declare_broadcast(scheduler)
    due(scheduler.app, "a")
    scheduler.tick()
    with redis.Redis.from_url(f"{users.admin_url}/{BROKER_DB}", decode_responses=True) as broker:
        assert broker.llen(QUEUE) == 0
    assert stored(scheduler.app, "a").total_run_count == 0
    scheduler.close()


def test_an_entry_that_the_brokers_user_may_not_write_takes_two_steps_alone(
    make_app_with: MakeApp, start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are handed over, and one warning says what to do."""
    server = start_redis()
    users = guard(server, "~redbeat::* ~redbeat:open* ~celery* ~_kombu* &* +@all")
    scheduler = scheduler_of(make_app_with, users)
    for name in ("open-a", "closed", "open-b"):
        due(scheduler.app, name)
    scheduler.tick()
    with redis.Redis.from_url(f"{users.admin_url}/{BROKER_DB}", decode_responses=True) as broker:
        assert names_sent(broker) == ["closed", "open-a", "open-b"]
    assert stored(scheduler.app, "closed").total_run_count == 1
    assert guarantee_of(scheduler) is Guarantee.EXACTLY_ONCE
    assert caplog.text.count("may not write all that a run changes") == 1
    scheduler.close()


@pytest.mark.parametrize(
    ("rules", "reason", "databases"),
    [
        ("~* &* +@all -evalsha -eval", "evalsha", (0, 0)),
        ("~* &* +@all -select", "SELECT", (1, 0)),
        ("~celery* ~_kombu* &* +@all", "may not write the schedule", (0, 1)),
        ("~* &* +@all -zadd", "may not write the schedule", (0, 1)),
        ("~* &* +@all -hset", "may not write the schedule", (0, 1)),
        ("~* &* +@all -zscore", "may not write the schedule", (0, 1)),
    ],
)
def test_a_broker_s_user_who_lacks_rights_gets_messages_in_two_steps(
    make_app_with: MakeApp,
    start_redis: StartRedis,
    caplog: pytest.LogCaptureFixture,
    rules: str,
    reason: str,
    databases: tuple[int, int],
) -> None:
    """Each run is sent once and counted once all the same; the log says what is missing."""
    caplog.set_level(logging.INFO, "celery.beat")
    users = guard(start_redis(), rules)
    of_schedule, of_broker = databases
    scheduler = RedBeatScheduler(
        make_app_with(
            broker_url=f"{users.guest_url}/{of_broker}",
            redbeat_redis_url=f"{users.admin_url}/{of_schedule}",
            redbeat_lock_key=None,
        )
    )
    for name in "abc":
        due(scheduler.app, name)
    scheduler.tick()
    with redis.Redis.from_url(f"{users.admin_url}/{of_broker}", decode_responses=True) as broker:
        assert names_sent(broker) == ["a", "b", "c"]
    assert [stored(scheduler.app, name).total_run_count for name in "abc"] == [1, 1, 1]
    assert guarantee_of(scheduler) is Guarantee.AT_LEAST_ONCE
    assert reason in caplog.text
    assert "beat: delivery: at least once" in caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    scheduler.close()


# Which way is taken


def test_another_server_is_found_out_once(
    make_app_with: MakeApp, redis_server: RedisServer, start_redis: StartRedis
) -> None:
    """Then messages are sent ahead of their commit, and nothing is tried in vain."""
    other = start_redis()
    proxy = Proxy(other.port)
    scheduler = scheduler_with(make_app_with, redis_server, broker_url=proxy.url())
    due(scheduler.app, "a")
    scheduler.tick()
    assert guarantee_of(scheduler) is Guarantee.AT_LEAST_ONCE
    for name in "bc":
        due(scheduler.app, name)
    with proxy.counting() as traffic:
        scheduler.tick()
    assert traffic.names == ["LPUSH", "LPUSH"]
    assert traffic.round_trips == 1
    with other.client() as broker:
        assert names_sent(broker) == ["a", "b", "c"]
    scheduler.close()
    proxy.refuse()


def test_a_replica_that_may_be_written_is_another_server(
    make_app_with: MakeApp, start_redis: StartRedis
) -> None:
    """It has the leases, but what is written there does not reach the schedule."""
    server = start_redis()
    replica = start_redis(replicaof=f"{LOOPBACK} {server.port}", replica_read_only="no")
    scheduler = scheduler_with(make_app_with, server, broker_url=replica.url(BROKER_DB))
    for name in "ab":
        due(scheduler.app, name)
    with replica.client() as copy, replica.client(BROKER_DB) as broker:
        wait_until(lambda: copy.zcard("redbeat::schedule") >= 2, 10, "the replica")
        for _ in range(2):
            scheduler.tick()
        # Replication may empty it once more; nothing of what was sent may come twice.
        assert set(Counter(names_sent(broker)).values()) <= {1}
    assert [stored(scheduler.app, name).total_run_count for name in "ab"] == [1, 1]
    assert guarantee_of(scheduler) is Guarantee.AT_LEAST_ONCE
    scheduler.close()


@pytest.mark.parametrize(
    ("prefix", "of_queues", "guarantee"),
    [
        ("{t}:", "{t}", Guarantee.EXACTLY_ONCE),
        ("{t}:", "{u}", Guarantee.AT_LEAST_ONCE),
        ("redbeat:", "{t}", Guarantee.AT_LEAST_ONCE),
    ],
)
def test_in_a_cluster_the_queues_need_the_hash_tag_of_the_schedule(
    make_app_with: MakeApp,
    start_redis: StartRedis,
    prefix: str,
    of_queues: str,
    guarantee: Guarantee,
) -> None:
    """Kombu knows one node of it, which here is all there is."""
    server = start_redis(cluster_enabled="yes")
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(
            lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")),
            10,
            "the slots",
        )
        scheduler = scheduler_with(
            make_app_with,
            server,
            broker_url=server.url(),
            redbeat_key_prefix=prefix,
            redbeat_redis_options={"cluster": True},
            broker_transport_options={"global_keyprefix": of_queues},
        )
        for name in "ab":
            due(scheduler.app, name)
        for _ in range(2):
            scheduler.tick()
        assert names_sent(client, f"{of_queues}celery") == ["a", "b"]
    assert guarantee_of(scheduler) is guarantee
    scheduler.close()


def test_two_names_of_one_server_are_one_server(
    make_app_with: MakeApp, start_redis: StartRedis, tmp_path: Path
) -> None:
    """A Unix socket on one side, TCP on the other."""
    path = tmp_path / "redis.sock"
    server = start_redis(unixsocket=str(path))
    scheduler = scheduler_with(
        make_app_with, server, broker_url=f"redis+socket://{path}?virtual_host={BROKER_DB}"
    )
    due(scheduler.app, "a")
    scheduler.tick()
    assert guarantee_of(scheduler) is Guarantee.EXACTLY_ONCE
    with server.client(BROKER_DB) as broker:
        assert names_sent(broker) == ["a"]
    scheduler.close()


def test_a_kombu_that_cannot_be_recorded_sends_one_by_one(
    scheduler: RedBeatScheduler,
    broker: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning says so, and the message of the trial is removed."""
    send_unrecorded(monkeypatch)
    for name in "ab":
        due(scheduler.app, name)
        scheduler.tick()
    assert names_sent(broker) == ["a", "b"]
    assert guarantee_of(scheduler) is Guarantee.AT_LEAST_ONCE
    assert caplog.text.count("in a way that beat cannot record") == 1
    assert not broker.exists("redbeat.trial")


def test_a_broker_of_another_kind_gets_messages_at_least_once(
    make_app_with: MakeApp, redis_url: str
) -> None:
    """Nothing is recorded."""
    app = make_app_with(broker_url="memory://", redbeat_redis_url=redis_url, redbeat_lock_key=None)
    scheduler = RedBeatScheduler(app)
    due(app, "a")
    scheduler.tick()
    assert guarantee_of(scheduler) is Guarantee.AT_LEAST_ONCE
    assert stored(app, "a").total_run_count == 1
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge(QUEUE)
    scheduler.close()


# What it costs


def test_a_batch_costs_the_server_three_round_trips(
    make_app_with: MakeApp, redis_server: RedisServer, broker: redis.Redis, proxy: Proxy
) -> None:
    """To claim, to load, and to hand over; in scripts that do not keep others waiting."""
    scheduler = scheduler_with(
        make_app_with,
        redis_server,
        broker_url=proxy.url(BROKER_DB),
        redbeat_redis_url=proxy.url(),
    )
    due(scheduler.app, "first")
    scheduler.tick()
    for number in range(499):
        due(scheduler.app, f"e{number}", kwargs={"ballast": "x" * 100})
    with proxy.counting() as traffic:
        scheduler.tick()
    assert broker.llen(QUEUE) == 500
    assert traffic.round_trips == 3
    scripts = [words for words in traffic.commands if words[0] == "EVALSHA" and len(words) > 20]
    assert 5 <= len(scripts) <= 8
    assert all(len(words) <= SCRIPT_ARGUMENTS for words in scripts)
    assert all(sum(map(len, words)) < 1.2 * SCRIPT_BYTES for words in scripts)
    scheduler.close()


def test_a_script_takes_no_more_than_it_may(
    make_app_with: MakeApp, redis_server: RedisServer, broker: redis.Redis, proxy: Proxy
) -> None:
    """Neither entries nor bytes nor arguments; a single entry may have more."""

    class Many(RedBeatScheduler):
        def apply_async(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
            self.reserve(entry)
            for _ in range(entry.kwargs.pop("times", 1)):
                self.send_task(entry.task, entry.args, entry.kwargs, producer=producer)

    scheduler = Many(
        make_app_with(
            broker_url=proxy.url(BROKER_DB),
            redbeat_redis_url=redis_server.url(),
            redbeat_lock_key=None,
        )
    )
    for number in range(120):
        due(scheduler.app, f"small-{number}")
    for number in range(3):
        due(scheduler.app, f"large-{number}", kwargs={"ballast": "x" * SCRIPT_BYTES})
        due(scheduler.app, f"many-{number}", kwargs={"times": 300})
    with proxy.counting() as traffic:
        scheduler.tick()
    assert broker.llen(QUEUE) == 120 + 3 + 900
    scripts = [words for words in traffic.commands if words[0] in ("EVAL", "EVALSHA")]
    for words in scripts:
        entries = sum(word.startswith("redbeat:") and "::" not in word for word in words)
        assert entries <= SCRIPT_ENTRIES
        size = sum(map(len, words[2:]))
        assert entries == 1 or (size < 1.2 * SCRIPT_BYTES and len(words) <= SCRIPT_ARGUMENTS + 110)
    scheduler.close()
    assert len(read_messages(broker)) == 1023
