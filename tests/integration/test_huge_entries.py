"""Entries that are far too large cause an error that names them, little work, and no other harm."""

import json
import logging
from datetime import datetime, timezone
from typing import Any

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.entries import LONGEST_FIELD
from support.counting import calls_of

SCHEDULE = "redbeat::schedule"
SIZE = 50_000_000

#: Function calls at most in two ticks that look at such an entry.
MOST_CALLS = 200_000

INTERVAL = {"__type__": "interval", "every": 60}


def definition(name: str, **fields: Any) -> str:
    return json.dumps({"name": name, "task": f"tasks.{name}", "schedule": INTERVAL} | fields)


HUGE: dict[str, dict[str, str]] = {
    "argument": {"definition": definition("huge", args=["x" * SIZE])},
    "garbage": {"definition": "x" * SIZE},
    "brackets": {"definition": "[" * SIZE},
    "objects": {"definition": "[" + "{}," * (SIZE // 3) + "{}]"},
    "digits": {"definition": '{"args": ' + "9" * SIZE + "}"},
    "meta": {"definition": definition("huge"), "meta": "[" * SIZE},
}

DEEP: dict[str, dict[str, str]] = {
    "lists": {"definition": "[" * 100_000},
    "objects": {"definition": '{"args":' * 100_000},
    "closed": {"definition": definition("huge", args=[]).replace("[]", "[" * 10**5 + "]" * 10**5)},
    "meta": {"definition": definition("huge"), "meta": "[" * 100_000},
}

CASES = [pytest.param(fields, id=f"huge-{name}") for name, fields in HUGE.items()]
CASES += [pytest.param(fields, id=f"deep-{name}") for name, fields in DEEP.items()]


@pytest.fixture
def scheduler(app: Celery) -> RedBeatScheduler:
    app.conf.redbeat_lock_key = None
    return RedBeatScheduler(app)


def write_due(client: redis.Redis, name: str, **fields: str) -> None:
    values: dict[Any, Any] = dict(fields)
    client.hset(f"redbeat:{name}", mapping=values)
    client.zadd(SCHEDULE, {f"redbeat:{name}": 0})


@pytest.mark.parametrize("fields", CASES)
def test_other_entries_run_beside_one_that_is_too_large_or_too_deep(
    fields: dict[str, str],
    scheduler: RedBeatScheduler,
    sent: list[str],
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is set aside with a reason that fits in a log, and later ticks go on as well."""
    write_due(redis_client, "huge", **fields)
    for name in ("before", "beyond"):
        write_due(redis_client, name, definition=definition(name))
    with caplog.at_level(logging.ERROR, logger="celery.beat"):
        calls = calls_of(scheduler.tick) + calls_of(scheduler.tick)
    assert calls < MOST_CALLS
    assert sorted(sent) == ["tasks.before", "tasks.beyond"]
    assert redis_client.zscore(SCHEDULE, "redbeat:huge") == -2
    assert "redbeat:huge" in caplog.text
    assert len(caplog.text) < 20_000
    assert len(redis_client.hget("redbeat:huge", "set_aside") or "") in range(10, 2000)


def test_an_entry_that_is_too_large_is_refused_when_it_is_saved(
    app: Celery, redis_client: redis.Redis
) -> None:
    """By its key, with nothing written."""
    entry = RedBeatSchedulerEntry("huge", "tasks.a", 60, args=["x" * SIZE], app=app)
    with pytest.raises(ValueError, match=f"redbeat:huge is too large.*{LONGEST_FIELD}"):
        entry.save()
    assert redis_client.keys("*") == []


def test_an_entry_of_many_megabytes_still_runs(
    app: Celery, scheduler: RedBeatScheduler, sent: list[str], redis_client: redis.Redis
) -> None:
    """What fits is not refused."""
    entry = RedBeatSchedulerEntry("big", "tasks.big", 60, args=["x" * 30_000_000], app=app)
    entry.last_run_at = datetime(2024, 1, 1, tzinfo=timezone.utc)
    entry.save()
    scheduler.tick()
    assert sent == ["tasks.big"]
