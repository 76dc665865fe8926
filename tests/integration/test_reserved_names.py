"""Names whose keys redbeat uses itself: such an entry would overwrite the schedule."""

from typing import Any

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.beat.holder import new_token
from redbeat.errors import EntryError
from redbeat.schedulers import get_storage
from support.wire import Proxy

OWN_NAMES = [":schedule", ":statics", ":changed", ":reports", ":lock", ":zone", ":failing", ":lost"]
SCHEDULE = "redbeat::schedule"
FIELDS: dict[str, Any] = {"task": "tasks.add", "schedule": 60}


def make(app: Celery, name: str) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, **FIELDS, app=app)


@pytest.fixture
def timetable(client_app: Celery, client: redis.Redis) -> Timetable:
    """A schedule with an entry, at work: something is stored at each of our keys."""
    client.sadd("redbeat::statics", "one")
    client.hset("redbeat::reports", "host:1", "{}")
    client.set("redbeat::lock", new_token(30, 15))
    timetable = Timetable(client_app)
    timetable["one"] = FIELDS
    return timetable


def state(client: redis.Redis) -> list[Any]:
    return [
        client.zrange(SCHEDULE, 0, -1, withscores=True),
        client.smembers("redbeat::statics"),
        client.hgetall("redbeat::reports"),
        client.get("redbeat::lock"),
        sorted(client.keys("*")),
    ]


@pytest.mark.parametrize("name", OWN_NAMES)
@pytest.mark.parametrize(
    "act",
    [
        lambda timetable, name: timetable.__setitem__(name, FIELDS),
        lambda timetable, name: timetable.add(name, FIELDS),
        lambda timetable, name: timetable.update({"other": FIELDS, name: FIELDS}),
        lambda timetable, name: make(timetable.app, name).save(),
        lambda timetable, name: make(timetable.app, name).reschedule(),
        lambda timetable, name: timetable.__delitem__(name),
        lambda timetable, name: timetable.replace([], deleted=["one", name]),
        lambda timetable, name: make(timetable.app, name).delete(),
    ],
    ids=["set", "add", "update", "save", "reschedule", "del", "replace", "delete"],
)
def test_an_entry_with_a_reserved_name_is_refused_and_nothing_changes(
    timetable: Timetable, client: redis.Redis, act: Any, name: str
) -> None:
    before = state(client)
    with pytest.raises(EntryError, match=f"'{name}' can be neither stored nor removed.*redbeat:"):
        act(timetable, name)
    assert state(client) == before


@pytest.mark.parametrize("name", OWN_NAMES)
def test_no_reserved_key_is_an_entry(timetable: Timetable, name: str) -> None:
    assert name not in timetable
    assert not get_storage(timetable.app).is_stored(f"redbeat:{name}")


def test_a_configured_lock_key_is_reserved_in_place_of_the_default_one(
    make_app_with: Any, redis_url: str
) -> None:
    app = make_app_with(redbeat_redis_url=redis_url, redbeat_lock_key="leader")
    timetable = Timetable(app)
    with pytest.raises(EntryError, match="'leader'"):
        timetable["leader"] = FIELDS
    timetable[":lock"] = FIELDS
    assert list(timetable) == [":lock"]


def test_a_static_entry_with_a_reserved_name_is_left_out_and_its_removal_does_no_harm(
    timetable: Timetable, client_app: Celery, client: redis.Redis
) -> None:
    """Beat removes entries that are gone from `beat_schedule`, not the schedule itself."""
    client_app.conf.beat_schedule = {":schedule": FIELDS, "one": FIELDS}
    RedBeatScheduler(client_app, lazy=True).setup_schedule()
    client_app.conf.beat_schedule = {"one": FIELDS}
    RedBeatScheduler(client_app, lazy=True).setup_schedule()
    assert "one" in set(timetable)
    assert ":schedule" not in client.smembers("redbeat::statics")


def test_clearing_ends_and_spares_reserved_keys_in_the_schedule(
    timetable: Timetable, client: redis.Redis
) -> None:
    """Any program may have added such a member."""
    client.zadd(SCHEDULE, {"redbeat::reports": 1})
    timetable.clear()
    assert not timetable
    assert client.exists("redbeat::reports")


def test_checking_for_reserved_names_costs_no_round_trips(make_app_with: Any, proxy: Proxy) -> None:
    """Neither does a refusal."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    with proxy.counting() as traffic:
        with pytest.raises(EntryError):
            make(app, ":statics").save()
        assert ":statics" not in Timetable(app)
    assert traffic.round_trips == 0
