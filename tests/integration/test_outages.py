"""Redis or the broker goes away in the middle of work: nothing is lost, and nothing runs twice."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock
from urllib.error import URLError

import celery
import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule
from celery.signals import beat_init
from kombu.entity import Exchange, Queue

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, signals
from redbeat.beat.claims import unique_lease
from redbeat.beat.pauses import MAX_PAUSE
from redbeat.schedulers import acquire_distributed_beat_lock, get_storage
from redbeat.store.records import Outcome
from support.apps import MakeApp
from support.entries import due
from support.messages import QUEUE, names_sent
from support.servers import RedisServer, StartRedis
from support.tripwire import Tripwire
from support.unrecorded import send_unrecorded

SCHEDULE = "redbeat::schedule"
EARLIER = datetime(2020, 1, 1, tzinfo=timezone.utc)


def sent(broker: RedisServer) -> list[str]:
    with broker.client() as client:
        return names_sent(client)


def sending_until_it_dies(server: RedisServer) -> Any:
    """An `apply_async` after which the server is gone, before the run is committed."""
    original = RedBeatScheduler.apply_async

    def apply_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        server.kill()
        return result

    return apply_async


@pytest.fixture
def broker(start_redis: StartRedis) -> RedisServer:
    """A broker that keeps what it acknowledged."""
    return start_redis(appendonly="yes", appendfsync="always")


@pytest.fixture
def store(start_redis: StartRedis) -> RedisServer:
    """A server for the schedule that keeps what it acknowledged."""
    return start_redis(appendonly="yes", appendfsync="always")


def learn_where_the_broker_is(scheduler: RedBeatScheduler) -> None:
    """Let it find out, with the first run, that the broker is on another server."""
    due(scheduler.app, "first")
    scheduler.tick()


@pytest.fixture
def dispatched() -> Iterator[list[float]]:
    """The delays in seconds that `entry_dispatched` reported, in order."""
    delays: list[float] = []

    def receive(delay: float, **facts: Any) -> None:
        delays.append(delay)

    signals.entry_dispatched.connect(receive)
    yield delays
    signals.entry_dispatched.disconnect(receive)


@pytest.fixture
def scheduler(make_app_with: MakeApp, broker: RedisServer, store: RedisServer) -> RedBeatScheduler:
    """A scheduler without a lock, whose schedule and broker are on servers of their own."""
    app = make_app_with(
        broker_url=broker.url(), redbeat_redis_url=store.url(), redbeat_lock_key=None
    )
    app.conf.broker_connection_timeout = 1
    return RedBeatScheduler(app)


def test_no_run_is_used_up_while_the_broker_is_unavailable_and_the_pauses_grow(
    scheduler: RedBeatScheduler, broker: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One line per pause; when it is back, what was due is sent once."""
    for name in "ab":
        due(scheduler.app, name)
    broker.kill()
    assert [scheduler.tick() for _ in range(3)] == [1, 2, 4]
    lines = [r for r in caplog.records if r.levelno >= logging.WARNING and "trying" in r.message]
    assert len(lines) == 3
    assert all("broker" in line.message for line in lines)
    broker.start()
    scheduler.tick()
    assert sent(broker) == ["a", "b"]
    broker.kill()
    due(scheduler.app, "c")
    assert scheduler.tick() == 1


def test_a_broker_that_goes_away_after_a_batch_is_noticed_by_the_next(
    scheduler: RedBeatScheduler, broker: RedisServer
) -> None:
    """Although the producer is open."""
    due(scheduler.app, "a")
    scheduler.tick()
    broker.kill()
    entry = due(scheduler.app, "b")
    scheduler.tick()
    assert RedBeatSchedulerEntry.from_key(entry.key, app=scheduler.app).total_run_count == 0
    broker.start()
    scheduler.tick()
    assert sent(broker) == ["a", "b"]


def allow_all_but_the_queue(broker: RedisServer) -> None:
    with broker.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~celery*", "~_kombu*")


def put_another_type_there(broker: RedisServer) -> None:
    with broker.client() as client:
        client.delete("payments")
        client.hset("payments", "is", "a hash")


REFUSALS = (allow_all_but_the_queue, put_another_type_there)


@pytest.mark.parametrize("is_batching", [True, False])
@pytest.mark.parametrize("refuse", REFUSALS)
def test_a_queue_that_the_broker_refuses_delays_no_other_entry(
    scheduler: RedBeatScheduler,
    broker: RedisServer,
    refuse: Callable[[RedisServer], None],
    is_batching: bool,
) -> None:
    """The run is not lost: it is made once the queue is repaired."""
    if not is_batching:
        scheduler.app.conf.broker_transport_options = {"retry_on_timeout": True}
    bad = due(scheduler.app, "a", options={"queue": "payments"})
    due(scheduler.app, "b")
    refuse(broker)
    assert scheduler.tick() <= MAX_PAUSE
    assert sent(broker) == ["b"]
    storage = get_storage(scheduler.app)
    first = storage.read_first()
    assert first is not None
    assert first.key == bad.key
    assert 0 < first.score - time.time() <= MAX_PAUSE
    with broker.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "allkeys")
        client.delete("payments")
        storage.commit(first.score, [Outcome(bad.key, time.time())])
        scheduler.tick()
        assert client.llen("payments") == 1


@pytest.mark.parametrize("refuse", REFUSALS)
def test_a_queue_that_is_refused_later_doubles_other_runs_once_at_most(
    scheduler: RedBeatScheduler, broker: RedisServer, refuse: Callable[[RedisServer], None]
) -> None:
    """Beat notices while it writes the batch, of which the broker has taken a part."""
    due(scheduler.app, "a", options={"queue": "payments"})
    scheduler.tick()
    due(scheduler.app, "a", options={"queue": "payments"}).reschedule(EARLIER)
    due(scheduler.app, "b")
    refuse(broker)
    for _ in range(4):
        scheduler.tick()
    assert len(sent(broker)) <= 2
    due(scheduler.app, "c")
    scheduler.tick()
    assert sent(broker).count("c") == 1


@pytest.mark.parametrize(
    "options",
    [{"compression": "gzp"}, {"delivery_mode": "durable"}, {"stamped_headers": ["nowhere"]}],
    ids=str,
)
def test_a_typo_in_the_options_of_an_entry_is_not_taken_for_an_outage(
    scheduler: RedBeatScheduler, broker: RedisServer, options: dict[str, Any]
) -> None:
    """Kombu raises a `KeyError` then, which it counts among the errors of connections."""
    bad = due(scheduler.app, "a", options=options)
    due(scheduler.app, "b")
    scheduler.tick()
    assert sent(broker) == ["b"]
    assert RedBeatSchedulerEntry.from_key(bad.key, app=scheduler.app).total_run_count == 1


@pytest.mark.parametrize(
    ("error", "is_counted"),
    [
        (KeyError("tenant"), True),
        (FileNotFoundError(2, "No such file", "/nowhere/audit.log"), True),
        (ConnectionRefusedError(111, "Connection refused"), False),
        (URLError("the audit service is away"), False),
    ],
    ids=repr,
)
def test_an_error_in_the_code_of_a_task_delays_no_other_entry(
    scheduler: RedBeatScheduler,
    broker: RedisServer,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    is_counted: bool,
) -> None:
    """Temporary errors are retried and not counted, with one line per tick."""

    class Audited(celery.Task):  # type: ignore[misc]  # Celery has no types
        name = "tasks.audited"

        def run(self) -> None: ...

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            raise error

    scheduler.app.register_task(Audited())
    ran = datetime.now(timezone.utc) - timedelta(hours=2)
    bad = RedBeatSchedulerEntry(
        "a", "tasks.audited", schedule(3600), app=scheduler.app, last_run_at=ran
    ).save()
    other = RedBeatSchedulerEntry(
        "c", "tasks.audited", schedule(3600), app=scheduler.app, last_run_at=ran
    ).save()
    due(scheduler.app, "b")
    scheduler.tick()
    assert sent(broker) == ["b"]
    for key in (bad.key, other.key):
        stored = RedBeatSchedulerEntry.from_key(key, app=scheduler.app)
        assert stored.total_run_count == int(is_counted)
    lines = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(lines) == (2 if is_counted else 1)


@pytest.mark.parametrize("is_batching", [True, False])
def test_a_beat_that_is_terminated_while_it_sends_counts_only_runs_that_were_sent(
    scheduler: RedBeatScheduler, broker: RedisServer, is_batching: bool
) -> None:
    """The signal handler raises in the middle of a slow publish."""
    if not is_batching:
        scheduler.app.conf.broker_transport_options = {"retry_on_timeout": True}
    entry = due(scheduler.app, "a")
    with (
        mock.patch.object(RedBeatScheduler, "send_task", side_effect=SystemExit),
        pytest.raises(SystemExit),
    ):
        scheduler.tick()
    scheduler.close()
    assert RedBeatSchedulerEntry.from_key(entry.key, app=scheduler.app).total_run_count == 0
    first = get_storage(scheduler.app).read_first()
    assert first is not None
    assert first.score <= time.time() + 1
    assert not sent(broker)


@pytest.mark.parametrize("nth", range(1, 13))
def test_no_run_is_lost_when_the_connection_to_the_broker_is_cut_at_any_request(
    make_app_with: MakeApp, broker: RedisServer, store: RedisServer, nth: int
) -> None:
    """What the loss leaves behind is not taken for a message that cannot be sent.

    Where kombu connects anew in the middle of a message, it may go on with the old channel.
    """
    tripwire = Tripwire(broker)
    app = make_app_with(
        broker_url=tripwire.url(), redbeat_redis_url=store.url(), redbeat_lock_key=None
    )
    scheduler = RedBeatScheduler(app)
    names = ["a", "b", "c"]
    for name in names:
        due(app, name, options={"queue": name})
    tripwire.arm(nth, tripwire.drop)
    for _ in range(3):
        scheduler.tick()
    tripwire.refuse()
    with broker.client() as client:
        assert [name for name in names if not client.llen(name)] == []


def test_pauses_end_at_half_a_minute(scheduler: RedBeatScheduler, broker: RedisServer) -> None:
    """However long the broker is away."""
    due(scheduler.app, "a")
    broker.kill()
    assert [scheduler.tick() for _ in range(7)][-2:] == [30, 30]


def test_an_outage_of_redis_does_not_lengthen_the_pauses_for_the_broker(
    scheduler: RedBeatScheduler, broker: RedisServer, store: RedisServer
) -> None:
    """Each of them starts with a short one."""
    due(scheduler.app, "a")
    store.stop()
    assert [scheduler.tick() for _ in range(3)] == [1, 2, 4]
    store.start()
    due(scheduler.app, "a")
    broker.kill()
    assert scheduler.tick() == 1


def test_a_run_is_not_repeated_when_redis_goes_away_before_its_commit(
    scheduler: RedBeatScheduler, broker: RedisServer, store: RedisServer, monkeypatch: Any
) -> None:
    """The commit is kept and written when Redis is back."""
    due(scheduler.app, "a")
    with monkeypatch.context() as patch:
        patch.setattr(RedBeatScheduler, "apply_async", sending_until_it_dies(store))
        assert scheduler.tick() == 1
    assert scheduler.tick() == 2
    store.start()
    scheduler.tick()
    assert sent(broker) == ["a"]
    entry = RedBeatSchedulerEntry.from_key("redbeat:a", app=scheduler.app)
    assert entry.total_run_count == 1
    assert entry.due_at is not None
    assert entry.due_at > datetime.now(timezone.utc) + timedelta(minutes=50)


def test_a_server_that_forgot_its_scripts_gets_them_again(
    scheduler: RedBeatScheduler, broker: RedisServer, store: RedisServer
) -> None:
    """After a restart or a SCRIPT FLUSH."""
    for name in "ab":
        due(scheduler.app, name)
        with store.client() as client:
            client.script_flush()
        scheduler.tick()
    assert sent(broker) == ["a", "b"]
    entry = RedBeatSchedulerEntry.from_key("redbeat:b", app=scheduler.app)
    assert entry.total_run_count == 1


def test_claims_of_a_dead_beat_run_as_soon_as_another_leads(
    make_app_with: MakeApp, broker: RedisServer, store: RedisServer
) -> None:
    """Without waiting for the lease to expire; entries that are due later keep their time."""
    app = make_app_with(broker_url=broker.url(), redbeat_redis_url=store.url())
    for name in "ab":
        due(app, name)
    now = time.time()
    lease = unique_lease(now, 20)
    get_storage(app).claim_due(now, lease, limit=10, horizon=now + 300)
    RedBeatSchedulerEntry("soon", "tasks.add", schedule(10), args=["soon"], app=app).save()
    with store.client() as client:
        soon = client.zscore(SCHEDULE, "redbeat:soon")
        leader = RedBeatScheduler(app)
        acquire_distributed_beat_lock(mock.Mock(scheduler=leader))
        leader.tick()
        assert sent(broker) == ["a", "b"]
        assert client.zscore(SCHEDULE, "redbeat:soon") == soon


def test_a_new_leader_does_not_take_a_score_that_a_user_wrote_for_a_claim(
    make_app_with: MakeApp, broker: RedisServer, store: RedisServer
) -> None:
    """It is overdue by its meta, but not by its score, in whole seconds unlike a lease."""
    app = make_app_with(broker_url=broker.url(), redbeat_redis_url=store.url())
    due(app, "a")
    with store.client() as client:
        later = int(time.time()) + 20
        client.zadd(SCHEDULE, {"redbeat:a": later})
        leader = RedBeatScheduler(app)
        acquire_distributed_beat_lock(mock.Mock(scheduler=leader))
        leader.tick()
        assert sent(broker) == []
        assert client.zscore(SCHEDULE, "redbeat:a") == later


def test_beats_that_share_the_work_leave_claims_alone(
    scheduler: RedBeatScheduler, broker: RedisServer
) -> None:
    """Without a lock, the claims of a dead beat look like those of a live one."""
    due(scheduler.app, "a")
    now = time.time()
    get_storage(scheduler.app).claim_due(now, now + 20, limit=10, horizon=now + 300)
    scheduler.tick()
    assert sent(broker) == []


def test_a_repeated_claim_returns_the_same_entries(scheduler: RedBeatScheduler) -> None:
    """redis-py repeats a command after a broken connection, with the same lease."""
    due(scheduler.app, "a")
    storage, now = get_storage(scheduler.app), time.time()
    first = storage.claim_due(now, now + 30.5, limit=10, horizon=now + 300)
    again = storage.claim_due(now, now + 30.5, limit=10, horizon=now + 300)
    assert [member.key for member in first.due] == [member.key for member in again.due]
    assert storage.claim_due(now, now + 30.7, limit=10, horizon=now + 300).due == []


def test_two_schedulers_without_a_lock_share_the_work(
    make_app_with: MakeApp, broker: RedisServer, store: RedisServer, monkeypatch: Any
) -> None:
    """While one dispatches its batch, the other takes the rest; nothing runs twice."""
    settings = {
        "broker_url": broker.url(),
        "redbeat_redis_url": store.url(),
        "redbeat_lock_key": None,
        "redbeat_batch_size": 5,
    }
    one, other = (RedBeatScheduler(make_app_with(**settings)) for _ in range(2))
    for number in range(20):
        due(one.app, f"{number:02}")
    original = RedBeatScheduler.apply_async

    def meanwhile(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is one:
            other.tick()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(RedBeatScheduler, "apply_async", meanwhile)
    one.tick()
    assert sent(broker) == [f"{number:02}" for number in range(20)]


def test_a_leader_whose_redis_lost_all_data_restores_the_static_entries(
    make_app_with: MakeApp, store: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs at error that the others are gone."""
    static = {"static": {"task": "tasks.add", "schedule": 30}}
    app = make_app_with(redbeat_redis_url=store.url(), beat_schedule=static)
    leader = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=leader))
    leader.tick()
    with store.client() as client:
        client.flushall()
        leader.tick()
        assert client.exists("redbeat:static", "redbeat::lock") == 2
    assert "has lost the schedule" in caplog.text


def test_constructing_a_scheduler_while_another_beat_leads_writes_nothing(
    make_app_with: MakeApp, redis_client: redis.Redis, redis_url: str, caplog: Any
) -> None:
    """It logs that."""
    caplog.set_level(logging.INFO, "celery.beat")
    redis_client.set("redbeat::lock", "another")
    static = {"static": {"task": "tasks.add", "schedule": 30}}
    RedBeatScheduler(make_app_with(redbeat_redis_url=redis_url, beat_schedule=static))
    assert redis_client.keys("*") == ["redbeat::lock"]
    assert "beat_schedule is not stored: another leads" in caplog.text


def test_beat_survives_an_outage_of_days(scheduler: RedBeatScheduler, store: RedisServer) -> None:
    """The pauses stay bounded."""
    store.kill()
    pauses = [scheduler.tick() for _ in range(1100)]
    assert pauses[:4] == [1, 2, 4, 5]
    assert set(pauses[3:]) == {5}


def test_closing_writes_a_pending_commit(
    scheduler: RedBeatScheduler, broker: RedisServer, store: RedisServer, monkeypatch: Any
) -> None:
    """Beat ends in the pause after a short outage, and the run is not repeated."""
    learn_where_the_broker_is(scheduler)
    due(scheduler.app, "a")
    monkeypatch.setattr(RedBeatScheduler, "apply_async", sending_until_it_dies(store))
    scheduler.tick()
    store.start()
    scheduler.close()
    entry = RedBeatSchedulerEntry.from_key("redbeat:a", app=scheduler.app)
    assert entry.total_run_count == 1


def test_closing_does_not_wait_for_an_unavailable_redis(
    make_app_with: MakeApp, store: RedisServer
) -> None:
    """Not even with `retry_period = -1`, with which any other call waits forever."""
    app = make_app_with(redbeat_redis_url=store.url(), redbeat_redis_options={"retry_period": -1})
    leader = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=leader))
    store.kill()
    leader.close()
    assert leader.lock is None


def test_a_run_whose_commit_was_delayed_is_signalled_once_with_its_own_delay(
    scheduler: RedBeatScheduler,
    store: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    dispatched: list[float],
) -> None:
    """Neither the signal nor the count is lost, and the outage does not add to the delay."""
    learn_where_the_broker_is(scheduler)
    dispatched.clear()
    entry = due(scheduler.app, "a")
    assert entry.last_run_at is not None
    due_at = entry.last_run_at + timedelta(hours=1)
    with monkeypatch.context() as patch:
        patch.setattr(RedBeatScheduler, "apply_async", sending_until_it_dies(store))
        scheduler.tick()
    delay_by_now = (datetime.now(timezone.utc) - due_at).total_seconds()
    assert dispatched == []
    store.start()
    scheduler.tick()
    assert len(dispatched) == 1
    assert 60 <= dispatched[0] <= delay_by_now
    assert scheduler.redbeat_parts.ledger.reporter.runs == 2


def test_the_runs_before_the_broker_broke_off_are_signalled(
    scheduler: RedBeatScheduler,
    broker: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    dispatched: list[float],
) -> None:
    """Where messages are sent one by one, those that were sent have run."""
    for name in "abc":
        due(scheduler.app, name)
    send_unrecorded(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(RedBeatScheduler, "apply_async", sending_until_it_dies(broker))
        scheduler.tick()
    broker.start()
    assert len(dispatched) == scheduler.redbeat_parts.ledger.reporter.runs == len(sent(broker)) == 1


@pytest.mark.parametrize("batch_size", [10, 500])
def test_a_broker_that_is_full_at_times_gets_each_message_and_none_more_than_twice(
    scheduler: RedBeatScheduler,
    broker: RedisServer,
    caplog: pytest.LogCaptureFixture,
    batch_size: int,
) -> None:
    """It has room for some of the messages, and workers empty it before each try."""
    scheduler.app.redbeat_conf.batch_size = batch_size
    names = [f"e{number}" for number in range(100)]
    for name in names:
        due(scheduler.app, name, kwargs={"ballast": "x" * 20_000})
    taken: Counter[str] = Counter()
    with broker.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
        while get_storage(scheduler.app).count_between((0, time.time() + MAX_PAUSE))[0]:
            scheduler.tick()
            taken.update(sent(broker))
            client.delete(QUEUE)
            make_due(scheduler.app)
    assert sorted(taken) == sorted(names)
    assert max(taken.values()) <= 2
    assert sum(taken.values()) < 2 * len(names)
    assert "The broker accepts no messages" in caplog.text


def make_due(app: Celery) -> None:
    """Make due now what was postponed."""
    storage = get_storage(app)
    for member in storage.read_between(time.time(), time.time() + 2 * MAX_PAUSE):
        storage.commit(member.score, [Outcome(member.key, 0.0)])


def test_a_message_that_the_broker_has_no_room_for_delays_no_other(
    scheduler: RedBeatScheduler, broker: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It alone is postponed, each time; the others are sent once."""
    caplog.set_level("DEBUG", logger="celery.beat")
    due(scheduler.app, "a")
    scheduler.tick()
    due(scheduler.app, "large", kwargs={"ballast": "x" * 900_000})
    with broker.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
        for name in "bcde":
            due(scheduler.app, name)
            scheduler.tick()
            make_due(scheduler.app)
    assert sorted({*sent(broker)}) == ["a", "b", "c", "d", "e"]
    assert len(sent(broker)) <= 6
    assert caplog.text.count("The broker has no room for large") >= 3
    assert caplog.text.count("Nothing is lost; trying again") <= 1


def test_messages_go_in_batches_again_once_the_broker_is_available(
    scheduler: RedBeatScheduler, broker: RedisServer
) -> None:
    """Sending one by one, as right after an outage, costs a round trip per message."""
    due(scheduler.app, "a")
    with broker.client() as client:
        client.config_set("maxmemory", 1)
        scheduler.tick()
        client.config_set("maxmemory", 0)
        make_due(scheduler.app)
        scheduler.tick()
        assert sent(broker) == ["a"]
        for number in range(20):
            due(scheduler.app, f"e{number}")
        reads_before = client.info("stats")["total_reads_processed"]
        scheduler.tick()
        assert client.info("stats")["total_reads_processed"] - reads_before < 20
    assert len(sent(broker)) == 21


def test_queues_are_declared_again_when_the_broker_comes_back_empty(
    make_app_with: MakeApp, start_redis: StartRedis, store: RedisServer
) -> None:
    """A topic exchange without queues would drop every message."""
    forgetful = start_redis()
    topic = Exchange("topics", type="topic")  # type: ignore[no-untyped-call]  # kombu's own gap
    queue = Queue("reports", topic, routing_key="report.#")  # type: ignore[no-untyped-call]  # too
    app = make_app_with(
        broker_url=forgetful.url(),
        redbeat_redis_url=store.url(),
        redbeat_lock_key=None,
        task_queues=[queue],
        task_default_queue="reports",
    )
    app.conf.broker_connection_timeout = 1
    scheduler = RedBeatScheduler(app)
    due(app, "a")
    scheduler.tick()
    forgetful.kill()
    due(app, "b")
    scheduler.tick()
    forgetful.start()
    scheduler.tick()
    with forgetful.client() as client:
        assert client.llen("reports") == 1
    scheduler.close()


@pytest.mark.parametrize("send", ["call", "signal"])
def test_the_hook_raises_what_redis_py_raised(make_app_with: MakeApp, send: str) -> None:
    """If the signal is sent, the exception is in its result."""
    app = make_app_with(redbeat_redis_url="redis://127.0.0.1:1/0")
    sender = mock.Mock(scheduler=RedBeatScheduler(app))
    if send == "call":
        with pytest.raises(redis.exceptions.ConnectionError):
            acquire_distributed_beat_lock(sender)
    else:
        answers = dict(beat_init.send(sender=sender))
        assert isinstance(answers[acquire_distributed_beat_lock], redis.exceptions.ConnectionError)


@pytest.mark.parametrize("is_led", [True, False], ids=["led", "shared"])
@pytest.mark.parametrize(("score", "runs"), [("slot", True), ("zero", False)])
def test_an_unread_claim_still_shows_whether_a_slot_is_awaited(
    make_app_with: MakeApp, store: RedisServer, is_led: bool, score: str, runs: bool
) -> None:
    """If beat is killed right after it, the first slot of an entry without a history still runs."""
    now = datetime.now(timezone.utc)
    slot = now.replace(second=0, microsecond=0)
    app = make_app_with(
        redbeat_redis_url=store.url(),
        redbeat_claim_timeout=0.1,
        redbeat_lock_key="redbeat::lock" if is_led else None,
    )
    daily = crontab(minute=slot.minute, hour=slot.hour)
    entry = RedBeatSchedulerEntry("a", "tasks.a", daily, app=app).save()
    storage, began = get_storage(app), now.timestamp() - 5
    with store.client() as client:
        client.hdel(entry.key, "meta")
        client.zadd("redbeat::schedule", {entry.key: slot.timestamp() if score == "slot" else 0})
        storage.claim_due(time.time(), unique_lease(began, 0.1), 10, now.timestamp() + 300)
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    assert RedBeatSchedulerEntry.from_key(entry.key, app=app).total_run_count == int(runs)
    scheduler.close()
