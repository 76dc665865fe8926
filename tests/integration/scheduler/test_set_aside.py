"""Entries that cannot run are set aside with the reason, and affect no others."""

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.schedulers import (
    get_redis,
)
from support.apps import MakeApp
from support.bare import write_bare
from support.entries import SCHEDULE, due, score_of
from support.wire import Proxy

UTC = timezone.utc


@pytest.mark.parametrize(
    "definition",
    [
        "{not json",
        '{"name": "bad", "task": "t"}',
        '{"name": "bad", "task": "t", "schedule": {"__type__": "tea"}}',
        '{"name": "bad", "task": "t", "schedule": {"__type__": "crontab", "minute": "99"}}',
        "[]",
    ],
)
def test_a_malformed_entry_affects_no_other(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    sent: list[str],
    definition: str,
) -> None:
    """It is logged with its key and set aside, with the reason in its hash."""
    client.hset("redbeat:bad", "definition", definition)
    client.zadd(SCHEDULE, {"redbeat:bad": 1})
    due(scheduler.app, "good")
    scheduler.tick()
    assert sent == ["tasks.good"]
    assert "redbeat:bad" in caplog.text
    assert score_of(client, "bad") == -2
    reason: Any = client.hget("redbeat:bad", "set_aside")
    assert json.loads(reason)["reason"]


@pytest.mark.parametrize("field", ["definition", "meta"])
def test_an_entry_of_bytes_that_are_not_text_affects_no_other(
    scheduler: RedBeatScheduler, client: Any, sent: list[str], field: str
) -> None:
    """Redis stores bytes, and any program may have written them."""
    due(scheduler.app, "bad")
    client.hset("redbeat:bad", field, b"\xff\xfe")
    due(scheduler.app, "good")
    scheduler.tick()
    assert sent == ["tasks.good"]
    assert score_of(client, "bad") == -2


@pytest.mark.parametrize("task", ["null", '""', "42"])
def test_an_entry_without_a_task_is_set_aside(
    scheduler: RedBeatScheduler, client: Any, sent: list[str], task: str
) -> None:
    """It is not sent as a message that no worker can read."""
    due(scheduler.app, "a")
    definition = client.hget("redbeat:a", "definition").replace('"tasks.a"', task)
    client.hset("redbeat:a", "definition", definition)
    scheduler.tick()
    assert sent == []
    assert score_of(client, "a") == -2


def test_an_entry_whose_run_count_is_not_a_number_is_set_aside(
    scheduler: RedBeatScheduler, client: Any, sent: list[str]
) -> None:
    """Its runs could never be counted."""
    due(scheduler.app, "a", total_run_count=1)
    meta = client.hget("redbeat:a", "meta").replace(": 1}", ': "many"}')
    client.hset("redbeat:a", "meta", meta)
    scheduler.tick()
    assert sent == []
    assert score_of(client, "a") == -2


@pytest.mark.parametrize("schedule", ["0", "-5", "1e-9", '{"__type__": "timedelta", "days": 0}'])
def test_an_interval_of_zero_seconds_or_less_is_set_aside(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], schedule: str
) -> None:
    """Whichever way another program wrote it, since it would run without a pause."""
    definition = f'{{"name": "a", "task": "tasks.a", "schedule": {schedule}}}'
    client.hset("redbeat:a", "definition", definition)
    client.zadd(SCHEDULE, {"redbeat:a": 0})
    scheduler.tick()
    scheduler.tick()
    assert sent == []
    (listing,) = Timetable(scheduler.app).set_aside()
    assert "its schedule must be more than 0 seconds, got" in listing.reason
    with pytest.raises(ValueError, match="more than 0 seconds"):
        RedBeatSchedulerEntry.from_key("redbeat:a", app=scheduler.app)


DAY = 86400


#: A slot that is past for some hours, while the next one is far.
SLOT = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)


DAILY = {"__type__": "crontab", "minute": "0", "hour": str(SLOT.hour)}


def test_an_entry_whose_history_cannot_be_written_affects_no_other(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """It is set aside."""

    class Broken(RedBeatSchedulerEntry):
        def encode_meta(self) -> str:
            if self.name == "c":
                raise RuntimeError("a bug")
            return super().encode_meta()

    due(scheduler.app, "a")
    write_bare(client, "c", DAILY, SLOT.timestamp())
    scheduler.Entry = Broken
    scheduler.tick()
    assert sent == ["tasks.a"]
    assert score_of(client, "c") == -2


def test_a_malformed_entry_that_is_due_later_is_logged_when_it_is_due(
    scheduler: RedBeatScheduler, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not on every tick before."""
    client.hset("redbeat:bad", "definition", "{not json")
    client.zadd(SCHEDULE, {"redbeat:bad": time.time() + 60})
    assert 58 < scheduler.tick() <= 60
    assert "redbeat:bad" not in caplog.text


def test_an_entry_that_needs_an_unavailable_service_is_not_set_aside(
    client_app: Celery, client: Any, sent: list[str]
) -> None:
    """An override that calls the service succeeds on a later tick."""

    class Asking(RedBeatSchedulerEntry):
        is_away = True

        def is_due(self) -> tuple[bool, float | None]:
            if Asking.is_away:
                raise ConnectionError("refused")
            return super().is_due()

    class Scheduler(RedBeatScheduler):
        Entry = Asking

    client_app.conf.redbeat_lock_key = None
    due(client_app, "a")
    scheduler = Scheduler(client_app)
    scheduler.tick()
    Asking.is_away = False
    scheduler.tick()
    assert sent == ["tasks.a"]


def test_an_entry_that_was_set_aside_runs_once_it_is_saved_again(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """The reason is removed."""
    client.hset("redbeat:a", "definition", "{not json")
    client.zadd(SCHEDULE, {"redbeat:a": 1})
    scheduler.tick()
    due(scheduler.app, "a")
    assert not client.hexists("redbeat:a", "set_aside")
    scheduler.tick()
    assert sent == ["tasks.a"]


def test_an_entry_that_was_set_aside_runs_once_its_definition_changes(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Also when only the hash is written, as other languages do."""
    scheduler.app.redbeat_conf.poll_interval = 0
    good = due(scheduler.app, "a").encode_definition()
    client.hset("redbeat:a", "definition", "{not json")
    scheduler.tick()
    scheduler.tick()
    assert score_of(client, "a") == -2
    client.hset("redbeat:a", "definition", good)
    scheduler.tick()
    scheduler.tick()
    assert sent == ["tasks.a"]
    assert not client.hexists("redbeat:a", "set_aside")


def test_entries_that_are_set_aside_are_tried_in_turn(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], monkeypatch: Any
) -> None:
    """Whichever entry is repaired is found within one round of pages."""
    monkeypatch.setattr("redbeat.beat.claims.SET_ASIDE_PAGE", 2)
    scheduler.app.redbeat_conf.poll_interval = 0
    good = {name: due(scheduler.app, name).encode_definition() for name in "abcde"}
    for name in good:
        client.hset(f"redbeat:{name}", "definition", "{not json")
    scheduler.tick()
    for name, definition in good.items():
        client.hset(f"redbeat:{name}", "definition", definition)
        for _ in range(4):
            scheduler.tick()
        assert sent.pop() == f"tasks.{name}"
    assert sent == []


def test_a_tick_reads_one_page_of_the_entries_that_are_set_aside(
    make_app_with: MakeApp, proxy: Proxy, monkeypatch: Any
) -> None:
    """However many there are; the next tick reads the next page."""
    monkeypatch.setattr("redbeat.beat.claims.SET_ASIDE_PAGE", 2)
    app = make_app_with(
        redbeat_redis_url=proxy.url(), redbeat_lock_key=None, redbeat_poll_interval=0.001
    )
    scheduler = RedBeatScheduler(app)
    for name in "abcde":
        due(app, name)
        get_redis(app).hset(f"redbeat:{name}", "definition", "{not json")
    scheduler.tick()
    looks = []
    for _ in range(3):
        with proxy.counting() as traffic:
            scheduler.tick()
        looks.append([words[1] for words in traffic.commands if words[0] == "HMGET"])
    assert sorted(map(len, looks)) == [1, 2, 2]
    assert sorted(key for look in looks for key in look) == [f"redbeat:{name}" for name in "abcde"]
