"""What holds on every kind of Redis, reached by the settings that people use."""

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.holder import new_token, read_holder
from redbeat.schedulers import acquire_distributed_beat_lock, ensure_conf, get_redis, get_storage
from support.apps import MakeApp
from support.entries import due
from support.messages import names_sent
from support.servers import NO_RETRY, RedisServer
from support.topologies import Tls, TlsSentinel, Topology, port_of
from support.waiting import wait_until

UTC = timezone.utc
HOUR = 3600
READS = 1000

Sent = Callable[[], list[str]]


@pytest.fixture
def sent(redis_server: RedisServer) -> Sent:
    """Returns the names of the entries whose messages the broker has, in alphabetic order."""

    def read() -> list[str]:
        with redis_server.client(1) as client:
            return names_sent(client)

    return read


@pytest.fixture
def scheduler(make_topology_app: MakeApp) -> RedBeatScheduler:
    """A scheduler without a lock."""
    return RedBeatScheduler(make_topology_app(redbeat_lock_key=None))


def entry(app: Celery, name: str, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, "tasks.add", schedule(HOUR), args=[name], app=app, **fields)


def stored(app: Celery, name: str) -> RedBeatSchedulerEntry:
    key = RedBeatSchedulerEntry.generate_key(app, name)
    return RedBeatSchedulerEntry.from_key(key, app=app)


def score_of(app: Celery, name: str) -> float | None:
    key = RedBeatSchedulerEntry.generate_key(app, name)
    score: float | None = get_redis(app).zscore(ensure_conf(app).schedule_key, key)
    return score


def lead(app: Celery) -> RedBeatScheduler:
    """A scheduler that has tried to take the lock, as the hook does."""
    candidate = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=candidate))
    return candidate


def leads(candidate: RedBeatScheduler) -> bool:
    """Whether it believes that it holds the lock, and does."""
    lock: Any = candidate.lock
    return lock is not None and lock.owned()


# Entries


def test_an_entry_is_loaded_as_it_was_saved(topology_app: Celery) -> None:
    """With its place in the schedule."""
    saved = RedBeatSchedulerEntry(
        "daily",
        "tasks.add",
        crontab(minute="30", hour="4"),
        args=[1, "ü"],
        kwargs={"x": [None, 2.5]},
        options={"queue": "night"},
        app=topology_app,
    ).save()
    loaded = stored(topology_app, "daily")
    assert dict(loaded)["args"] == [1, "ü"]
    assert (loaded.task, loaded.kwargs, loaded.options) == (
        "tasks.add",
        {"x": [None, 2.5]},
        {"queue": "night"},
    )
    assert loaded.schedule == crontab(minute="30", hour="4")
    assert score_of(topology_app, "daily") == saved.score
    assert saved.rank == 0


def test_saving_again_keeps_the_history(topology_app: Celery) -> None:
    """The definition is replaced; history and due time stay."""
    ran = next(entry(topology_app, "a").save())
    score = score_of(topology_app, "a")
    saved = entry(topology_app, "a", kwargs={"new": True}).save()
    assert saved.total_run_count == ran.total_run_count == 1
    loaded = stored(topology_app, "a")
    assert (loaded.kwargs, loaded.last_run_at) == ({"new": True}, ran.last_run_at)
    assert score_of(topology_app, "a") == score


def test_a_rescheduled_entry_counts_from_the_time_it_was_given(topology_app: Celery) -> None:
    """In the hash, and in the schedule."""
    moment = datetime.now(UTC).replace(microsecond=0)
    entry(topology_app, "a").save().reschedule(moment)
    assert stored(topology_app, "a").last_run_at == moment
    score = score_of(topology_app, "a")
    assert score == pytest.approx(moment.timestamp() + HOUR, abs=1)


def test_deleting_an_entry_leaves_nothing_of_it(topology_app: Celery, topology: Topology) -> None:
    """Neither hash nor member; other entries stay."""
    entry(topology_app, "kept").save()
    gone = entry(topology_app, "gone").save()
    gone.delete()
    with pytest.raises(KeyError):
        stored(topology_app, "gone")
    assert gone.rank is None
    assert get_storage(topology_app).count_members() == 1
    assert sum(count_keys(master) for master in topology.masters()) == 2


def count_keys(server: RedisServer) -> int:
    with server.client() as client:
        size: int = client.dbsize()
    return size


def test_the_schedule_shows_due_entries_and_the_first_one_after(topology_app: Celery) -> None:
    """And nothing later."""
    for name in ("due", "due too"):
        due(topology_app, name)
    for seconds in (30, 60):
        RedBeatSchedulerEntry(f"in {seconds}", "tasks.add", schedule(seconds), app=topology_app)
        entry(topology_app, f"in {seconds}").save().reschedule(
            datetime.now(UTC) + timedelta(seconds=seconds - HOUR)
        )
    shown = RedBeatScheduler(topology_app, lazy=True).schedule
    assert sorted(shown) == ["due", "due too", "in 30"]


# Claim and commit


def test_a_tick_runs_each_due_entry_once_and_commits_it(
    scheduler: RedBeatScheduler, sent: Sent
) -> None:
    """Batch after batch; runs are counted, and the next run is in an hour."""
    names = [f"{number:02}" for number in range(30)]
    ensure_conf(scheduler.app).batch_size = 8
    for name in names:
        due(scheduler.app, name)
    began = time.time()
    scheduler.tick()
    assert sent() == names
    assert [stored(scheduler.app, name).total_run_count for name in names] == [1] * 30
    scores = [score_of(scheduler.app, name) or 0 for name in names]
    assert all(began + HOUR - 1 <= score <= time.time() + HOUR for score in scores)
    scheduler.tick()
    assert sent() == names


def test_an_entry_that_one_beat_has_claimed_is_not_claimed_by_another(topology_app: Celery) -> None:
    """Repeating a claim with the same lease returns the same, so a lost answer does no harm."""
    for name in "ab":
        due(topology_app, name)
    storage, now = get_storage(topology_app), time.time()
    first = storage.claim_due(now, now + 30.5, limit=10, horizon=now + 300)
    assert len(first.due) == 2
    assert storage.claim_due(now, now + 30.7, limit=10, horizon=now + 300).due == []
    again = storage.claim_due(now, now + 30.5, limit=10, horizon=now + 300)
    assert [member.key for member in again.due] == [member.key for member in first.due]


def test_an_edit_between_claim_and_commit_wins(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, sent: Sent
) -> None:
    """A deleted entry stays deleted, and a paused one stays as it was saved."""
    deleted, saved = (due(scheduler.app, name) for name in ("deleted", "saved"))
    original = RedBeatScheduler.apply_async

    def meanwhile(self: Any, entry: Any, **kwargs: Any) -> Any:
        if entry.name == "deleted":
            deleted.delete()
        else:
            saved.enabled = False
            saved.save()
        return original(self, entry, **kwargs)

    monkeypatch.setattr(RedBeatScheduler, "apply_async", meanwhile)
    scheduler.tick()
    assert sent() == ["deleted", "saved"]
    with pytest.raises(KeyError):
        stored(scheduler.app, "deleted")
    assert deleted.rank is None
    assert not stored(scheduler.app, "saved").enabled
    scheduler.tick()
    assert sent() == ["deleted", "saved"]


def test_an_entry_that_cannot_run_is_set_aside_until_it_is_rewritten(
    scheduler: RedBeatScheduler, sent: Sent
) -> None:
    """Other entries run."""
    scheduler.app.redbeat_conf.poll_interval = 0
    for name in ("good", "mended"):
        due(scheduler.app, name)
    client, key = get_redis(scheduler.app), RedBeatSchedulerEntry.generate_key(scheduler.app, "")
    definition = client.hget(f"{key}mended", "definition")
    client.hset(f"{key}mended", "definition", "no JSON")
    scheduler.tick()
    assert sent() == ["good"]
    assert score_of(scheduler.app, "mended") == -2
    assert json.loads(client.hget(f"{key}mended", "set_aside"))["reason"]
    client.hset(f"{key}mended", "definition", definition)
    scheduler.tick()
    scheduler.tick()
    assert sent() == ["good", "mended"]
    assert client.hget(f"{key}mended", "set_aside") is None


def test_a_member_without_a_hash_is_removed(scheduler: RedBeatScheduler, sent: Sent) -> None:
    """Some program may have deleted the hash only."""
    for name in ("good", "gone"):
        due(scheduler.app, name)
    get_redis(scheduler.app).delete(RedBeatSchedulerEntry.generate_key(scheduler.app, "gone"))
    scheduler.tick()
    assert sent() == ["good"]
    assert get_storage(scheduler.app).count_members() == 1


# The lock


def test_foreign_keys_in_the_schedule_affect_no_other_entries(
    scheduler: RedBeatScheduler, sent: Sent
) -> None:
    """A key with an earlier prefix, and one that nobody stored, outside the hash tag."""
    app = scheduler.app
    keys = [due(app, name).key for name in ("a", "b")]
    client, storage = get_redis(app), get_storage(app)
    elsewhere = due(app, "elsewhere")
    client.hset("earlier:elsewhere", "definition", elsewhere.encode_definition())
    elsewhere.delete()
    client.zadd(storage.keys.schedule_key, {"earlier:elsewhere": 1, "earlier:gone": 2})
    scheduler.tick()
    scheduler.tick()
    assert sent() == ["a", "b", "elsewhere"]
    counts = [json.loads(storage.read_meta(key) or "{}") for key in [*keys, "earlier:elsewhere"]]
    assert [each["total_run_count"] for each in counts] == [1, 1, 1]
    assert client.zscore(storage.keys.schedule_key, "earlier:gone") is None


def test_the_second_of_two_beats_leads_once_the_first_has_released_the_lock(
    make_topology_app: MakeApp, sent: Sent
) -> None:
    """The standby sends nothing while the leader holds the lock."""
    first, second = (lead(make_topology_app(redbeat_lock_timeout=20)) for _ in range(2))
    assert leads(first)
    assert not leads(second)
    client = get_redis(first.app)
    client.pexpire(first.lock_key, 5000)
    due(first.app, "a")
    second.tick()
    assert sent() == []
    first.tick()
    assert sent() == ["a"]
    assert 15_000 < client.pttl(first.lock_key) <= 20_000
    first.lock.extend(60)
    assert 55_000 < client.pttl(first.lock_key) <= 60_000
    first.close()
    assert not leads(first)
    assert client.get(first.lock_key) is None
    second.tick()
    assert leads(second)
    second.close()


def test_a_silent_leader_is_replaced_and_a_live_one_is_not(
    make_topology_app: MakeApp,
) -> None:
    """The remaining time to live shows for how long it has been silent."""
    app = make_topology_app(redbeat_failover_timeout=2)
    key, client = ensure_conf(app).lock_key, get_redis(app)
    assert key is not None
    token = new_token(20, 2)
    client.set(key, token, px=19_500)
    standby = lead(app)
    assert not leads(standby)
    client.set(key, token, px=17_000)
    standby.tick()
    assert leads(standby)
    holder = read_holder(get_storage(app), key)
    assert holder is not None
    assert holder.token != token
    standby.close()


def test_a_leader_that_loses_the_lock_stands_by_until_it_is_free(topology_app: Celery) -> None:
    """It neither raises nor takes the lock from its new holder."""
    leader = lead(topology_app)
    client = get_redis(topology_app)
    client.set(leader.lock_key, "another", px=60_000)
    leader.tick()
    assert not leads(leader)
    assert client.get(leader.lock_key) == "another"
    client.delete(leader.lock_key)
    leader.tick()
    assert leads(leader)
    leader.close()


# Changes


def test_listeners_are_notified_of_a_change(topology_app: Celery) -> None:
    """Whichever server it was made on."""
    listener = get_storage(topology_app).listen()
    stop = threading.Event()

    def keep_saving() -> None:
        while not stop.wait(0.05):
            entry(topology_app, "a").save()

    writer = threading.Thread(target=keep_saving)
    writer.start()
    try:
        assert listener.wait(10, before=time.time() + 2 * HOUR)
    finally:
        stop.set()
        writer.join()
    listener.close()


# Static entries


def test_static_entries_follow_the_code(make_topology_app: MakeApp) -> None:
    """New ones are stored, removed ones go, and what programs saved stays."""

    def static(*names: str) -> RedBeatScheduler:
        entries = {name: {"task": "tasks.add", "schedule": HOUR} for name in names}
        return RedBeatScheduler(make_topology_app(beat_schedule=entries))

    first = static("kept", "dropped")
    assert get_storage(first.app).notes.read_statics() == {"kept", "dropped"}
    entry(first.app, "saved").save()
    kept = next(stored(first.app, "kept"))
    second = static("kept", "new")
    second.setup_schedule()
    assert get_storage(second.app).notes.read_statics() == {"kept", "new"}
    assert stored(second.app, "kept").last_run_at == kept.last_run_at
    assert stored(second.app, "saved")
    assert stored(second.app, "new")
    with pytest.raises(KeyError):
        stored(second.app, "dropped")
    assert score_of(second.app, "dropped") is None


# The connection


def test_the_server_is_asked_whether_it_evicts(topology_app: Celery) -> None:
    """Servers without a memory limit cause no finding."""
    assert RedBeatScheduler(topology_app).key_expiry_findings == []


def test_a_thousand_reads_make_no_new_connections(topology_app: Celery, topology: Topology) -> None:
    """One connection per server is enough."""
    names = [f"entry-{number}" for number in range(20)]
    for name in names:
        entry(topology_app, name).save()
    read_all(topology_app, names)
    before = topology.count_connections()
    asking = topology.count_connections() - before
    before = topology.count_connections()
    for _ in range(READS // len(names)):
        read_all(topology_app, names)
    assert topology.count_connections() - before == asking


def read_all(app: Celery, names: list[str]) -> None:
    for name in names:
        assert stored(app, name).name == name


def test_a_client_with_a_retry_period_works_alike(
    make_topology_app: MakeApp, topology: Topology, sent: Sent
) -> None:
    """It wraps the client of each kind: entries, claims, the lock and changes work."""
    options = topology.settings["redbeat_redis_options"] | {"retry_period": 10}
    leader = lead(make_topology_app(redbeat_redis_options=options))
    assert get_redis(leader.app).retry_period == 10
    due(leader.app, "a")
    leader.tick()
    assert sent() == ["a"]
    assert stored(leader.app, "a").total_run_count == 1
    listener = get_storage(leader.app).listen()
    assert not listener.wait(0.1, before=0)
    listener.close()
    leader.close()
    assert get_redis(leader.app).get(leader.lock_key) is None


@pytest.mark.parametrize("shared_topology", ["tls"], indirect=True)
def test_a_client_without_a_certificate_is_refused(topology: Topology) -> None:
    """So the tests of TLS above really use certificates."""
    assert isinstance(topology, Tls)
    with (
        redis.Redis(
            port=topology.tls_server.tls_port,
            ssl=True,
            ssl_ca_certs=str(topology.certificates.authority),
            retry=NO_RETRY,
        ) as stranger,
        pytest.raises(redis.ConnectionError),
    ):
        stranger.ping()


@pytest.mark.parametrize("shared_topology", ["tls-sentinel"], indirect=True)
def test_no_connection_is_unencrypted_where_sentinels_use_tls(
    scheduler: RedBeatScheduler, topology: Topology
) -> None:
    """Neither from beat nor among the servers; only the test itself uses another port."""
    assert isinstance(topology, TlsSentinel)
    due(scheduler.app, "a")
    scheduler.tick()
    servers: list[RedisServer] = [*topology.servers, *topology.sentinels]
    wait_until(
        lambda: all(ports_in_use(server) == {port_of(server)} for server in servers), 20, "TLS only"
    )


def ports_in_use(server: RedisServer) -> set[int]:
    """The ports of a server that have connections, except for the one that asks."""
    with server.client() as client:
        own = client.client_id()
        ends = {
            each["laddr"]
            for each in client.client_list()
            # A replica's own connection to its master is not one of its ports.
            if int(each["id"]) != own and "M" not in each["flags"]
        }
    return {int(end.rpartition(":")[2]) for end in ends}


@pytest.mark.parametrize("shared_topology", ["tls-sentinel"], indirect=True)
def test_tls_has_settings_for_sentinels_and_for_data_nodes(
    make_topology_app: MakeApp, topology: Topology
) -> None:
    """One of the two alone is not enough."""
    options = topology.settings["redbeat_redis_options"]
    bare_options = {name: options[name] for name in options if name != "sentinel_kwargs"}
    for bare in ({"redbeat_redis_options": bare_options}, {"redbeat_redis_use_ssl": False}):
        with pytest.raises(redis.ConnectionError):
            get_redis(make_topology_app(**bare)).ping()
    assert get_redis(make_topology_app()).ping()


def test_connections_that_were_cut_are_replaced(
    scheduler: RedBeatScheduler, topology: Topology, sent: Sent
) -> None:
    """Due entries run once."""
    due(scheduler.app, "a")
    for master in topology.masters():
        cut_connections(master)
    wait_until(lambda: scheduler.tick() and sent() == ["a"], 20, "the run")
    assert stored(scheduler.app, "a").total_run_count == 1


def cut_connections(server: RedisServer) -> None:
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
