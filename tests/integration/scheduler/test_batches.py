"""Due entries go in batches: they are claimed, loaded, sent and committed together."""

import time
from typing import Any
from unittest import mock

import kombu.messaging
import pytest
import redis
import redis.exceptions
import redis.lock

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.delivery import HANDFUL
from redbeat.schedulers import acquire_distributed_beat_lock, get_storage
from redbeat.store.records import Outcome
from support.apps import MakeApp
from support.entries import SCHEDULE, due, score_of
from support.wire import Proxy


def test_one_tick_runs_several_batches_of_due_entries(
    scheduler: RedBeatScheduler, sent: list[str]
) -> None:
    """Also when they fill the last batch exactly."""
    scheduler.app.redbeat_conf.batch_size = 3
    for number in range(9):
        due(scheduler.app, f"e{number}")
    scheduler.tick()
    assert len(set(sent)) == len(sent) == 9


def test_a_tick_runs_all_that_is_due_though_the_broker_is_slow(
    scheduler: RedBeatScheduler, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit into the time of one batch is sent with the next."""
    monkeypatch.setattr("redbeat.beat.batch.FILLING_TIME", 0)
    for number in range(9):
        due(scheduler.app, f"e{number}")
    scheduler.tick()
    assert len(set(sent)) == len(sent) == 9


def test_a_lease_starts_at_its_claim_however_long_the_tick_has_run(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise other beats would find due what a long tick has just claimed."""
    scheduler.app.redbeat_conf.batch_size = 1
    leases: list[float] = []
    an_hour, passed = 3600.0, [0.0]
    clock = time.time

    def apply_async(self: RedBeatScheduler, entry: RedBeatSchedulerEntry, **kwargs: Any) -> None:
        score = score_of(client, entry.name)
        assert score is not None
        leases.append(score - clock())
        self.reserve(entry)
        passed[0] = an_hour

    monkeypatch.setattr(RedBeatScheduler, "apply_async", apply_async)
    monkeypatch.setattr(time, "time", lambda: clock() + passed[0])
    for name in "ab":
        due(scheduler.app, name)
    scheduler.tick()
    in_time, late = leases
    assert 0 < in_time < an_hour < late


def test_a_large_commit_takes_several_scripts_and_one_round_trip(
    make_app_with: MakeApp, proxy: Proxy, redis_client: redis.Redis, monkeypatch: Any
) -> None:
    """It counts the entries that still had the lease, and no others."""
    monkeypatch.setattr("redbeat.store.topology.SCRIPT_ENTRIES", 2)
    storage = get_storage(make_app_with(redbeat_redis_url=proxy.url()))
    redis_client.zadd(SCHEDULE, {f"redbeat:{name}": 5 for name in "abcde"} | {"redbeat:other": 6})
    storage.commit(4, [Outcome("redbeat:a", 7)])
    outcomes = [Outcome(f"redbeat:{name}", 7) for name in ("a", "b", "c", "d", "e", "other")]
    with proxy.counting() as traffic:
        assert storage.commit(5, outcomes) == 5
    assert traffic.round_trips == 1
    assert traffic.names == ["MULTI", "EVALSHA", "EVALSHA", "EVALSHA", "EXEC"]
    assert {score_of(redis_client, name) for name in "abcde"} == {7}
    assert score_of(redis_client, "other") == 6


@pytest.mark.parametrize("broker", ["redis", "memory"])
def test_a_batch_costs_five_round_trips_however_many_are_due(
    make_app_with: MakeApp, proxy: Proxy, redis_url: str, sent: list[str], broker: str
) -> None:
    """Renew, claim, load and commit; publishing is up to the broker.

    Where messages are sent one by one, every handful of them is committed.
    """
    broker_url = redis_url if broker == "redis" else "memory://"
    app = make_app_with(redbeat_redis_url=proxy.url(), broker_url=broker_url)
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    for number in range(200):
        due(app, f"e{number}")
    scheduler.tick()
    for number in range(200):
        due(app, f"e{number}")
        client = app.redbeat_redis
        client.zadd(SCHEDULE, {f"redbeat:e{number}": 1})
        client.hdel(f"redbeat:e{number}", "meta")
    sent.clear()
    with proxy.counting() as traffic:
        scheduler.tick()
    assert len(sent) == 200
    has_batches = broker == "redis" and hasattr(kombu.messaging.Producer, "batch")
    assert traffic.round_trips <= 5 + (0 if has_batches else 200 / HANDFUL)
