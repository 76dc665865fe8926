"""What is due goes in batches: claimed, loaded, sent and committed together."""

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
from redbeat.store.storage import Outcome
from support.apps import MakeApp
from support.entries import SCHEDULE, due, score_of
from support.wire import Proxy


def test_many_due_entries_are_drained_batch_by_batch(
    scheduler: RedBeatScheduler, sent: list[str]
) -> None:
    """One tick runs them all, also when they fill several batches to the last."""
    scheduler.app.redbeat_conf.batch_size = 3
    for number in range(9):
        due(scheduler.app, f"e{number}")
    scheduler.tick()
    assert len(set(sent)) == len(sent) == 9


def test_a_slow_broker_does_not_keep_a_tick_from_draining(
    scheduler: RedBeatScheduler, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit into the time of one batch goes with the next ones."""
    monkeypatch.setattr("redbeat.beat.batch.FILLING_TIME", 0)
    for number in range(9):
        due(scheduler.app, f"e{number}")
    scheduler.tick()
    assert len(set(sent)) == len(sent) == 9


def test_a_lease_counts_from_its_claim_however_long_the_tick_lasts(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else other beats would find due what a long tick has just claimed."""
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


def test_a_commit_of_more_than_a_script_may_change_is_made_by_several(
    make_app_with: MakeApp, proxy: Proxy, redis_client: redis.Redis, monkeypatch: Any
) -> None:
    """In one round trip; it counts all that still bore the lease, and no other."""
    monkeypatch.setattr("redbeat.store.storage.SCRIPT_SIZE", 2)
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
    """Renew, claim, load and commit; publishing is the broker's.

    Where messages go one by one, each handful of them is committed.
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
