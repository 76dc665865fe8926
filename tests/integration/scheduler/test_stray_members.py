"""Members of the schedule that are not entries do not delay good ones, however many they are."""

import logging
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedulers import get_storage
from support.entries import SCHEDULE, due, later

UTC = timezone.utc
PAGE = 100
COUNT = 10 * PAGE
GOOD = [f"good-{number}" for number in range(5)]

#: What each kind of garbage holds.
KINDS: dict[str, Callable[[redis.Redis, str], object]] = {
    "gone": lambda client, key: None,
    "text": lambda client, key: client.set(key, "cache"),
    "no-definition": lambda client, key: client.hset(key, "x", "y"),
    "unreadable": lambda client, key: client.hset(key, "definition", "{"),
    "no-task": lambda client, key: client.hset(key, "definition", '{"schedule": 60}'),
}

#: Where it is among what is due: seconds after the good ones.
PLACES = {"before": -1, "behind": 1}


@pytest.fixture
def scheduler(client_app: Celery) -> RedBeatScheduler:
    client_app.conf.redbeat_lock_key = None
    client_app.conf.redbeat_batch_size = PAGE
    return RedBeatScheduler(client_app)


def store_garbage(client: redis.Redis, kind: str, place: str) -> None:
    """Add members that became due some minutes ago, one after the other."""
    first = datetime.now(UTC).timestamp() - 5000 + PLACES[place] * COUNT
    keys = [f"redbeat:junk-{number:05}" for number in range(COUNT)]
    for key in keys:
        KINDS[kind](client, key)
    client.zadd(SCHEDULE, {key: int(first) + number for number, key in enumerate(keys)})


def store_good(app: Celery, client: redis.Redis) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=5)
    for name in GOOD:
        entry = RedBeatSchedulerEntry(name, "t", schedule(3600), app=app, last_run_at=long_ago)
        entry.save()
        client.zadd(SCHEDULE, {entry.key: int(datetime.now(UTC).timestamp()) - 5000})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_good_entries_wait_for_one_page_of_garbage_at_most(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    place: str,
) -> None:
    """One tick removes all garbage, and logs a line per page with the first few keys."""
    store_garbage(client, kind, place)
    store_good(scheduler.app, client)
    left = []

    def send(self: RedBeatScheduler, entry: Any, **kwargs: Any) -> None:
        self.reserve(entry)
        (due,) = get_storage(self.app).count_between((0, datetime.now(UTC).timestamp()))
        left.append(due)

    monkeypatch.setattr(RedBeatScheduler, "apply_async", send)
    with caplog.at_level(logging.INFO, logger="celery.beat"):
        scheduler.tick()
    assert len(left) == len(GOOD)
    assert min(left) >= COUNT - 2 * PAGE
    members: Any = client.zrange(SCHEDULE, 0, -1, withscores=True)
    assert not [key for key, score in members if "junk" in key and score >= 0]
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    # The last ones are too few for a line that counts them.
    assert 1 <= len(told) <= 2 * COUNT // PAGE
    assert "redbeat:junk-" in told[0]
    assert re.search(r"\d\d entries", told[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_stray_members_are_logged_one_by_one(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    keys = ["redbeat:junk-a", "redbeat:junk-b"]
    for key in keys:
        KINDS[kind](client, key)
        client.zadd(SCHEDULE, {key: 1})
    scheduler.tick()
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(told) == len(keys)
    for line, key in zip(sorted(told), keys, strict=True):
        assert key in line


@pytest.mark.parametrize("beyond", [True, False])
@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_a_claim_from_the_end_takes_what_became_due_last(
    client_app: Celery, client: redis.Redis, beyond: bool, count: int
) -> None:
    """Only what is due: members that are finished or due later stay."""
    client.zadd(SCHEDULE, {"redbeat:ended": -1, "redbeat:aside": -2})
    if beyond:
        client.zadd(SCHEDULE, {"redbeat:later": 100})
    if count:
        client.zadd(SCHEDULE, {f"redbeat:{number}": number for number in range(count)})
    claimed = get_storage(client_app).claim_due(50, 80.25, 3, 200, from_end=True)
    expected = [f"redbeat:{number}" for number in range(count)][-3:]
    assert sorted(member.key for member in claimed.due) == expected
    assert claimed.has_set_aside
    members: Any = client.zrange(SCHEDULE, 0, -1, withscores=True)
    scores: dict[str, float] = dict(members)
    assert sorted(key for key, score in scores.items() if score in (80.25, 80.75)) == expected
    assert scores["redbeat:ended"] == -1
    assert scores["redbeat:aside"] == -2
    assert len(scores) == 2 + count + beyond


def test_a_member_without_a_hash_is_dropped_and_logged(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    sent: list[str],
) -> None:
    """Whether it is due or due later; other entries run."""
    client.zadd(SCHEDULE, {"redbeat:ghost": 5, "redbeat:spirit": time.time() + 9})
    due(scheduler.app, "a")
    assert scheduler.tick() == 0
    assert sent == ["tasks.a"]
    assert "Failed to load redbeat:ghost" in caplog.text
    assert client.zrange(SCHEDULE, 0, -1) == ["redbeat:a"]


def test_a_member_that_is_not_an_entry_is_dropped(
    scheduler: RedBeatScheduler, client: Any, sent: list[str]
) -> None:
    """Whether it is due or due later."""
    client.set("redbeat:text", "no hash")
    client.zadd(SCHEDULE, {b"\xff\xfe": 1, "redbeat:text": 1, b"\xfe\xff": time.time() + 5})
    due(scheduler.app, "good")
    scheduler.tick()
    assert sent == ["tasks.good"]
    assert client.zrange(SCHEDULE, 0, -1) == ["redbeat:good"]


def test_an_entry_that_is_saved_again_meanwhile_is_not_removed(
    scheduler: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Its score has changed by then."""

    class Resaved(RedBeatSchedulerEntry):
        @classmethod
        def from_key(cls, key: str, app: Any = None) -> RedBeatSchedulerEntry:
            later(scheduler.app, "a", 7200)
            raise KeyError(key)

    scheduler.Entry = Resaved
    due(scheduler.app, "a")
    assert scheduler.schedule == {}
    assert client.zrank(SCHEDULE, "redbeat:a") == 0
    due(scheduler.app, "a")
    scheduler.tick()
    assert client.zrank(SCHEDULE, "redbeat:a") == 0
    assert "Failed to load" not in caplog.text
