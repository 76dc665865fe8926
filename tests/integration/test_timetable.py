"""The whole schedule as a mapping, on each kind of client."""

import contextlib
import json
import math
import sys
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice, pairwise
from types import ModuleType
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule, solar

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.beat.holder import new_token
from redbeat.decoder import register_codec
from redbeat.errors import EntryError
from redbeat.schedules import once
from redbeat.store.keys import SET_ASIDE
from redbeat.store.topology import SCRIPT_ENTRIES
from redbeat.timetable.listings import PAGE
from support.apps import MakeApp
from support.bare import write_bare
from support.messages import read_messages
from support.servers import RedisServer
from support.tripwire import Tripwire
from support.wire import Proxy

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
ODD_NAMES = ["with space", "a:b", "größe ☃", "two\nlines", "x" * 10_000, "", "'quoted\""]


@pytest.fixture
def timetable(client_app: Celery) -> Timetable:
    return Timetable(client_app)


def make(app: Celery, name: str, every: float = 60, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, "tasks.add", schedule(every), app=app, **fields)


def ago(**parts: float) -> datetime:
    return datetime.now(UTC) - timedelta(**parts)


def fill(app: Celery, count: int, every: float = 3600) -> None:
    Timetable(app).update({f"e{number:05}": make(app, f"e{number:05}") for number in range(count)})


def test_it_is_a_mapping_in_the_order_of_due_times(
    client_app: Celery, timetable: Timetable
) -> None:
    """Set, get, length, membership and removal, each as a dict has them."""
    timetable["late"] = {"task": "tasks.add", "schedule": 300, "args": [1]}
    timetable["soon"] = make(client_app, "soon", every=30)
    assert list(timetable) == ["soon", "late"]
    assert len(timetable) == 2
    assert "soon" in timetable
    assert "other" not in timetable
    assert timetable["late"].args == [1]
    assert timetable.get("other") is None
    assert [(name, entry.task) for name, entry in timetable.items()] == [
        ("soon", "tasks.add"),
        ("late", "tasks.add"),
    ]
    del timetable["soon"]
    assert [entry.name for entry in timetable.values()] == ["late"]
    with pytest.raises(KeyError, match="soon"):
        del timetable["soon"]
    with pytest.raises(KeyError, match="soon"):
        timetable["soon"]
    timetable.clear()
    assert not timetable


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_will_do(client_app: Celery, timetable: Timetable, name: str) -> None:
    timetable[name] = make(client_app, name)
    assert list(timetable) == [name]
    assert timetable[name].name == name
    assert timetable.listing(name).state == "waiting"
    del timetable[name]
    assert name not in timetable


def test_an_entry_stored_under_another_name_is_a_copy(
    client_app: Celery, timetable: Timetable
) -> None:
    timetable["one"] = make(client_app, "one", args=[1])
    timetable["two"] = timetable["one"]
    assert {name: entry.name for name, entry in timetable.items()} == {"one": "one", "two": "two"}


@pytest.mark.parametrize(
    "bad", [3, {"task": "t"}, {"task": "t", "schedule": object()}, {"schedule": 3}]
)
def test_a_value_that_is_not_an_entry_is_refused_by_name(timetable: Timetable, bad: Any) -> None:
    with pytest.raises(EntryError, match="broken"):
        timetable["broken"] = bad
    assert not timetable


def test_an_update_with_one_bad_entry_stores_none(client_app: Celery, timetable: Timetable) -> None:
    bad = make(client_app, "bad", args=[object()])
    with pytest.raises(EntryError, match="bad"):
        timetable.update({"good": make(client_app, "good"), "bad": bad})
    assert not timetable


def test_an_update_keeps_what_is_known_of_runs(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """An entry stored again beside new ones keeps its timer and its count."""
    ran = make(client_app, "ran", every=3600, last_run_at=ago(minutes=45), total_run_count=7)
    ran.save()
    timetable.update({"ran": make(client_app, "ran", every=3600), "new": make(client_app, "new")})
    assert timetable["ran"].total_run_count == 7
    score: Any = client.zscore(SCHEDULE, "redbeat:ran")
    assert math.isclose(score - datetime.now(UTC).timestamp(), 900, abs_tol=5)


def test_an_entry_whose_class_has_its_own_save_is_saved_by_it(client_app: Celery) -> None:
    saved = []

    class Entry(RedBeatSchedulerEntry):
        def save(self) -> RedBeatSchedulerEntry:
            saved.append(self.name)
            return super().save()

    Timetable(client_app, Entry).update({"one": {"task": "t", "schedule": 3}})
    assert saved == ["one"]
    assert "one" in Timetable(client_app)


def test_the_entry_class_is_that_of_the_application_s_scheduler(make_app_with: Any) -> None:
    class Entry(RedBeatSchedulerEntry):
        pass

    class Scheduler(RedBeatScheduler):
        pass

    Scheduler.Entry = Entry
    app = make_app_with(redbeat_redis_url="redis://localhost", beat_scheduler=Scheduler)
    assert Timetable(app).entry_class is Entry
    app.conf.beat_scheduler = "redbeat"
    assert Timetable(app).entry_class is RedBeatSchedulerEntry


def test_pages_leave_nothing_out_and_repeat_nothing(
    client_app: Celery, timetable: Timetable
) -> None:
    """More entries than two pages hold, most of them due at the same moment."""
    fill(client_app, 2 * PAGE + 3)
    names = list(timetable)
    assert sorted(names) == [f"e{number:05}" for number in range(2 * PAGE + 3)]
    assert len(list(timetable.listings())) == len(names)


def test_an_entry_that_moves_between_two_pages_is_not_left_out(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """The last one of a page runs and moves to a later time: the next page still follows on."""
    fill(client_app, PAGE + 10)
    names = iter(timetable)
    first = list(islice(names, PAGE))
    client.zadd(SCHEDULE, {f"redbeat:{first[-1]}": 4e9})
    assert len({*first, *names}) == PAGE + 10


def test_each_entry_is_listed_with_its_state(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """Including entries that cannot be read."""
    make(client_app, "waiting").save()
    make(client_app, "overdue", every=5, last_run_at=ago(minutes=1), total_run_count=1).save()
    make(client_app, "paused", enabled=False).save()
    over = once(ago(days=1))
    RedBeatSchedulerEntry(
        "finished", "t", over, app=client_app, last_run_at=ago(hours=1), total_run_count=1
    ).save()
    make(client_app, "aside").save()
    client.zadd(SCHEDULE, {"redbeat:aside": SET_ASIDE, "redbeat:gone": 4e9, "redbeat:torn": 4e9})
    client.hset("redbeat:aside", "set_aside", json.dumps({"reason": "ValueError: no", "x": 1}))
    client.hset("redbeat:torn", "definition", "{")
    states = {listing.name: listing.state for listing in timetable.listings()}
    assert states == {
        "waiting": "waiting",
        "overdue": "overdue",
        "paused": "paused",
        "finished": "finished",
        "aside": "set aside",
        "gone": "gone",
        "torn": "broken",
    }
    assert [listing.name for listing in timetable.overdue()] == ["overdue"]
    assert [listing.name for listing in timetable.paused()] == ["paused"]
    assert [listing.name for listing in timetable.finished()] == ["finished"]
    assert [listing.reason for listing in timetable.set_aside()] == ["ValueError: no"]
    assert "torn" not in dict(timetable.items())
    with pytest.raises(EntryError, match="torn"):
        timetable["torn"]
    with pytest.raises(KeyError):
        timetable.listing("unknown")


def test_one_bad_entry_hides_no_other(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """With a score, a history or a schedule that makes no sense."""
    make(client_app, "good").save()
    definition = make(client_app, "x").encode_definition()
    bad = {
        "no date": (definition, "", math.inf),
        "year 31690708": (definition, "", 1e15),
        "no history": (definition, '{"last_run_at": 5}', 4e9),
        "no schedule": ('{"name": "x", "task": "t"}', "", 4e9),
        "no codec": ('{"name": "x", "task": "t", "schedule": {"__type__": "hex"}}', "", 4e9),
    }
    for name, (text, meta, score) in bad.items():
        client.hset(f"redbeat:{name}", mapping={"definition": text, "meta": meta})
        client.zadd(SCHEDULE, {f"redbeat:{name}": score})
    listings = {listing.name: listing for listing in timetable.listings()}
    assert listings.keys() == {"good", *bad}
    assert listings["no date"].due_at is listings["year 31690708"].due_at is None
    broken = {name: each.reason for name, each in listings.items() if each.state == "broken"}
    assert broken.keys() == {"no history", "no schedule", "no codec"}
    assert "last_run_at must be a datetime or null, got 5" in broken["no history"]
    assert "no codec is registered for the schedule {'__type__': 'hex'}" in broken["no codec"]
    end = datetime.fromtimestamp(4.1e9, UTC)
    runs = {run.name for run in timetable.upcoming(limit=3, until=end)}
    assert runs == {"good"}
    assert not list(timetable.overdue())


class Raising(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """A schedule of an application, with a defect that shows only once it is stored."""

    is_sound = True

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        return False, self.remaining_estimate(last_run_at).total_seconds()

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        if self.is_sound:
            return timedelta(hours=1)
        raise ValueError("no")


def test_an_entry_whose_schedule_raises_has_no_upcoming_runs(
    client_app: Celery, timetable: Timetable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beat, too, sets it aside and runs the others."""
    register_codec("tests-raising", Raising, lambda schedule: {}, lambda fields: Raising())
    RedBeatSchedulerEntry("raising", "t", Raising(), app=client_app).save()
    make(client_app, "good", every=4000).save()
    monkeypatch.setattr(Raising, "is_sound", False)
    until = datetime.now(UTC) + timedelta(hours=2)
    assert [run.name for run in timetable.upcoming(until=until)] == ["good"]


def test_an_entry_with_another_name_in_its_definition_goes_by_that_of_its_key(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """Other languages may write any name there: pausing the entry must not make a second one."""
    client.hset("redbeat:key", "definition", make(client_app, "other").encode_definition())
    client.zadd(SCHEDULE, {"redbeat:key": 4e9})
    timetable.pause("key")
    assert list(timetable) == ["key"]
    assert [(each.name, each.state) for each in timetable.listings()] == [("key", "paused")]
    assert [(name, entry.name) for name, entry in timetable.items()] == [("key", "key")]


def test_any_score_below_zero_is_never_due_and_listed_as_finished(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """Others may write other numbers than ours: all that is counted is also listed."""
    for name, score in {"one": -1, "half": -0.5, "aside": SET_ASIDE, "five": -5}.items():
        make(client_app, name).save()
        client.zadd(SCHEDULE, {f"redbeat:{name}": score})
    client.zadd(SCHEDULE, {"redbeat:one": -math.inf})
    assert sorted(timetable) == ["aside", "five", "half", "one"]
    assert {each.name for each in timetable.finished()} == {"five", "half", "one"}
    assert timetable.counts() == {"waiting": 0, "overdue": 0, "finished": 3, "set aside": 1}
    timetable.clear()
    assert len(timetable) == 0


@pytest.mark.parametrize("path", ["own_beat:OwnScheduler", "own_beat.OwnScheduler"])
def test_a_scheduler_is_found_by_either_kind_of_path(
    make_app_with: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Celery takes both. With the wrong class of entries, fields of its own would be lost."""

    class OwnEntry(RedBeatSchedulerEntry):
        pass

    class OwnScheduler(RedBeatScheduler):
        Entry = OwnEntry

    module = ModuleType("own_beat")
    vars(module)["OwnScheduler"] = OwnScheduler
    monkeypatch.setitem(sys.modules, "own_beat", module)
    app = make_app_with()
    app.conf.beat_scheduler = path
    assert Timetable(app).entry_class is OwnEntry


def test_pausing_and_resuming_change_nothing_else(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    make(client_app, "one", every=3600, last_run_at=ago(minutes=30), total_run_count=3).save()
    before = client.zscore(SCHEDULE, "redbeat:one"), client.hget("redbeat:one", "meta")
    timetable.pause("one")
    assert timetable.listing("one").state == "paused"
    timetable.resume("one")
    assert timetable.listing("one").state == "waiting"
    assert (client.zscore(SCHEDULE, "redbeat:one"), client.hget("redbeat:one", "meta")) == before
    with pytest.raises(KeyError, match="other"):
        timetable.pause("other")


def test_the_upcoming_runs_come_in_order_and_as_often_as_they_are_due(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """It is a preview: nothing is stored."""
    now = datetime.now(UTC)
    make(client_app, "often", every=10, last_run_at=now).save()
    make(client_app, "seldom", every=25, last_run_at=now).save()
    make(client_app, "never", enabled=False).save()
    before = client.zrange(SCHEDULE, 0, -1, withscores=True)
    runs = list(timetable.upcoming(limit=5))
    assert [run.name for run in runs] == ["often", "often", "seldom", "often", "often"]
    assert [round((run.due_at - now).total_seconds()) for run in runs] == [10, 20, 25, 30, 40]
    until = list(timetable.upcoming(until=now + timedelta(seconds=21)))
    assert [run.name for run in until] == ["often", "often"]
    assert client.zrange(SCHEDULE, 0, -1, withscores=True) == before


BARE: dict[str, dict[str, Any]] = {
    "interval": {"__type__": "interval", "every": 86400},
    "crontab": {"__type__": "crontab", "minute": "0", "hour": "0"},
}


@pytest.mark.parametrize("rule", BARE.values(), ids=BARE)
@pytest.mark.parametrize("hours", [-1, 48])
def test_an_edit_leaves_the_time_for_which_another_program_wrote_an_entry_that_never_ran(
    timetable: Timetable, client: redis.Redis, rule: dict[str, Any], hours: int
) -> None:
    """Its start, or a slot that beat has not come to yet, unless the schedule changes."""
    score = int(datetime.now(UTC).timestamp()) + hours * 3600
    write_bare(client, "bare", rule, score)
    timetable.pause("bare")
    timetable.resume("bare")
    timetable.edit(["bare"], lambda entry: entry.kwargs.update(x=1))
    assert client.zscore(SCHEDULE, "redbeat:bare") == score
    assert timetable["bare"].kwargs == {"x": 1}
    timetable.edit(["bare"], lambda entry: setattr(entry, "schedule", schedule(7200)))
    assert client.zscore(SCHEDULE, "redbeat:bare") == pytest.approx(
        datetime.now(UTC).timestamp(), abs=5
    )


def test_an_interval_that_was_stored_paused_and_never_ran_runs_at_once_when_it_is_resumed(
    timetable: Timetable, client: redis.Redis
) -> None:
    """The time to which beat has moved it is nobody's wish."""
    write_bare(client, "bare", BARE["interval"], 0, enabled=False)
    scheduler = RedBeatScheduler(timetable.app)
    scheduler.lock_key = None
    scheduler.tick()
    now = datetime.now(UTC).timestamp()
    assert client.zscore(SCHEDULE, "redbeat:bare") == pytest.approx(now + 86400, abs=5)
    timetable.resume("bare")
    assert client.zscore(SCHEDULE, "redbeat:bare") == pytest.approx(now, abs=5)


def set_time(entry: RedBeatSchedulerEntry, at: int) -> None:
    entry.kwargs["at"] = at


class Spread(RedBeatSchedulerEntry):
    """An entry that says when it is due."""

    @property
    def score(self) -> int:
        return int(self.kwargs["at"])


def test_an_edit_respects_an_entry_class_that_decides_when_it_is_due(
    client_app: Celery, client: redis.Redis
) -> None:
    """Though it never ran."""
    timetable = Timetable(client_app, entry_class=Spread)
    for at in (1000, 2000):
        write_bare(client, "bare", BARE["interval"], 5, kwargs={"at": 1})
        timetable.edit(["bare"], partial(set_time, at=at))
        assert client.zscore(SCHEDULE, "redbeat:bare") == at


def test_upcoming_shows_the_slot_that_an_entry_without_a_history_missed(
    timetable: Timetable, client: redis.Redis
) -> None:
    """It was written by another language, with that slot as its score; it runs now."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    write_bare(client, "midnight", BARE["crontab"], midnight.timestamp())
    missed, following = timetable.upcoming(limit=2)
    assert now <= missed.due_at < now + timedelta(seconds=10)
    # A day more, if the day has just ended.
    assert following.due_at - midnight in (timedelta(days=1), timedelta(days=2))


def test_upcoming_shows_a_calendar_at_its_slots_and_an_overdue_entry_now(
    client_app: Celery, timetable: Timetable
) -> None:
    RedBeatSchedulerEntry("hourly", "t", crontab(minute=0), app=client_app).save()
    make(client_app, "late", every=7200, last_run_at=ago(days=1), total_run_count=1).save()
    late, *hourly = timetable.upcoming(limit=4)
    assert late.name == "late"
    assert abs((late.due_at - datetime.now(UTC)).total_seconds()) < 5
    assert [(run.name, run.due_at.minute) for run in hourly if run.name == "hourly"] != []
    assert all(run.due_at.minute == 0 for run in hourly if run.name == "hourly")


class OwnCrontab(crontab):  # type: ignore[misc]  # Celery has no types
    """A subclass, which is asked by its own methods."""


@pytest.mark.parametrize(
    ("rule", "hours"),
    [
        (schedule(timedelta(hours=7), relative=True), 7),
        (solar("solar_noon", 52.5, 13.4), 24),
        (OwnCrontab(minute=30), 1),
        (crontab(minute=30), 1),
    ],
    ids=["relative", "solar", "subclass", "crontab"],
)
def test_upcoming_keeps_the_intervals_of_schedules_that_read_their_own_clock(
    client_app: Celery, timetable: Timetable, rule: Any, hours: float
) -> None:
    """The solar noon moves by half a minute a day, and no more."""
    RedBeatSchedulerEntry("paced", "t", rule, app=client_app).save()
    moments = [run.due_at for run in timetable.upcoming(limit=8)]
    assert len(moments) == 8
    gaps = [(later - one).total_seconds() for one, later in pairwise(moments)]
    assert gaps == pytest.approx([hours * 3600] * 7, abs=60)


def test_upcoming_ends_when_nothing_is_left_to_run(
    client_app: Celery, timetable: Timetable
) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    RedBeatSchedulerEntry("once", "t", once(at), app=client_app).save()
    assert [(run.name, run.due_at) for run in timetable.upcoming()] == [("once", at)]


def test_sending_an_entry_now_does_not_change_its_schedule(
    make_app_with: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    app = make_app_with(redbeat_redis_url=redis_url, broker_url=redis_url)
    entry = make(app, "one", args=[1, 2], options={"queue": "celery"}).save()
    before = redis_client.hgetall(entry.key), redis_client.zscore(SCHEDULE, entry.key)
    result = Timetable(app).run("one")
    (message,) = read_messages(redis_client)
    assert message.args == [1, 2]
    assert result.id
    assert (redis_client.hgetall(entry.key), redis_client.zscore(SCHEDULE, entry.key)) == before
    with pytest.raises(KeyError, match="other"):
        Timetable(app).run("other")


class Tagging(RedBeatScheduler):
    """A scheduler of an application that needs what its constructor prepares."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tag = "tagged"

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Send it with a header more."""
        entry.options.setdefault("headers", {})["tag"] = self.tag
        return super().apply_async(entry, *args, **kwargs)


class Waiting(RedBeatScheduler):
    """A scheduler of an application that sends as ours does."""

    max_interval = 3


def test_an_entry_sent_now_is_sent_by_the_application_s_scheduler(
    make_app_with: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    """It does not lead, stores no static entry, and does not change the schedule."""
    app = make_app_with(
        redbeat_redis_url=redis_url,
        broker_url=redis_url,
        beat_scheduler=Tagging,
        beat_schedule={"static": {"task": "tasks.static", "schedule": 30}},
    )
    entry = make(app, "one", options={"queue": "celery"}).save()
    before = redis_client.hgetall(entry.key), redis_client.zrange(SCHEDULE, 0, -1, withscores=True)
    Timetable(app).run("one")
    (message,) = read_messages(redis_client)
    assert message.headers["tag"] == "tagged"
    assert (
        redis_client.hgetall(entry.key),
        redis_client.zrange(SCHEDULE, 0, -1, withscores=True),
    ) == before
    assert not redis_client.exists("redbeat::lock", "redbeat::statics", "redbeat::reports")


@pytest.mark.parametrize(("scheduler", "cost"), [("redbeat", 1), (Waiting, 1), (Tagging, 3)])
def test_sending_an_entry_now_costs_the_documented_round_trips(
    make_app_with: Any, proxy: Proxy, scheduler: Any, cost: int
) -> None:
    """Building a scheduler for it costs two more, since that checks the server."""
    app = make_app_with(redbeat_redis_url=proxy.url(), beat_scheduler=scheduler)
    make(app, "one").save()
    with proxy.counting() as traffic:
        Timetable(app).run("one")
    assert traffic.round_trips == cost


def test_pruning_removes_entries_that_will_never_run_and_keeps_statics(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """A finished static entry would be stored and run again."""
    make(client_app, "waiting").save()
    for name in ("finished", "static"):
        make(client_app, name).save()
        client.zadd(SCHEDULE, {f"redbeat:{name}": -1})
    client.sadd("redbeat::statics", "static")
    client.zadd(SCHEDULE, {"redbeat:gone": 1, "foreign": 1})
    client.lpush("foreign", "not ours")
    useless = ["finished", "foreign", "gone"]
    assert sorted(listing.name for listing in timetable.prunable()) == useless
    assert sorted(timetable.prune()) == useless
    assert sorted(timetable) == ["static", "waiting"]
    assert client.lrange("foreign", 0, -1) == ["not ours"]


def test_membership_agrees_with_getting(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """An entry without a place in the schedule counts; a place without an entry does not."""
    make(client_app, "homeless").save()
    client.zrem(SCHEDULE, "redbeat:homeless")
    client.zadd(SCHEDULE, {"redbeat:gone": 1, "redbeat:torn": 1})
    client.hset("redbeat:torn", "definition", "{")
    client.hset("redbeat:history", "meta", "{}")
    client.set("redbeat:text", "not ours")
    assert "homeless" in timetable
    assert timetable["homeless"].name == "homeless"
    assert "torn" in timetable
    for name in ("gone", "history", "text"):
        assert name not in timetable
        with pytest.raises(KeyError, match=name):
            timetable[name]


def finish(app: Celery, client: redis.Redis, name: str) -> None:
    make(app, name).save()
    client.zadd(SCHEDULE, {f"redbeat:{name}": -1})


@pytest.mark.parametrize(
    "act",
    [
        lambda entry: RedBeatSchedulerEntry(entry.name, "t", schedule(9), app=entry.app).save(),
        lambda entry: entry.reschedule(ago(days=1)),
    ],
    ids=["saved", "rescheduled"],
)
def test_an_entry_stored_again_since_it_was_listed_is_not_discarded(
    client_app: Celery, timetable: Timetable, client: redis.Redis, act: Any
) -> None:
    """What is discarded is the entry that was looked at, not a later version of it."""
    finish(client_app, client, "changed")
    finish(client_app, client, "same")
    useless = list(timetable.prunable())
    act(timetable["changed"])
    assert timetable.discard(useless) == ["same"]
    assert list(timetable) == ["changed"]
    assert timetable["changed"].key == "redbeat:changed"


def test_a_place_that_got_its_entry_back_since_it_was_listed_is_not_discarded(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    client.zadd(SCHEDULE, {"redbeat:gone": 1, "redbeat:back": 1})
    useless = list(timetable.prunable())
    make(client_app, "back").save()
    assert timetable.discard(useless) == ["gone"]
    assert list(timetable) == ["back"]


def test_an_entry_that_another_program_removed_since_it_was_listed_counts_as_discarded(
    client_app: Celery, timetable: Timetable, client: redis.Redis
) -> None:
    """As it does when the removal is done again because its answer was lost."""
    finish(client_app, client, "finished")
    useless = list(timetable.prunable())
    assert timetable.discard(useless) == timetable.discard(useless) == ["finished"]
    assert not timetable


def test_the_leader_is_known_by_host_and_process(
    timetable: Timetable, client_app: Celery, client: redis.Redis
) -> None:
    assert timetable.leader() is None
    client.set("redbeat::lock", new_token(30, 15), px=25_000)
    leader = timetable.leader()
    assert leader is not None
    assert leader.host
    assert leader.pid > 0
    assert leader.silence == pytest.approx(5, abs=1)
    assert leader.is_alive


def test_listings_are_those_whose_names_match(timetable: Timetable) -> None:
    """A pattern as in a shell, of the whole name."""
    for name in ("report.daily", "report.weekly", "old report.daily"):
        timetable[name] = make(timetable.app, name)
    assert [each.name for each in timetable.listings(match="report.*ly")] == [
        "report.daily",
        "report.weekly",
    ]


def test_listings_of_a_task_build_no_other_entries(client_app: Celery, client: redis.Redis) -> None:
    """Building is most of what listing an entry costs. A pattern as in a shell."""
    built: list[str] = []

    class Witness(RedBeatSchedulerEntry):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            built.append(self.name)

    for name in ("report.daily", "report.weekly", "old report.daily", "add"):
        RedBeatSchedulerEntry(name, f"tasks.{name}", schedule(60), app=client_app).save()
    for name, text in UNKNOWN_TASKS.items():
        client.hset(f"redbeat:{name}", "definition", text)
        client.zadd(SCHEDULE, {f"redbeat:{name}": 5})
    client.zadd(SCHEDULE, {"redbeat:gone": 5})
    found = list(Timetable(client_app, entry_class=Witness).listings(task="tasks.report.*ly"))
    assert {each.name for each in found} == {"report.daily", "report.weekly"}
    assert not {"old report.daily", "add"}.intersection(built)


#: Definitions without a readable task, by name.
UNKNOWN_TASKS = {
    "broken": "{",
    "deep": "[" * 100_000,
    "list": "[]",
    "without": '{"schedule": 60}',
    "null": '{"task": null, "schedule": {"__type__": "fortnight"}}',
}


def test_listings_of_a_task_ask_a_class_that_reads_definitions_in_its_own_way(
    client_app: Celery,
) -> None:
    class Renaming(RedBeatSchedulerEntry):
        @staticmethod
        def decode_definition(definition: str) -> dict[str, Any]:
            fields = RedBeatSchedulerEntry.decode_definition(definition)
            return {**fields, "task": fields["task"].replace("old.", "new.")}

    RedBeatSchedulerEntry("a", "old.a", schedule(60), app=client_app).save()
    timetable = Timetable(client_app, entry_class=Renaming)
    assert [each.name for each in timetable.listings(task="new.*")] == ["a"]
    assert list(timetable.listings(task="old.*")) == []


@pytest.mark.parametrize("score", [-1, -0.5, -5e-324, -3, -1e300, -math.inf])
def test_an_entry_with_any_negative_score_has_nothing_left_to_run(
    client_app: Celery, timetable: Timetable, client: redis.Redis, sent: list[str], score: float
) -> None:
    """It is finished for beats and for programs, and can be pruned."""
    client_app.conf.redbeat_lock_key = None
    entry = make(client_app, "a").save()
    client.zadd(SCHEDULE, {entry.key: score})
    RedBeatScheduler(client_app).tick()
    assert sent == []
    assert client.zscore(SCHEDULE, entry.key) == score
    assert [each.name for each in timetable.finished()] == ["a"]
    assert list(timetable.set_aside()) == list(timetable.overdue()) == []
    assert timetable.listing("a").state == "finished"
    assert timetable.listing("a").due_at is None
    assert timetable.counts() == {"waiting": 0, "overdue": 0, "finished": 1, "set aside": 0}
    assert timetable.prune() == ["a"]


@pytest.mark.parametrize("score", [-1, -0.5, -3, -math.inf])
def test_a_static_entry_with_runs_left_is_due_again_after_a_start(
    client_app: Celery, client: redis.Redis, score: float
) -> None:
    """Whoever wrote its negative score; one whose schedule has ended keeps it."""
    ended = once(ago(hours=1))
    client_app.conf.beat_schedule = {
        "static": {"task": "tasks.a", "schedule": 60},
        "ended": {"task": "tasks.a", "schedule": ended},
    }
    RedBeatScheduler(client_app)
    RedBeatSchedulerEntry.from_key("redbeat:ended", client_app).next()
    client.zadd(SCHEDULE, {"redbeat:static": score, "redbeat:ended": score})
    RedBeatScheduler(client_app)
    assert (client.zscore(SCHEDULE, "redbeat:static") or 0) > 0
    assert client.zscore(SCHEDULE, "redbeat:ended") == score


@pytest.mark.parametrize(
    ("act", "cost"),
    [
        (len, 1),
        (lambda timetable: "e00001" in timetable, 1),
        (lambda timetable: timetable["e00001"], 1),
        (lambda timetable: timetable.__delitem__("e00002"), 2),
        (lambda timetable: timetable.leader(), 1),
        (lambda timetable: timetable.listing("e00001"), 2),
        (lambda timetable: list(iter(timetable)), 3 + 1),
        (lambda timetable: list(timetable.listings()), 5 + 1),
        (lambda timetable: list(timetable.listings(match="f*")), 3 + 1),
        (lambda timetable: list(timetable.listings(task="tasks.add")), 7 + 1),
        (lambda timetable: list(timetable.listings(task="tasks.none")), 5 + 1),
        (lambda timetable: timetable.update(timetable_of_ten(timetable)), 2),
        (lambda timetable: timetable.discard([timetable.listing("e00001")]), 2 + 1),
    ],
)
def test_each_operation_costs_the_documented_round_trips(
    make_app_with: Any, proxy: Proxy, act: Any, cost: int
) -> None:
    """Counted on the wire for two pages of entries, once the server knows the scripts."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    fill(app, PAGE + 1)
    timetable = Timetable(app)
    del timetable["e00000"]
    timetable["e00000"] = make(app, "e00000")
    timetable.discard([timetable.listing("e00000")])
    timetable["e00000"] = make(app, "e00000")
    with proxy.counting() as traffic:
        act(timetable)
    assert traffic.round_trips == cost


def timetable_of_ten(timetable: Timetable) -> dict[str, RedBeatSchedulerEntry]:
    return {f"e{number:05}": make(timetable.app, f"e{number:05}") for number in range(10)}


@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize("are_scripts_known", [True, False])
def test_a_change_of_many_entries_that_is_cut_off_changes_nothing(
    make_app_with: MakeApp, redis_server: RedisServer, nth: int, are_scripts_known: bool
) -> None:
    """Or everything, if only its answer was lost."""
    tripwire = Tripwire(redis_server)
    app = make_app_with(redbeat_redis_url=tripwire.url())
    before = {make(app, "before").save().key}
    wanted = [make(app, str(number)) for number in range(2 * SCRIPT_ENTRIES)]
    with redis_server.client() as client, contextlib.ExitStack() as stack:
        stack.callback(tripwire.refuse)
        if not are_scripts_known:
            client.script_flush()
        tripwire.arm(nth, tripwire.refuse)
        with contextlib.suppress(redis.ConnectionError):
            Timetable(app).replace(wanted, deleted=["before"])
            before = set()
        after = {key for key, _ in client.zscan_iter("redbeat::schedule")}
    assert after in (before, {entry.key for entry in wanted})


def test_a_paused_one_off_whose_time_has_passed_is_not_pruned(
    client_app: Celery, scheduler: RedBeatScheduler
) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    RedBeatSchedulerEntry("a", "t", once(at), app=client_app, enabled=False).save()
    scheduler.tick()
    timetable = Timetable(client_app)
    assert timetable.listing("a").state == "paused"
    assert timetable.prune() == []
