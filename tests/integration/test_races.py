"""What happens between two steps of a change: answers that get lost, and edits by others."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry, Timetable
from redbeat.errors import EntryError
from redbeat.schedulers import get_storage
from support.apps import MakeApp
from support.losing import LosingClient, losing_client
from support.servers import RedisServer
from support.wire import Proxy

SCHEDULE = "redbeat::schedule"


@pytest.fixture
def losing(redis_server: RedisServer) -> Iterator[LosingClient]:
    """A client whose connection breaks when it is told to."""
    with contextlib.closing(losing_client(redis_server)) as client:
        yield client


@pytest.fixture
def losing_app(make_app_with: MakeApp, losing: LosingClient) -> Celery:
    """An application that talks to Redis by that client."""
    app = make_app_with(redbeat_redis_url="redis://injected.invalid/0")
    app.redbeat_redis = losing
    return app


def make(app: Celery, name: str, every: float = 3600, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, "tasks.add", schedule(every), app=app, **fields)


@pytest.mark.parametrize("is_in_schedule", [True, False], ids=["whole", "without its place"])
def test_an_entry_that_was_there_is_removed_without_an_error_though_the_answer_is_lost(
    losing_app: Celery, losing: LosingClient, redis_client: redis.Redis, is_in_schedule: bool
) -> None:
    """The second try finds nothing to remove: that there was an entry is known from before."""
    timetable = Timetable(losing_app)
    make(losing_app, "one").save()
    make(losing_app, "other").save()
    del timetable["other"]
    if not is_in_schedule:
        redis_client.zrem(SCHEDULE, "redbeat:one")
    losing.losses = 1
    del timetable["one"]
    assert losing.losses == 0
    assert not redis_client.exists("redbeat:one")
    with pytest.raises(KeyError, match="one"):
        del timetable["one"]


def test_a_name_without_an_entry_is_told_though_the_answer_is_lost(
    losing_app: Celery, losing: LosingClient
) -> None:
    """A try that broke off is no reason to believe that there was one."""
    losing.losses = 1
    with pytest.raises(KeyError, match="none"):
        del Timetable(losing_app)["none"]


def test_the_place_of_an_entry_whose_hash_is_gone_is_removed(
    client_app: Celery, client: redis.Redis
) -> None:
    client.zadd(SCHEDULE, {"redbeat:gone": 1})
    del Timetable(client_app)["gone"]
    assert client.zscore(SCHEDULE, "redbeat:gone") is None


class Watched(RedBeatSchedulerEntry):
    """An entry that tells when it was read, so that others can act before it is stored."""

    after_reading: ClassVar[list[Callable[[], Any]]] = []

    @classmethod
    def from_stored(cls, key: str, stored: Any, app: Any = None) -> RedBeatSchedulerEntry:
        """Read it, and let one of the others act."""
        entry = super().from_stored(key, stored, app)
        if cls.after_reading:
            cls.after_reading.pop(0)()
        return entry


@pytest.fixture
def others() -> Iterator[list[Callable[[], Any]]]:
    """What others do, one after each reading of a `Watched` entry."""
    yield Watched.after_reading
    Watched.after_reading.clear()


@pytest.fixture
def watched(client_app: Celery) -> Timetable:
    """A schedule with an entry that has run, in which readings are watched."""
    make(client_app, "one", args=[1], total_run_count=3).save()
    return Timetable(client_app, Watched)


def test_pausing_loses_no_edit_that_another_program_makes_meanwhile(
    client_app: Celery, watched: Timetable, others: list[Callable[[], Any]]
) -> None:
    """Nor does resuming; however often others are in between."""
    others += [lambda: make(client_app, "one", args=[2], every=7200).save()]
    watched.pause("one")
    entry = Timetable(client_app)["one"]
    assert (entry.args, entry.schedule.seconds, entry.enabled) == ([2], 7200, False)
    others += [
        lambda: make(client_app, "one", args=[3], enabled=False).save(),
        lambda: make(client_app, "one", args=[4], enabled=False).save(),
    ]
    watched.resume("one")
    entry = Timetable(client_app)["one"]
    assert (entry.args, entry.enabled, entry.total_run_count) == ([4], True, 3)


def test_pausing_does_not_bring_back_what_is_deleted_meanwhile(
    client_app: Celery, watched: Timetable, others: list[Callable[[], Any]], client: redis.Redis
) -> None:
    """The others that were named are paused all the same."""
    make(client_app, "two").save()
    others += [lambda: Timetable(client_app).pop("one")]
    with pytest.raises(KeyError, match="one"):
        watched.pause("one", "two")
    assert not client.exists("redbeat:one")
    assert [listing.name for listing in watched.paused()] == ["two"]


def test_a_run_that_is_recorded_meanwhile_counts(
    client_app: Celery, watched: Timetable, others: list[Callable[[], Any]]
) -> None:
    """The next due time is that after the last run."""
    others += [lambda: Timetable(client_app)["one"].next()]
    watched.pause("one")
    entry = Timetable(client_app)["one"]
    assert (entry.total_run_count, entry.enabled) == (4, False)


def test_nothing_is_paused_if_one_of_the_names_is_unknown(
    client_app: Celery, watched: Timetable
) -> None:
    with pytest.raises(KeyError, match="none"):
        watched.pause("one", "none")
    assert watched["one"].enabled


def test_an_edit_whose_answer_is_lost_is_made_once(
    losing_app: Celery, losing: LosingClient
) -> None:
    """It finds its own definition the second time, and does not change it again."""
    timetable = Timetable(losing_app)
    timetable["one"] = make(losing_app, "one", args=[1])
    losing.losses = 1
    timetable.edit(["one"], lambda entry: entry.args.append(2))
    assert losing.losses == 0
    assert timetable["one"].args == [1, 2]


def test_an_edit_does_not_rename(client_app: Celery, watched: Timetable) -> None:
    """Under another name it would be another entry."""

    def rename(entry: RedBeatSchedulerEntry) -> None:
        entry.name, entry.args = "two", [2]

    watched.edit(["one"], rename)
    assert {name: entry.args for name, entry in watched.items()} == {"one": [2]}


def test_an_edit_of_what_cannot_be_read_is_refused_by_name(
    client_app: Celery, watched: Timetable, client: redis.Redis
) -> None:
    client.hset("redbeat:torn", "definition", "{")
    with pytest.raises(EntryError, match="'torn' cannot be read"):
        watched.pause("one", "torn")
    assert watched["one"].enabled


def test_an_edit_that_cannot_be_stored_changes_nothing(
    client_app: Celery, watched: Timetable
) -> None:
    make(client_app, "two", args=[2]).save()

    def spoil(entry: RedBeatSchedulerEntry) -> None:
        entry.args = [object()] if entry.name == "two" else [5]

    with pytest.raises(EntryError, match="two"):
        watched.edit(["one", "two"], spoil)
    assert watched["one"].args == [1]


def test_an_entry_with_a_save_of_its_own_is_edited_by_it(client_app: Celery) -> None:
    """What else that save stores is not lost."""
    saved = []

    class Entry(RedBeatSchedulerEntry):
        def save(self) -> RedBeatSchedulerEntry:
            saved.append((self.name, self.enabled))
            return super().save()

    make(client_app, "one").save()
    Timetable(client_app, Entry).pause("one")
    assert saved == [("one", False)]
    assert not Timetable(client_app)["one"].enabled


def test_only_a_name_that_is_free_is_added(client_app: Celery, client: redis.Redis) -> None:
    """Another one's entry stays as it is."""
    timetable = Timetable(client_app)
    assert timetable.add("one", {"task": "tasks.add", "schedule": 60, "args": [1]})
    before = client.hgetall("redbeat:one"), client.zscore(SCHEDULE, "redbeat:one")
    assert not timetable.add("one", {"task": "tasks.add", "schedule": 30, "args": [2]})
    assert (client.hgetall("redbeat:one"), client.zscore(SCHEDULE, "redbeat:one")) == before
    assert timetable.setdefault("one", {"task": "tasks.add", "schedule": 30}).args == [1]
    assert timetable.setdefault("two", {"task": "tasks.add", "schedule": 30}).schedule.seconds == 30


def test_an_entry_is_not_added_twice_though_both_are_equal(
    client_app: Celery, client: redis.Redis
) -> None:
    """The second one who asks learns that the name was taken, be the entry paused or not."""
    timetable = Timetable(client_app)
    fields = {"task": "tasks.add", "schedule": 60, "enabled": False}
    assert timetable.add("one", fields)
    before = client.hgetall("redbeat:one"), client.zscore(SCHEDULE, "redbeat:one")
    assert not timetable.add("one", fields)
    assert (client.hgetall("redbeat:one"), client.zscore(SCHEDULE, "redbeat:one")) == before


def test_an_addition_that_another_one_forestalls_replaces_nothing(
    client_app: Celery, others: list[Callable[[], Any]]
) -> None:
    """Though the name was free when it was looked up."""

    class Forestalled(RedBeatSchedulerEntry):
        def encode_definition(self) -> str:
            if others:
                others.pop()()
            return super().encode_definition()

    others += [lambda: make(client_app, "one", args=[1]).save()]
    timetable = Timetable(client_app, Forestalled)
    assert not timetable.add("one", {"task": "tasks.add", "schedule": 60})
    assert timetable["one"].args == [1]


def test_a_name_is_free_of_which_only_the_runs_are_known(
    client_app: Celery, client: redis.Redis
) -> None:
    """They count: no definition is no entry."""
    client.hset("redbeat:one", "meta", '{"last_run_at": null, "total_run_count": 2}')
    assert Timetable(client_app).add("one", {"task": "tasks.add", "schedule": 60})
    assert Timetable(client_app)["one"].name == "one"


def test_an_addition_whose_answer_is_lost_is_no_other_one(
    losing_app: Celery, losing: LosingClient
) -> None:
    timetable = Timetable(losing_app)
    assert timetable.add("other", {"task": "tasks.add", "schedule": 60})
    losing.losses = 1
    assert timetable.add("one", {"task": "tasks.add", "schedule": 60})
    assert losing.losses == 0
    assert "one" in timetable


@pytest.mark.parametrize(
    ("act", "cost"),
    [
        (lambda timetable: timetable.pause("one", "two"), 2),
        (lambda timetable: timetable.edit(["one"], lambda entry: None), 2),
        (lambda timetable: timetable.edit([], lambda entry: None), 0),
        (lambda timetable: timetable.add("new", {"task": "t", "schedule": 60}), 2),
        (lambda timetable: timetable.add("one", {"task": "t", "schedule": 60}), 1),
        (lambda timetable: timetable.setdefault("one"), 1),
        (lambda timetable: timetable.setdefault("new", {"task": "t", "schedule": 60}), 3),
    ],
)
def test_each_change_costs_what_it_says(
    make_app_with: MakeApp, proxy: Proxy, act: Callable[[Timetable], Any], cost: int
) -> None:
    """Counted on the wire, once the server knows the scripts."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    timetable = Timetable(app)
    timetable.update({name: make(app, name) for name in ("one", "two")})
    with proxy.counting() as traffic:
        act(timetable)
    assert traffic.round_trips == cost


def test_each_topology_keeps_the_edits_of_others(
    topology_app: Celery, others: list[Callable[[], Any]]
) -> None:
    """In one step or, in a cluster without a hash tag, in two."""
    timetable = Timetable(topology_app, Watched)
    assert timetable.add("one", make(topology_app, "one", args=[1]))
    assert not timetable.add("one", make(topology_app, "one", args=[2]))
    others += [lambda: make(topology_app, "one", args=[3]).save()]
    timetable.pause("one")
    assert (timetable["one"].args, timetable["one"].enabled) == ([3], False)
    storage, gone = get_storage(topology_app), make(topology_app, "gone").key
    storage.notes.write_owner([gone, timetable["one"].key], "proj")
    del timetable["one"]
    with pytest.raises(KeyError, match="one"):
        del timetable["one"]
    assert not storage.is_stored(gone)


def test_each_topology_keeps_what_was_stored_anew_since_it_was_listed(
    topology_app: Celery,
) -> None:
    """Where an entry and the schedule are in two slots as well."""
    timetable = Timetable(topology_app)
    timetable.update({name: make(topology_app, name) for name in ("one", "two")})
    listed = list(timetable.listings())
    timetable["one"] = make(topology_app, "one", args=[1])
    assert timetable.discard(listed) == ["two"]
    assert list(timetable) == ["one"]
    assert not get_storage(topology_app).is_stored(make(topology_app, "two").key)
