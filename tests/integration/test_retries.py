"""Connections that break in the middle of a change: what is done again, and for how long."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.heartbeat import RETRY_INTERVAL
from redbeat.beat.holder import read_holder
from redbeat.beat.lock import LeaderLock
from redbeat.schedulers import acquire_distributed_beat_lock, get_redis, get_storage
from redbeat.store.records import Draft, Outcome
from redbeat.store.retrying import RetryingConnection
from redbeat.store.storage import Storage
from support.apps import MakeApp
from support.servers import RedisServer, StartRedis
from support.waiting import wait_until
from support.wire import MakeProxy, Proxy

NOW = 1_700_000_000.0
LEASE = NOW + 30.25
CONNECTING = ("cmdstat_info", "cmdstat_hello", "cmdstat_client", "cmdstat_config", "cmdstat_ping")


class Hook:
    """Stands in for the beat service that is the sender of `beat_init`."""

    def __init__(self, scheduler: RedBeatScheduler) -> None:
        self.scheduler = scheduler


def entry(app: Celery, name: str = "a") -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(
        name, "tasks.a", schedule(60), app=app, last_run_at=datetime.now(timezone.utc)
    )


def commands_done(client: redis.Redis) -> int:
    """How many commands the server has executed, without those that begin a connection."""
    stats: dict[str, dict[str, int]] = client.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if not name.startswith(CONNECTING))


@contextlib.contextmanager
def losing_one_answer(proxy: Proxy, client: redis.Redis) -> Iterator[None]:
    """In this block the server does what it is asked to, and its first answer is lost."""
    before = commands_done(client)
    proxy.delay = 60

    def lose() -> None:
        wait_until(lambda: commands_done(client) > before, 5, "a command")
        # Before new connections are answered at once, the answer must be out of reach for this one.
        proxy.mute()
        proxy.delay = 0
        proxy.drop()

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextlib.contextmanager
def back_when_missed(caplog: pytest.LogCaptureFixture, mend: Callable[[], Any]) -> Iterator[None]:
    """What is broken in this block is repaired after the first failed try."""
    caplog.set_level(logging.WARNING, "celery.beat")
    thread = threading.Thread(
        target=lambda: (wait_until(lambda: "trying again" in caplog.text), mend())
    )
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no retry wait for long."""
    monkeypatch.setattr(RetryingConnection, "RETRY_MAX_WAIT", 0.05)


@pytest.fixture
def app(make_app_with: MakeApp, proxy: Proxy) -> Celery:
    """An application whose Redis is behind a proxy."""
    return make_app_with(redbeat_redis_url=proxy.url())


@pytest.fixture
def storage(app: Celery, redis_client: redis.Redis) -> Storage:
    """A schedule with one due entry, on a server that knows the scripts."""
    storage = get_storage(app)
    entry(app).save()
    redis_client.zadd(storage.keys.schedule_key, {"redbeat:a": NOW})
    storage.commit(1.0, [Outcome("redbeat:none", NOW, meta="{}")])
    storage.change_entries([], ["redbeat:none"])
    storage.write_run("redbeat:b", "{}", -1)
    storage.change_entries([], ["redbeat:b"])
    storage.claim_due(NOW - 10, LEASE, 5, NOW)
    storage.notes.write_owner(["redbeat:none"], "proj")
    storage.lock.take_over("none", "a", "b", 1000, 1)
    storage.lock.extend("none", "a", 1000, "b")
    return storage


def test_a_claim_whose_answer_is_lost_still_finds_its_entries(
    storage: Storage, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """They have its lease already; else they would wait until it ends."""
    with losing_one_answer(proxy, redis_client):
        claimed = storage.claim_due(NOW, LEASE, 5, NOW + 300)
    assert [member.key for member in claimed.due] == ["redbeat:a"]


def test_a_commit_whose_answer_is_lost_counts_the_run_once(
    storage: Storage, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """The second one finds no lease, and changes nothing."""
    storage.claim_due(NOW, LEASE, 5, NOW + 300)
    meta = '{"last_run_at": null, "total_run_count": 1}'
    seen_meta = str(redis_client.hget("redbeat:a", "meta"))
    with losing_one_answer(proxy, redis_client):
        storage.commit(LEASE, [Outcome("redbeat:a", NOW + 60, meta, seen_meta)])
    assert redis_client.zscore(storage.keys.schedule_key, "redbeat:a") == NOW + 60
    assert redis_client.hget("redbeat:a", "meta") == meta


def test_an_entry_is_saved_and_deleted_even_if_the_answer_is_lost(
    app: Celery, storage: Storage, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """So is a new one, whose meta the second try finds."""
    new = entry(app, "new")
    draft = Draft(new.key, new.encode_definition(), "", "{}", 5.0)
    with losing_one_answer(proxy, redis_client):
        assert storage.change_entries([draft]).conflicts[0] in ("{}", "")
    assert storage.change_entries([draft._replace(seen_meta="{}")]).conflicts == [""]
    assert new.rank is not None
    with losing_one_answer(proxy, redis_client):
        new.delete()
    assert new.rank is None


def test_a_lock_is_recognised_by_whoever_took_it(
    storage: Storage, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """Taken, taken over and renewed: the answer is lost, the lock is not."""
    with losing_one_answer(proxy, redis_client):
        assert storage.lock.acquire("redbeat::lock", "one", 60_000)
    with losing_one_answer(proxy, redis_client):
        assert storage.lock.take_over("redbeat::lock", "one", "two", 60_000, 61_000)
    with losing_one_answer(proxy, redis_client):
        assert storage.lock.extend("redbeat::lock", "two", 60_000, "three")
    assert redis_client.get("redbeat::lock") == "three"
    assert not storage.lock.acquire("redbeat::lock", "four", 60_000)
    assert not storage.lock.take_over("redbeat::lock", "two", "four", 60_000, 61_000)
    assert not storage.lock.extend("redbeat::lock", "two", 60_000, "four")


def test_the_lock_of_a_leader_survives_a_lost_answer(
    storage: Storage, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """The holder that Redis names is the one that believes it holds the lock."""
    lock = LeaderLock(storage, "redbeat::lock", 60, 15)
    with losing_one_answer(proxy, redis_client):
        assert lock.acquire()
    holder = read_holder(storage, "redbeat::lock")
    assert holder is not None
    assert lock.local.token == holder.token.encode()
    assert lock.owned()


UNITS: dict[str, Callable[[Storage], Any]] = {
    "reading": lambda storage: storage.read_entries(["redbeat:a"]),
    "looking ahead": lambda storage: storage.read_due(NOW, NOW + 300),
    "claiming": lambda storage: storage.claim_due(NOW, LEASE, 5, NOW + 300),
    "committing": lambda storage: storage.commit(LEASE, [Outcome("redbeat:a", NOW, "{}")]),
    "saving": lambda storage: storage.change_entries([Draft("redbeat:b", "{}", "", "{}", 5.0)]),
    "rescheduling": lambda storage: storage.write_run("redbeat:a", "{}", 5.0),
    "deleting": lambda storage: storage.change_entries([], ["redbeat:a"]),
    "changing statics": lambda storage: storage.notes.write_statics(["a", "b"], ["c"]),
    "naming owners": lambda storage: storage.notes.write_owner(["redbeat:a"], "proj"),
    "reading the lock": lambda storage: storage.lock.read("redbeat::lock"),
    "taking the lock": lambda storage: storage.lock.acquire("redbeat::lock", "t", 1000),
}


@pytest.mark.parametrize("name", UNITS)
def test_with_a_retry_period_each_unit_outlives_an_outage(
    make_app_with: MakeApp, proxy: Proxy, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Pipelines, scripts and the lock, as well as single calls."""
    app = make_app_with(redbeat_redis_url=proxy.url(), redbeat_redis_options={"retry_period": 30})
    storage = get_storage(app)
    UNITS[name](storage)
    proxy.refuse()
    with back_when_missed(caplog, proxy.accept):
        UNITS[name](storage)
    assert "Redis cannot be reached" in caplog.text


def test_a_call_of_a_program_outlives_an_outage(
    make_app_with: MakeApp, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The surface of the retrying client."""
    app = make_app_with(redbeat_redis_url=proxy.url(), redbeat_redis_options={"retry_period": 30})
    client = get_redis(app)
    assert isinstance(client, RetryingConnection)
    proxy.refuse()
    with back_when_missed(caplog, proxy.accept):
        assert client.set("key", "value")


def test_without_a_retry_period_an_outage_is_raised_at_once(
    app: Celery, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no further try: the program decides what to do then."""
    get_storage(app).count_members()
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        get_storage(app).count_members()
    assert caplog.records == []


def test_a_tick_gives_up_when_the_trust_in_the_lock_ends(
    make_app_with: MakeApp, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """Even if the client would go on for ever: another beat may lead once the lock has run out."""
    app = make_app_with(
        redbeat_redis_url=proxy.url(),
        redbeat_redis_options={"retry_period": -1},
        redbeat_lock_timeout=3,
    )
    leader = RedBeatScheduler(app)
    acquire_distributed_beat_lock(Hook(leader))
    leader.tick()
    proxy.refuse()
    assert leader.tick() == 1
    assert redis_client.exists("redbeat::lock")
    proxy.accept()
    leader.tick()
    assert leader.lock.owned()


def test_a_standby_and_a_heartbeat_do_not_wait_for_redis(
    make_app_with: MakeApp, proxy: Proxy
) -> None:
    """They come round again, while the client would wait for ever."""
    app = make_app_with(redbeat_redis_url=proxy.url(), redbeat_redis_options={"retry_period": -1})
    leader, standby = RedBeatScheduler(app), RedBeatScheduler(app)
    for scheduler in (leader, standby):
        acquire_distributed_beat_lock(Hook(scheduler))
    assert standby.lock is None
    leader.redbeat_parts.leadership.clock = lambda: time.monotonic() + 3600
    proxy.refuse()
    assert leader.redbeat_parts.leadership.heartbeat.beat() == RETRY_INTERVAL
    assert standby.tick() == 1


def test_a_beat_without_a_lock_gives_up_as_well(make_app_with: MakeApp, proxy: Proxy) -> None:
    """Its claims end, too, while the client would wait for ever."""
    app = make_app_with(
        redbeat_redis_url=proxy.url(),
        redbeat_redis_options={"retry_period": -1},
        redbeat_lock_key=None,
        redbeat_lock_timeout=3,
    )
    scheduler = RedBeatScheduler(app)
    scheduler.tick()
    proxy.refuse()
    assert scheduler.tick() == 1


def test_idle_connections_that_were_closed_are_replaced_silently(
    app: Celery, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Proxies and load balancers close connections that were idle for some minutes."""
    caplog.set_level(logging.INFO, "celery.beat")
    saved = entry(app).save()
    listener = get_storage(app).listen()
    for _ in range(3):
        proxy.drop()
        saved.reschedule()
        assert RedBeatSchedulerEntry.from_key(saved.key, app=app).name == "a"
    listener.close()
    assert caplog.records == []


def test_a_subscription_that_breaks_off_wakes_beat_to_look(
    app: Celery, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """It may have missed an edit; the next subscription is a new one."""
    app.conf.redbeat_lock_key = None
    scheduler = RedBeatScheduler(app)
    channel = get_storage(app).keys.channel
    assert not scheduler.redbeat_parts.rest.listen(0.1, before=0)
    wait_until(lambda: redis_client.pubsub_numsub(channel) == [(channel, 1)])
    proxy.drop()
    assert scheduler.redbeat_parts.rest.listen(60, before=0)
    assert not scheduler.redbeat_parts.rest.listen(0.1, before=0)
    scheduler.close()


@pytest.mark.parametrize("is_cut_off", [False, True], ids=["READONLY", "MASTERDOWN"])
def test_a_master_that_was_demoted_is_left_for_the_one_behind_its_name(
    start_redis: StartRedis, make_proxy: MakeProxy, make_app_with: MakeApp, is_cut_off: bool
) -> None:
    """As with services that move a name: old connections still lead to the replica."""
    old, new = start_redis(), start_redis()
    proxy = make_proxy(old)
    app = make_app_with(redbeat_redis_url=proxy.url())
    saved = entry(app).save()
    proxy.drop()
    saved.reschedule()
    with old.client() as client:
        if is_cut_off:
            client.config_set("replica-serve-stale-data", "no")
        client.execute_command("REPLICAOF", "127.0.0.1", 1 if is_cut_off else new.port)
    proxy.server_port = new.port
    entry(app, "b").save()
    with new.client() as client:
        assert client.zscore("redbeat::schedule", "redbeat:b") is not None


def test_scripts_that_a_new_master_does_not_know_are_loaded_into_it(
    app: Celery, storage: Storage, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """NOSCRIPT is answered with the script, for each of them, and nothing is logged."""
    caplog.set_level(logging.INFO, "celery.beat")
    for unit in UNITS.values():
        redis_client.script_flush()
        unit(storage)
    assert caplog.records == []


def test_a_cluster_without_all_its_slots_is_waited_for(
    start_redis: StartRedis, make_app_with: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """CLUSTERDOWN, as a proxy passes it on."""
    server = start_redis(cluster_enabled="yes")
    app = make_app_with(redbeat_redis_url=server.url(), redbeat_redis_options={"retry_period": 30})

    def serve() -> None:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))

    with back_when_missed(caplog, serve):
        assert get_storage(app).count_members() == 0


def test_beat_starts_without_a_redis_and_leads_when_it_comes(
    make_app_with: MakeApp, start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook raises what redis-py raises, and Celery logs it; the ticks go on."""
    server: RedisServer = start_redis(appendonly="yes")
    static = {"static": {"task": "tasks.static", "schedule": 30}}
    app = make_app_with(redbeat_redis_url=server.url(), beat_schedule=static)
    server.kill()
    scheduler = RedBeatScheduler(app)
    assert "redis ->" in scheduler.info
    with pytest.raises(redis.ConnectionError):
        acquire_distributed_beat_lock(Hook(scheduler))
    assert [scheduler.tick(), scheduler.tick()] == [1, 2]
    server.start()
    scheduler.tick()
    assert scheduler.lock.owned()
    assert RedBeatSchedulerEntry.from_key("redbeat:static", app=app).task == "tasks.static"


@pytest.mark.parametrize("options", [{}, {"cluster": True}])
def test_beat_starts_without_its_cluster(
    make_app_with: MakeApp, proxy: Proxy, options: dict[str, Any]
) -> None:
    """Its client looks for the nodes as soon as it is made."""
    proxy.refuse()
    scheme = "redis" if options else "redis-cluster"
    app = make_app_with(
        redbeat_redis_url=f"{scheme}://127.0.0.1:{proxy.port}", redbeat_redis_options=options
    )
    scheduler = RedBeatScheduler(app)
    assert "redis ->" in scheduler.info
