"""Two applications on one Redis with one prefix, on each kind of storage."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedulers import get_storage
from redbeat.store.topology import SCRIPT_ENTRIES
from support.wire import Proxy

MINE = {"mine": {"task": "tasks.mine", "schedule": 30}}
YOURS = {"yours": {"task": "tasks.yours", "schedule": 30}}

Start = Callable[..., RedBeatScheduler]


@pytest.fixture
def start(client: redis.Redis) -> Start:
    """Start a beat of an application of this name with this `beat_schedule`."""

    def start(main: str | None, beat_schedule: dict[str, Any], **settings: Any) -> RedBeatScheduler:
        app = Celery(main, set_as_current=False)
        app.conf.update(
            {
                "broker_url": "memory://",
                "result_expires": None,
                "redbeat_redis_url": "redis://injected.invalid/0",
                "redbeat_lock_key": None,
                "beat_schedule": beat_schedule,
            }
            | settings
        )
        app.redbeat_redis = client
        scheduler = RedBeatScheduler(app)
        scheduler.tick()
        return scheduler

    return start


def statics(client: redis.Redis) -> set[str]:
    members: Any = client.smembers("redbeat::statics")
    return set(members)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and "prefix" in record.getMessage()
    ]


def test_the_static_entries_of_another_application_are_left_alone(
    start: Start, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """However often they start; each warning names both applications, and says what to do."""
    for _ in range(2):
        start("one", MINE)
        start("other", YOURS)
    assert statics(client) == {"mine", "yours"}
    assert client.exists("redbeat:mine", "redbeat:yours") == 2
    warnings = warnings_in(caplog)
    assert len(warnings) == 3
    for word in ("'mine'", "'one'", "'other'", "'redbeat:'", "redbeat_key_prefix"):
        assert word in warnings[0]


def test_an_application_removes_its_own_old_static_entries(
    start: Start, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Owning an entry is not a reason to keep it."""
    start("one", MINE)
    start("other", YOURS)
    start("one", {})
    assert statics(client) == {"yours"}
    assert not client.exists("redbeat:mine")


@pytest.mark.parametrize("main", ["one", None, "__main__"])
def test_old_static_entries_without_an_owner_are_removed(
    start: Start, client: redis.Redis, main: str | None
) -> None:
    """2.x or an application without a name stored them."""
    client.sadd("redbeat::statics", "old")
    client.hset("redbeat:old", "definition", "{}")
    client.zadd("redbeat::schedule", {"redbeat:old": 5})
    start(None, YOURS)
    start(main, MINE)
    assert statics(client) == {"mine"}
    assert not client.exists("redbeat:old", "redbeat:yours")


def test_an_application_without_a_name_owns_nothing(start: Start, client: redis.Redis) -> None:
    """Nor does it take entries from their owner."""
    start("one", MINE)
    start(None, YOURS)
    assert statics(client) == {"mine", "yours"}
    assert client.hget("redbeat:mine", "owner") == "one"
    assert client.hget("redbeat:yours", "owner") is None


def test_an_entry_of_both_applications_belongs_to_the_last_one_that_wrote_it(
    start: Start, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, except for the entries that Celery adds to every application."""
    both: dict[str, Any] = {"mine": {"task": "tasks.other", "schedule": 30}}
    start("one", MINE, result_expires=60)
    start("other", both, result_expires=60)
    assert client.hget("redbeat:mine", "owner") == "other"
    (warning,) = warnings_in(caplog)
    assert "starts last overwrites" in warning
    assert "celery.backend_cleanup" not in warning
    start("one", {}, result_expires=None)
    assert client.exists("redbeat:mine", "redbeat:celery.backend_cleanup") == 2


def test_the_owner_is_stored_where_2x_does_not_look(start: Start, client: redis.Redis) -> None:
    """Neither in the definition nor in meta; saving the entry again keeps it."""
    app = start("one", MINE).app
    entry = RedBeatSchedulerEntry.from_key("redbeat:mine", app=app)
    entry.save()
    fields: Any = client.hgetall("redbeat:mine")
    assert set(fields) == {"definition", "meta", "owner"}
    assert "owner" not in fields["definition"] + fields["meta"]


def test_an_entry_that_cannot_be_built_gets_no_owner(start: Start, client: redis.Redis) -> None:
    """A hash with nothing else in it would not be an entry."""
    start("one", {"bad": {"schedule": 30}, **MINE})
    assert not client.exists("redbeat:bad")


def test_a_restored_static_entry_gets_its_owner_back(start: Start, client: redis.Redis) -> None:
    """The one from when it was first stored."""
    scheduler = start("one", MINE)
    client.delete("redbeat:mine")
    client.zadd("redbeat::schedule", {"redbeat:mine": 1})
    scheduler.tick()
    assert client.hget("redbeat:mine", "owner") == "one"


def test_a_key_that_is_not_an_entry_has_no_owner(client_app: Celery, client: redis.Redis) -> None:
    """Whatever is stored there."""
    client.set("redbeat:text", "x")
    client.hset("redbeat:half", "owner", "one")
    client.hset("redbeat:whole", mapping={"definition": "{}", "owner": "one"})
    storage = get_storage(client_app)
    keys = ["redbeat:text", "redbeat:half", "redbeat:whole", "redbeat:none"]
    assert storage.notes.read_owners(keys) == {"redbeat:whole": "one"}
    assert storage.notes.read_owners([]) == {}


def test_naming_the_owner_of_a_deleted_entry_does_not_create_a_hash(
    client_app: Celery, client: redis.Redis
) -> None:
    """A hash with an owner and no definition is not an entry; others get their owner."""
    client.hset("redbeat:whole", "definition", "{}")
    client.hset("redbeat:half", "meta", "{}")
    get_storage(client_app).notes.write_owner(
        ["redbeat:gone", "redbeat:whole", "redbeat:half"], "one"
    )
    assert not client.exists("redbeat:gone")
    assert client.hget("redbeat:whole", "owner") == "one"
    assert client.hgetall("redbeat:half") == {"meta": "{}"}


def test_naming_owners_costs_one_round_trip(make_app_with: Any, proxy: Proxy) -> None:
    """However many entries there are; none without entries."""
    storage = get_storage(make_app_with(redbeat_redis_url=proxy.url()))
    storage.notes.write_owner(["redbeat:none"], "one")
    with proxy.counting() as traffic:
        storage.notes.write_owner([], "one")
        assert traffic.round_trips == 0
        storage.notes.write_owner(
            [f"redbeat:{number}" for number in range(SCRIPT_ENTRIES + 1)], "one"
        )
    assert traffic.round_trips == 1
