"""One tick: it runs all that is due, counts each run, and returns how long to wait."""

import logging
import time
from typing import Any
from unittest import mock

import pytest
import redis
import redis.exceptions
import redis.lock

from redbeat import RedBeatScheduler
from redbeat.schedulers import (
    acquire_distributed_beat_lock,
)
from support.apps import MakeApp
from support.bare import write_bare
from support.entries import SCHEDULE, due, later, score_of, stored
from support.wire import Proxy

NOW = '{"__type__": "interval", "every": 60.0, "relative": false}'


def test_a_tick_runs_all_that_is_due_and_nothing_else(
    scheduler: RedBeatScheduler, sent: list[str], client: redis.Redis
) -> None:
    """Each entry once; it returns the seconds until the next run."""
    for name in ("a", "b"):
        due(scheduler.app, name)
    later(scheduler.app, "c", 20)
    wait = scheduler.tick()
    assert sorted(sent) == ["tasks.a", "tasks.b"]
    assert 18 < wait <= 20
    scheduler.tick()
    assert len(sent) == 2


def test_a_run_is_counted_and_the_next_one_is_exact_to_the_microsecond(
    scheduler: RedBeatScheduler, sent: list[str], client: redis.Redis
) -> None:
    """The score depends on the run, not on the tick."""
    due(scheduler.app, "a", every=1.5)
    scheduler.tick()
    entry = stored(scheduler.app, "a")
    assert entry.total_run_count == 1
    assert entry.last_run_at is not None
    assert score_of(client, "a") == pytest.approx(entry.last_run_at.timestamp() + 1.5, abs=1e-5)


def test_an_idle_tick_returns_max_interval(scheduler: RedBeatScheduler) -> None:
    """Nothing is stored, or nothing is due within that time."""
    assert scheduler.tick() == scheduler.max_interval == 300
    later(scheduler.app, "far", 3600)
    assert scheduler.tick() == 300


def test_an_entry_whose_score_was_rounded_down_runs_once_at_its_exact_time(
    scheduler: RedBeatScheduler, sent: list[str], client: redis.Redis
) -> None:
    """It is claimed up to a second early, and gets its exact due time as score."""
    entry = later(scheduler.app, "a", 0.9)
    assert entry.last_run_at is not None
    exact = entry.last_run_at.timestamp() + 0.9
    client.zadd(SCHEDULE, {entry.key: int(time.time())})
    wait = scheduler.tick()
    assert sent == []
    assert 0 < wait < 0.9
    assert score_of(client, "a") == pytest.approx(exact, abs=1e-5)


def test_a_message_that_cannot_be_sent_is_logged_and_counted(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Other entries run, and it is not tried again at once."""

    def send_task(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "tasks.bad":
            raise ValueError("does not serialise")

    monkeypatch.setattr(RedBeatScheduler, "send_task", send_task)
    due(scheduler.app, "bad")
    due(scheduler.app, "good")
    caplog.set_level(logging.DEBUG, logger="celery.beat")
    scheduler.tick()
    assert "Scheduler: Message Error: Couldn't apply scheduled task bad" in caplog.text
    assert "Traceback" in caplog.text
    assert stored(scheduler.app, "bad").total_run_count == 1
    assert stored(scheduler.app, "good").total_run_count == 1


def test_a_disabled_entry_is_skipped_and_moved_to_its_next_slot(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Its history does not change."""
    entry = due(scheduler.app, "a", every=60, enabled=False)
    before = client.hgetall(entry.key)
    scheduler.tick()
    assert sent == []
    score = score_of(client, "a")
    assert score == pytest.approx(time.time() + 60, abs=2)
    assert client.hgetall(entry.key) == before


def test_an_entry_without_a_name_gets_it_from_its_key(
    scheduler: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Other languages may leave the name out."""
    caplog.set_level(logging.INFO)
    client.hset("redbeat:nameless", "definition", f'{{"task": "tasks.a", "schedule": {NOW}}}')
    client.zadd(SCHEDULE, {"redbeat:nameless": 0})
    scheduler.tick()
    assert "Sending due task nameless (tasks.a)" in caplog.text


SEVENTY = '{"last_run_at": null, "total_run_count": 70}'


@pytest.mark.parametrize(("meta", "runs"), [('{"last_run_at": null}', 8), (SEVENTY, 71)])
def test_run_counts_in_the_meta_win_over_those_in_the_definition(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], meta: str, runs: int
) -> None:
    """As in 2.x."""
    interval = {"__type__": "interval", "every": 60}
    write_bare(client, "c", interval, 0, last_run_at=None, total_run_count=7)
    client.hset("redbeat:c", "meta", meta)
    scheduler.tick()
    assert sent == ["tasks.c"]
    assert stored(scheduler.app, "c").total_run_count == runs


def test_an_idle_tick_costs_two_round_trips(make_app_with: MakeApp, proxy: Proxy) -> None:
    """Renew and claim."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    with proxy.counting() as traffic:
        scheduler.tick()
    assert traffic.round_trips == 2
