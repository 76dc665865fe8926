"""Names whose keys are ours: an entry of such a name would overwrite the schedule itself."""

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
def test_an_entry_at_a_key_of_ours_is_refused_by_name_and_nothing_changes(
    timetable: Timetable, client: redis.Redis, act: Any, name: str
) -> None:
    before = state(client)
    with pytest.raises(EntryError, match=f"'{name}' can be neither stored nor removed.*redbeat:"):
        act(timetable, name)
    assert state(client) == before


@pytest.mark.parametrize("name", OWN_NAMES)
def test_no_key_of_ours_is_an_entry(timetable: Timetable, name: str) -> None:
    assert name not in timetable
    assert not get_storage(timetable.app).is_stored(f"redbeat:{name}")


def test_the_key_of_a_lock_that_was_set_is_ours_and_the_default_one_then_is_free(
    make_app_with: Any, redis_url: str
) -> None:
    app = make_app_with(redbeat_redis_url=redis_url, redbeat_lock_key="leader")
    timetable = Timetable(app)
    with pytest.raises(EntryError, match="'leader'"):
        timetable["leader"] = FIELDS
    timetable[":lock"] = FIELDS
    assert list(timetable) == [":lock"]


def test_a_static_entry_at_a_key_of_ours_is_left_out_and_does_no_harm_when_it_goes(
    timetable: Timetable, client_app: Celery, client: redis.Redis
) -> None:
    """Beat removes what `beat_schedule` has no more: not the schedule itself."""
    client_app.conf.beat_schedule = {":schedule": FIELDS, "one": FIELDS}
    RedBeatScheduler(client_app, lazy=True).setup_schedule()
    client_app.conf.beat_schedule = {"one": FIELDS}
    RedBeatScheduler(client_app, lazy=True).setup_schedule()
    assert "one" in set(timetable)
    assert ":schedule" not in client.smembers("redbeat::statics")


def test_clearing_ends_and_spares_our_keys_where_the_schedule_has_one_as_a_member(
    timetable: Timetable, client: redis.Redis
) -> None:
    """Others may have written it."""
    client.zadd(SCHEDULE, {"redbeat::reports": 1})
    timetable.clear()
    assert not timetable
    assert client.exists("redbeat::reports")


def test_to_look_for_our_keys_costs_nothing(make_app_with: Any, proxy: Proxy) -> None:
    """Nor does a refusal."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    with proxy.counting() as traffic:
        with pytest.raises(EntryError):
            make(app, ":statics").save()
        assert ":statics" not in Timetable(app)
    assert traffic.round_trips == 0
