"""How much one batch loads: a beat must be able to hold it in memory."""

import time
from collections.abc import Callable
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.batch import Batch
from redbeat.beat.claims import unique_lease
from redbeat.beat.repeats import Repeats
from redbeat.schedulers import get_storage, logger
from support.apps import MakeApp
from support.permissions import EVERYTHING, SUFFICIENT, guard
from support.servers import StartRedis
from support.wire import Proxy

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
BOUND = 10_000

#: Who tells how large entries are before they are loaded, and who does not.
RIGHTS = {
    "all": EVERYTHING,
    "those-of-2.x": SUFFICIENT,
    "no-scripts": f"{EVERYTHING} -eval -evalsha -script",
    "no-sizes": f"{EVERYTHING} -hstrlen",
}


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that a test can reach."""
    monkeypatch.setattr("redbeat.beat.batch.BATCH_BYTES", BOUND)


@pytest.fixture(params=RIGHTS)
def guest_app(
    request: pytest.FixtureRequest, start_redis: StartRedis, make_app_with: MakeApp
) -> Celery:
    """An application with each of these rights in turn."""
    url = guard(start_redis(), RIGHTS[request.param]).guest_url
    return make_app_with(redbeat_redis_url=url, redbeat_lock_key=None)


def due(app: Celery, name: str, size: int) -> None:
    """Store an entry with an argument of this size, each due since another time."""
    entry = RedBeatSchedulerEntry(name, f"tasks.{name}", schedule(3600), args=["x" * size], app=app)
    entry.last_run_at = datetime(2024, 1, 1, tzinfo=UTC)
    entry.save()
    app.redbeat_redis.zadd(SCHEDULE, {entry.key: 1000 + int(name.removeprefix("e"))})


def load_batch(app: Celery) -> tuple[Batch, list[int]]:
    """Claim and load a batch; return it with the size of each of its entries."""
    now = datetime.now(UTC)
    lease = unique_lease(now.timestamp(), 30)
    batch = Batch(get_storage(app), now, lease, time.monotonic() + 15, Repeats(logger))
    batch.claim(500, horizon=300, from_end=False)
    build: Callable[..., Any] = lambda key, stored: RedBeatSchedulerEntry.from_stored(  # noqa: E731
        key, stored, app
    )
    batch.load(build)
    loaded = [claim.stored for claim in batch.claims if claim.stored]
    return batch, [len(stored.definition or "") + len(stored.meta or "") for stored in loaded]


@pytest.mark.parametrize(
    ("sizes", "fit"),
    [
        ([3000] * 20, 3),
        ([20] * 10 + [3000] * 20, 10 + 2),
        ([9000, 9000, 9000], 1),
        ([50_000, 20, 20], 1),
        ([20, 50_000, 20], 1),
        ([20] * 20, 20),
    ],
)
def test_a_batch_loads_what_fits_and_leaves_the_rest_as_it_was(
    guest_app: Celery, sizes: list[int], fit: int
) -> None:
    """In whatever order sizes come; the first entry is loaded at any size."""
    for number, size in enumerate(sizes):
        due(guest_app, f"e{number:02}", size)
    batch, loaded = load_batch(guest_app)
    assert len(loaded) == pytest.approx(fit, abs=1 if fit > 1 and fit < len(sizes) else 0)
    assert len(loaded) == 1 or sum(loaded) <= BOUND
    assert batch.leaves_more
    batch.commit()
    scores = guest_app.redbeat_redis.zrange(SCHEDULE, 0, -1, withscores=True)
    given_back = [[f"redbeat:e{number:02}", 1000.0 + number] for number in range(len(sizes))]
    assert [list(pair) for pair in scores] == given_back


def test_all_that_is_due_runs_once_in_one_tick(guest_app: Celery, sent: list[str]) -> None:
    """In as many batches as necessary, the largest entry in one of its own."""
    sizes = [3000] * 9 + [100_000] + [20] * 9 + [100_000, 3000]
    for number, size in enumerate(sizes):
        due(guest_app, f"e{number:02}", size)
    RedBeatScheduler(guest_app).tick()
    assert sorted(sent) == [f"tasks.e{number:02}" for number in range(len(sizes))]


def test_no_more_is_requested_from_redis_at_once_than_fits_into_a_batch(
    make_app_with: MakeApp, proxy: Proxy, sent: list[str]
) -> None:
    """Each batch is committed before the next one is loaded."""
    app = make_app_with(redbeat_redis_url=proxy.url(), redbeat_lock_key=None)
    scheduler = RedBeatScheduler(app)
    for number in range(20):
        due(app, f"e{number:02}", 3000)
    with proxy.counting() as traffic:
        scheduler.tick()
    looks = [len(list(run)) for name, run in groupby(traffic.names) if name == "HMGET"]
    assert sum(looks) >= 20
    assert max(looks) <= 3
    assert len(sent) == 20


@pytest.fixture
def members(guest_app: Celery) -> redis.Redis:
    """A client with the rights of the application's user."""
    RedBeatScheduler(guest_app)
    client: redis.Redis = guest_app.redbeat_redis
    return client


def test_a_member_that_is_not_an_entry_has_no_size(guest_app: Celery, members: redis.Redis) -> None:
    """A key of another type, a missing one and an unreadable one delay no other entry."""
    members.set("redbeat:text", "x" * 5)
    members.zadd(SCHEDULE, {"redbeat:text": 1, "redbeat:gone": 2, "": 3})
    due(guest_app, "e01", 20)
    RedBeatScheduler(guest_app).tick()
    assert RedBeatSchedulerEntry.from_key("redbeat:e01", guest_app).total_run_count == 1
