"""What happens between two steps of a change: lost answers, and edits by other programs."""

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
    """A client whose connection breaks on demand."""
    with contextlib.closing(losing_client(redis_server)) as client:
        yield client


@pytest.fixture
def losing_app(make_app_with: MakeApp, losing: LosingClient) -> Celery:
    """An application that reaches Redis through that client."""
    app = make_app_with(redbeat_redis_url="redis://injected.invalid/0")
    app.redbeat_redis = losing
    return app


def make(app: Celery, name: str, every: float = 3600, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, "tasks.add", schedule(every), app=app, **fields)


@pytest.mark.parametrize("is_in_schedule", [True, False], ids=["whole", "without its place"])
def test_an_entry_is_removed_without_an_error_even_if_the_answer_is_lost(
    losing_app: Celery, losing: LosingClient, redis_client: redis.Redis, is_in_schedule: bool
) -> None:
    """The second try finds nothing to remove, but it is known that there was an entry."""
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


def test_a_missing_entry_is_reported_even_if_the_answer_is_lost(
    losing_app: Celery, losing: LosingClient
) -> None:
    """A first try that failed does not mean that there was one."""
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
    """An entry that lets others act after it was read and before it is stored."""

    after_reading: ClassVar[list[Callable[[], Any]]] = []

    @classmethod
    def from_stored(cls, key: str, stored: Any, app: Any = None) -> RedBeatSchedulerEntry:
        """Read the entry, and let one of the others act."""
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


def test_pausing_keeps_the_edits_that_other_programs_make_meanwhile(
    client_app: Celery, watched: Timetable, others: list[Callable[[], Any]]
) -> None:
    """So does resuming, however often others come in between."""
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
    """The other entries are paused all the same."""
    make(client_app, "two").save()
    others += [lambda: Timetable(client_app).pop("one")]
    with pytest.raises(KeyError, match="one"):
        watched.pause("one", "two")
    assert not client.exists("redbeat:one")
    assert [listing.name for listing in watched.paused()] == ["two"]


def test_a_run_that_is_recorded_meanwhile_counts(
    client_app: Celery, watched: Timetable, others: list[Callable[[], Any]]
) -> None:
    """The next due time follows from the last run."""
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
    """With another name it would be another entry."""

    def rename(entry: RedBeatSchedulerEntry) -> None:
        entry.name, entry.args = "two", [2]

    watched.edit(["one"], rename)
    assert {name: entry.args for name, entry in watched.items()} == {"one": [2]}


def test_an_edit_of_an_unreadable_entry_is_refused_by_name(
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


def test_an_entry_with_its_own_save_is_edited_by_it(client_app: Celery) -> None:
    """Whatever else its save stores is not lost."""
    saved = []

    class Entry(RedBeatSchedulerEntry):
        def save(self) -> RedBeatSchedulerEntry:
            saved.append((self.name, self.enabled))
            return super().save()

    make(client_app, "one").save()
    Timetable(client_app, Entry).pause("one")
    assert saved == [("one", False)]
    assert not Timetable(client_app)["one"].enabled


def test_only_a_free_name_is_added(client_app: Celery, client: redis.Redis) -> None:
    """An existing entry stays as it is."""
    timetable = Timetable(client_app)
    assert timetable.add("one", {"task": "tasks.add", "schedule": 60, "args": [1]})
    before = client.hgetall("redbeat:one"), client.zscore(SCHEDULE, "redbeat:one")
    assert not timetable.add("one", {"task": "tasks.add", "schedule": 30, "args": [2]})
    assert (client.hgetall("redbeat:one"), client.zscore(SCHEDULE, "redbeat:one")) == before
    assert timetable.setdefault("one", {"task": "tasks.add", "schedule": 30}).args == [1]
    assert timetable.setdefault("two", {"task": "tasks.add", "schedule": 30}).schedule.seconds == 30


def test_an_entry_is_not_added_twice_even_if_both_are_equal(
    client_app: Celery, client: redis.Redis
) -> None:
    """The second caller is told that the name is taken."""
    timetable = Timetable(client_app)
    fields = {"task": "tasks.add", "schedule": 60, "enabled": False}
    assert timetable.add("one", fields)
    before = client.hgetall("redbeat:one"), client.zscore(SCHEDULE, "redbeat:one")
    assert not timetable.add("one", fields)
    assert (client.hgetall("redbeat:one"), client.zscore(SCHEDULE, "redbeat:one")) == before


def test_an_addition_that_comes_second_replaces_nothing(
    client_app: Celery, others: list[Callable[[], Any]]
) -> None:
    """Even if the name was free when it was looked up."""

    class Second(RedBeatSchedulerEntry):
        def encode_definition(self) -> str:
            if others:
                others.pop()()
            return super().encode_definition()

    others += [lambda: make(client_app, "one", args=[1]).save()]
    timetable = Timetable(client_app, Second)
    assert not timetable.add("one", {"task": "tasks.add", "schedule": 60})
    assert timetable["one"].args == [1]


def test_a_name_is_free_if_only_its_runs_are_stored(
    client_app: Celery, client: redis.Redis
) -> None:
    """Without a definition there is no entry."""
    client.hset("redbeat:one", "meta", '{"last_run_at": null, "total_run_count": 2}')
    assert Timetable(client_app).add("one", {"task": "tasks.add", "schedule": 60})
    assert Timetable(client_app)["one"].name == "one"


def test_an_addition_whose_answer_is_lost_is_not_taken_for_another(
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
def test_each_change_costs_as_many_round_trips_as_documented(
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
    """In one step, or in two in a cluster without a hash tag."""
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


def test_each_topology_keeps_what_was_saved_since_it_was_listed(
    topology_app: Celery,
) -> None:
    """Also where an entry and the schedule are in two slots."""
    timetable = Timetable(topology_app)
    timetable.update({name: make(topology_app, name) for name in ("one", "two")})
    listed = list(timetable.listings())
    timetable["one"] = make(topology_app, "one", args=[1])
    assert timetable.discard(listed) == ["two"]
    assert list(timetable) == ["one"]
    assert not get_storage(topology_app).is_stored(make(topology_app, "two").key)
