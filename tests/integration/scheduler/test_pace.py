"""A batch is as large as the last ones could run in their time, so that little is loaded twice."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.pace import LEAST
from redbeat.schedulers import acquire_distributed_beat_lock
from redbeat.store.scripts import CLAIM
from support.apps import MakeApp
from support.entries import SCHEDULE, due
from support.messages import QUEUE, read_messages
from support.wire import Proxy, Traffic

#: How many seconds the turn of an entry takes, by its name.
Cost = Callable[[str], float]

#: How many entries a batch may have.
FULL = 500


def no_time(name: str) -> float:
    """See `Cost`."""
    return 0.0


class Slow(RedBeatScheduler):
    """A scheduler for which time passes only in the turns of entries, however busy the machine."""

    passed = 0.0

    def maybe_due(self, entry: RedBeatSchedulerEntry, **kwargs: Any) -> float | None:
        wait = super().maybe_due(entry, **kwargs)
        Slow.passed += self.cost(entry.name)
        return wait

    def cost(self, name: str) -> float:
        """See `Cost`."""
        return no_time(name)


MakeSlow = Callable[..., Slow]


@pytest.fixture
def make_slow(
    make_app_with: MakeApp, proxy: Proxy, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeSlow]:
    """Make a scheduler on a Redis behind the proxy whose turns cost what a function says."""
    clock, began, main = time.monotonic, time.monotonic(), threading.main_thread()

    def monotonic() -> float:
        # The proxy, in other threads, measures silence.
        return began + Slow.passed if threading.current_thread() is main else clock()

    monkeypatch.setattr(Slow, "passed", 0.0)
    monkeypatch.setattr(time, "monotonic", monotonic)
    with contextlib.ExitStack() as stack:

        def make(cost: Cost, **settings: Any) -> Slow:
            defaults = {"broker_url": redis_url, "redbeat_lock_key": None}
            app = make_app_with(redbeat_redis_url=proxy.url(), **defaults | settings)
            scheduler = Slow(app)
            stack.callback(scheduler.close)
            monkeypatch.setattr(scheduler, "cost", cost)
            return scheduler

        yield make


def store(app: Celery, client: redis.Redis, names: list[str]) -> None:
    """Store entries that are due, one after the other."""
    for name in names:
        due(app, name)
    client.zadd(SCHEDULE, {f"redbeat:{name}": 1 + place for place, name in enumerate(names)})


def loads(traffic: Traffic) -> int:
    """How many entries were loaded."""
    return traffic.names.count("HMGET")


def sizes(traffic: Traffic) -> list[int]:
    """How many entries each claim asked for."""
    return [int(words[6]) for words in traffic.commands if words[:2] == ["EVALSHA", CLAIM.digest]]


def sizes_of_a_tick(scheduler: RedBeatScheduler, proxy: Proxy) -> list[int]:
    """How many entries each claim of one tick asks for."""
    with proxy.counting() as traffic:
        scheduler.tick()
    return sizes(traffic)


@pytest.mark.parametrize("broker", ["redis", "memory"])
@pytest.mark.parametrize(
    ("costs", "count"), [((0.002, 0.003, 0.004, 0.005), 2000), ((0.02, 0.03, 0.04), 500)], ids=str
)
def test_where_turns_are_slow_few_entries_are_loaded_twice(
    make_slow: MakeSlow,
    proxy: Proxy,
    redis_client: redis.Redis,
    redis_url: str,
    costs: tuple[float, ...],
    count: int,
    broker: str,
) -> None:
    """Besides the first batch of a beat, which does not know yet how slow they are."""
    broker_url = redis_url if broker == "redis" else "memory://"
    scheduler = make_slow(
        lambda name: costs[int(name) % len(costs)],
        broker_url=broker_url,
        redbeat_claim_timeout=300,
    )
    store(scheduler.app, redis_client, list(map(str, range(count))))
    with proxy.counting() as traffic:
        scheduler.tick()
    assert redis_client.zcount(SCHEDULE, 0, time.time()) == 0
    assert sizes(traffic)[0] == FULL
    assert loads(traffic) <= 1.05 * count + FULL


def test_where_turns_are_fast_every_batch_is_full_size(
    make_slow: MakeSlow, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """Also after small ones whose turns took longer, as when a queue is declared."""
    scheduler = make_slow(lambda name: 0.9 if name == "first" else 0.0009)
    store(scheduler.app, redis_client, ["first"])
    scheduler.tick()
    store(scheduler.app, redis_client, list(map(str, range(1200))))
    assert sizes_of_a_tick(scheduler, proxy) == [FULL] * 3
    assert redis_client.llen(QUEUE) == 1201


def test_after_one_slow_entry_batches_are_full_size_again_soon(
    make_slow: MakeSlow, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """It grows with each batch that has time left, however long that entry took."""
    names = ["slow", *map(str, range(2000))]
    cost = {"slow": 100.0}
    scheduler = make_slow(lambda name: cost.get(name, 0.0005), redbeat_claim_timeout=300)
    store(scheduler.app, redis_client, names)
    asked = sizes_of_a_tick(scheduler, proxy)
    assert asked[:2] == [FULL, LEAST]
    assert asked[1:] == sorted(asked[1:])
    assert asked.index(FULL, 1) <= 6
    assert redis_client.llen(QUEUE) == len(names)


@pytest.mark.parametrize("loss", ["of the lease", "of the lock"])
def test_a_batch_that_is_taken_back_says_nothing_about_the_next_one(
    make_slow: MakeSlow, proxy: Proxy, redis_client: redis.Redis, loss: str
) -> None:
    """Though it lacked time, too."""
    lock = None if loss == "of the lease" else "redbeat::lock"

    def cost(name: str) -> float:
        scheduler.cost = no_time  # type: ignore[method-assign]  # only the first turn
        if lock:
            redis_client.set(lock, "another")
            scheduler.lock_timeout = 0.001
        return 20.0

    scheduler = make_slow(cost, redbeat_lock_key=lock)
    if lock:
        acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    names = list(map(str, range(60)))
    store(scheduler.app, redis_client, names)
    assert sizes_of_a_tick(scheduler, proxy) == [FULL]
    assert redis_client.llen(QUEUE) == 0
    if lock:
        scheduler.lock_timeout = 300
        redis_client.delete(lock)
    assert sizes_of_a_tick(scheduler, proxy)[0] == FULL
    assert redis_client.llen(QUEUE) == len(names)


@pytest.fixture
def _ignoring_the_end() -> Iterator[None]:
    """Let SIGTERM not end this process."""
    before = signal.signal(signal.SIGTERM, lambda signum, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_ignoring_the_end")
def test_a_batch_that_a_signal_ended_says_nothing_about_the_next_one(
    make_slow: MakeSlow, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """However long it takes to commit what was sent by then."""

    class SlowToCommit(RedBeatSchedulerEntry):
        def encode_meta(self) -> str:
            Slow.passed += 2.0
            return super().encode_meta()

    def cost(name: str) -> float:
        scheduler.cost = no_time  # type: ignore[method-assign]  # only the first turn
        os.kill(os.getpid(), signal.SIGTERM)
        return 0.5

    scheduler = make_slow(cost, redbeat_claim_timeout=3600)
    scheduler.Entry = SlowToCommit
    store(scheduler.app, redis_client, list(map(str, range(60))))
    assert sizes_of_a_tick(scheduler, proxy) == [FULL]
    assert redis_client.llen(QUEUE) == 1
    scheduler.Entry = RedBeatSchedulerEntry
    assert sizes_of_a_tick(scheduler, proxy)[0] == FULL
    assert redis_client.llen(QUEUE) == 60


def store_broken(client: redis.Redis, names: list[str]) -> None:
    """Make broken what is stored of some entries, and every other one gone."""
    for number, name in enumerate(names):
        if number % 2:
            client.delete(f"redbeat:{name}")
        else:
            client.hset(f"redbeat:{name}", "definition", "{")


def test_a_small_batch_of_mostly_bad_entries_does_not_turn_the_order_round(
    make_slow: MakeSlow, redis_client: redis.Redis
) -> None:
    """Entries run in the order in which they became due."""
    names = [f"{number:02}" for number in range(80)]
    bad = names[20:40]
    scheduler = make_slow(lambda name: 0.4, redbeat_claim_timeout=300, redbeat_batch_size=20)
    store(scheduler.app, redis_client, names)
    store_broken(redis_client, bad)
    scheduler.tick()
    ran = [message.args[0] for message in read_messages(redis_client)]
    assert ran == [name for name in names if name not in bad]


def test_bad_entries_take_no_time_and_make_batches_full_size_again(
    make_slow: MakeSlow, proxy: Proxy, redis_client: redis.Redis
) -> None:
    """So those behind thousands of them do not wait for hundreds of small batches."""
    slow = [f"slow-{number}" for number in range(5)]
    bad = [f"bad-{number}" for number in range(2000)]
    good = [f"good-{number}" for number in range(5)]
    costs = dict.fromkeys(slow, 2.0)
    left: list[int] = []

    def cost(name: str) -> float:
        if name in good:
            left.append(redis_client.zcount(SCHEDULE, 0, time.time()))
        return costs.get(name, 0.0)

    scheduler = make_slow(cost, redbeat_claim_timeout=300)
    store(scheduler.app, redis_client, slow + bad + good)
    store_broken(redis_client, bad)
    asked = sizes_of_a_tick(scheduler, proxy)
    assert asked[len(slow) :].index(FULL) <= 5
    assert len(left) == len(good)
    assert min(left) >= len(bad) - 3 * FULL
