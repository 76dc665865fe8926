"""What beat logs about an entry that fails on every run, or a server that refuses commands."""

import logging
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat import repeats
from redbeat.beat.repeats import Repeats
from support.apps import MakeApp
from support.permissions import EVERYTHING, guard
from support.servers import RedisServer, StartRedis
from support.unrecorded import send_unrecorded

DUE = 1_000_000_000
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)

Told = Callable[[int], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """The messages of a level, or of all above debug, since it was last asked for all of them."""
    caplog.set_level(logging.DEBUG, logger="celery.beat")

    def messages(level: int) -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno == level]

    return messages


def make_due(app: Celery, name: str) -> None:
    app.redbeat_redis.zadd("redbeat::schedule", {f"redbeat:{name}": DUE})


def save(app: Celery, name: str, **fields: Any) -> RedBeatSchedulerEntry:
    entry = RedBeatSchedulerEntry(name, "tasks.a", 1, app=app, **fields).save()
    entry.reschedule(LONG_AGO)
    return entry


def test_a_message_that_fails_on_every_run_is_logged_once_an_hour(
    scheduler: RedBeatScheduler, told: Told
) -> None:
    """In one line at error; in between, and with tracebacks, at debug. Each entry has its own."""
    clock = [0.0]
    scheduler.redbeat_parts.log.clock = lambda: clock[0]
    names = ("bad", "worse")
    for _ in range(3):
        for name in names:
            save(scheduler.app, name, options={"serializer": "clay"})
        scheduler.tick()
    first = told(logging.ERROR)
    assert [line for line in first if not line.startswith("Scheduler: Message Error: ")] == []
    assert len(first) == 2
    assert not any("\n" in line or len(line) > 300 for line in first)
    assert len([m for m in told(logging.DEBUG) if m.startswith("Scheduler: Message Error: ")]) == 4
    clock[0] = repeats.SILENCE
    save(scheduler.app, "bad", options={"serializer": "clay"})
    scheduler.tick()
    assert len(told(logging.ERROR)) == 3


def test_tracebacks_are_logged_at_debug(
    scheduler: RedBeatScheduler, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """Also the first time."""
    save(scheduler.app, "bad", options={"serializer": "clay"})
    scheduler.app.redbeat_redis.hset("redbeat:broken", "definition", "{")
    make_due(scheduler.app, "broken")
    scheduler.tick()
    with_traceback = [record for record in caplog.records if record.exc_info]
    assert len(with_traceback) == 2
    assert {record.levelno for record in with_traceback} == {logging.DEBUG}
    assert len(told(logging.ERROR)) == 2


def test_an_unreadable_entry_is_logged_once_until_it_changes(
    scheduler: RedBeatScheduler, told: Told
) -> None:
    """However often beat meets it."""
    client = scheduler.app.redbeat_redis
    for definition in ("{", "[", "["):
        for _ in range(3):
            client.hset("redbeat:broken", "definition", definition)
            make_due(scheduler.app, "broken")
            scheduler.tick()
    lines = [line for line in told(logging.ERROR) if "Set aside redbeat:broken" in line]
    assert len(lines) == len(told(logging.ERROR)) == 2
    for _ in range(3):
        make_due(scheduler.app, "broken")
        assert scheduler.schedule == {}
    assert len(told(logging.ERROR)) == 3


def test_an_override_that_fails_every_time_is_logged_once(
    scheduler: RedBeatScheduler, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example one that calls a service that is unavailable."""

    def away(self: Any, entry: Any, **kwargs: Any) -> None:
        raise ConnectionRefusedError("away")

    save(scheduler.app, "a")
    monkeypatch.setattr(RedBeatScheduler, "maybe_due", away)
    for _ in range(3):
        make_due(scheduler.app, "a")
        scheduler.tick()
    (line,) = told(logging.ERROR)
    assert "did not run, trying again" in line


def test_what_was_logged_is_remembered_within_bounds(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is forgotten, and logged again."""
    monkeypatch.setattr(repeats, "MOST_REMEMBERED", 2)
    log = Repeats(logging.getLogger("celery.beat"), lambda: 0.0)
    for about in ("a", "b", "a", "c", "b", "a"):
        log.error(about, ValueError(about), "%s", about)
    assert told(logging.ERROR) == ["a", "b", "c", "a"]


RULES = {
    f"{EVERYTHING} -zadd": r"claim the due entries \(redbeat::schedule\), and says: .*\(ZADD\)",
    "%R~redbeat:* ~redbeat::lock* &* +@all": r"claim the due entries \(redbeat::schedule\), and",
    f"{EVERYTHING} -hset": r"record runs \(redbeat:a\).*\(HSET\)",
}


@pytest.mark.parametrize("rules", RULES)
def test_a_refused_script_is_described_by_what_it_does_and_to_which_key(
    rules: str, start_redis: StartRedis, make_app_with: MakeApp, told: Told
) -> None:
    """Not by its digest."""
    users = guard(start_redis(), rules)
    save(make_app_with(redbeat_redis_url=users.admin_url), "a")
    app = make_app_with(redbeat_redis_url=users.guest_url)
    scheduler = RedBeatScheduler(app)
    scheduler.lock_key = None
    scheduler.tick()
    lines = "\n".join(told(logging.ERROR))
    assert re.search(f"Redis refused to .*{RULES[rules]}", lines)
    assert not re.search(r"\b[0-9a-f]{40}\b", lines)


def test_a_script_that_meets_a_key_of_another_type_is_described_likewise(
    app: Celery, redis_client: redis.Redis
) -> None:
    redis_client.set("redbeat::schedule", "text")
    with pytest.raises(redis.ResponseError, match=r"store entries \(redbeat:a, redbeat::schedule"):
        RedBeatSchedulerEntry("a", "t", 1, app=app).save()


def test_a_lost_connection_to_the_broker_is_described_in_words(
    make_app_with: MakeApp, redis_url: str, start_redis: StartRedis, told: Told
) -> None:
    """On each try, whatever error kombu raises."""
    broker = start_redis()
    app = make_app_with(redbeat_redis_url=redis_url, broker_url=broker.url())
    scheduler = RedBeatScheduler(app)
    scheduler.lock_key = None
    save(app, "a")
    scheduler.tick()
    broker.stop()
    for _ in range(4):
        save(app, "a")
        save(app, "b")
        scheduler.tick()
    lines = told(logging.ERROR)
    assert len(lines) >= 4
    assert not [line for line in lines if "NoneType" in line or "()" in line]
    scheduler.close()


def test_a_closed_channel_to_the_broker_is_described_in_words(
    make_app_with: MakeApp,
    redis_url: str,
    redis_server: RedisServer,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kombu raises an `AttributeError` about `None`, where it sends messages itself."""
    send_unrecorded(monkeypatch)

    class Closing(RedBeatScheduler):
        def send_task(self, *args: Any, **options: Any) -> Any:
            channel = options["producer"].channel
            channel.close()
            with channel.conn_or_acquire():
                return super().send_task(*args, **options)

    app = make_app_with(redbeat_redis_url=redis_url, broker_url=redis_server.url(1))
    scheduler = Closing(app)
    scheduler.lock_key = None
    save(app, "a")
    scheduler.tick()
    (line,) = told(logging.ERROR)
    assert "(the connection was lost)" in line
    scheduler.close()
