"""Entries that Redis refuses to write: each hurts only itself, and is named with the reason."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.schedulers import ensure_conf, get_storage
from redbeat.store.topology import SCRIPT_ENTRIES
from support.apps import MakeApp
from support.permissions import guard
from support.servers import StartRedis

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
GOOD = [f"good-{number}" for number in range(5)]
RULES = "~redbeat:good* ~redbeat::* &* +@all"

SCRIPTS = {"scripts": "", "plain-commands": "-eval -evalsha -script"}


class Place(NamedTuple):
    """An application whose user may not write keys that begin with `ro`, and a user who may."""

    app: Celery
    admin: redis.Redis

    def timetable(self) -> Timetable:
        return Timetable(self.app)

    def store(self, *names: str) -> None:
        """Write entries that are due now."""
        for name in names:
            self.admin.hset(f"redbeat:{name}", mapping=fields_of(self.app, name))
            self.admin.zadd(SCHEDULE, {f"redbeat:{name}": 1})


def fields_of(app: Celery, name: str) -> Any:
    two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
    entry = RedBeatSchedulerEntry(
        name, f"tasks.{name}", schedule(3600), app=app, last_run_at=two_hours_ago
    )
    return {"definition": entry.encode_definition(), "meta": entry.encode_meta()}


#: What the user may do with those keys: on Redis 6.2 it may read what it may write, and no more.
READ_ONLY = pytest.param("%R~redbeat:ro*", id="read-only")
NO_ACCESS = pytest.param("", id="no-access")


@pytest.fixture
def make_place(
    start_redis: StartRedis, make_app_with: MakeApp
) -> Iterator[Callable[[str, str], Place]]:
    """Make a place for a user with such rights, who runs scripts or plain commands."""
    with contextlib.ExitStack() as stack:

        def make(rights: str, scripts: str) -> Place:
            server = start_redis()
            with server.client() as client:
                is_old = str(client.info("server")["redis_version"]).startswith("6.")
            if is_old and rights:
                pytest.skip("Redis 6.2 has no right to read alone: see the cases without access")
            users = guard(server, f"{rights} {RULES} {SCRIPTS[scripts]}")
            admin = redis.Redis.from_url(users.admin_url, decode_responses=True)
            stack.enter_context(contextlib.closing(admin))
            app = make_app_with(redbeat_redis_url=users.guest_url, redbeat_lock_key=None)
            # Each tick tries again what was set aside.
            ensure_conf(app).poll_interval = 0
            return Place(app, admin)

        yield make


@pytest.fixture(params=SCRIPTS)
def place(request: pytest.FixtureRequest, make_place: Callable[[str, str], Place]) -> Place:
    """One where `redbeat:ro...` may be read and not written."""
    return make_place("%R~redbeat:ro*", request.param)


@pytest.fixture(params=[READ_ONLY, NO_ACCESS])
def rights(request: pytest.FixtureRequest) -> str:
    """What the user may do with `redbeat:ro...`."""
    rights: str = request.param
    return rights


@pytest.fixture(params=SCRIPTS)
def closed_place(
    request: pytest.FixtureRequest, rights: str, make_place: Callable[[str, str], Place]
) -> Place:
    """One where `redbeat:ro...` may be read at most."""
    return make_place(rights, request.param)


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_the_others_run_and_are_counted_beside_an_entry_that_may_not_be_written(
    place: Place, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is sent once, whichever beat looks later, and set aside by its score, with one line."""
    place.store(*GOOD, "ro-1", "ro-2")
    for _ in range(2):
        scheduler = RedBeatScheduler(place.app)
        for _ in range(3):
            scheduler.tick()
    assert sorted(sent) == sorted(f"tasks.{name}" for name in [*GOOD, "ro-1", "ro-2"])
    timetable = place.timetable()
    assert [timetable[name].total_run_count for name in GOOD] == [1] * len(GOOD)
    assert [place.admin.zscore(SCHEDULE, f"redbeat:{name}") for name in ("ro-1", "ro-2")] == [
        -2
    ] * 2
    told = errors_of(caplog)
    assert len(told) == 2
    for line, key in zip(sorted(told), ("redbeat:ro-1", "redbeat:ro-2"), strict=True):
        assert f"Set aside {key}" in line
        assert "to access" in line


def test_it_runs_again_once_it_may_be_written(place: Place, sent: list[str]) -> None:
    place.store("ro-1")
    scheduler = RedBeatScheduler(place.app)
    scheduler.tick()
    place.admin.acl_setuser("guest", enabled=True, keys=["redbeat:*"])
    for _ in range(2):
        scheduler.tick()
    assert sent == ["tasks.ro-1"] * 2
    entry = place.timetable()["ro-1"]
    assert entry.total_run_count == 1
    assert place.timetable().listing("ro-1").state == "waiting"


def test_an_edited_entry_that_was_set_aside_is_not_sent_before_it_may_be_written(
    place: Place, sent: list[str]
) -> None:
    """It was set aside while it could be written, for another definition."""
    place.store("ro-1")
    place.admin.hset("redbeat:ro-1", "set_aside", '{"reason": "x", "definition": "y"}')
    place.admin.zadd(SCHEDULE, {"redbeat:ro-1": -2})
    scheduler = RedBeatScheduler(place.app)
    for _ in range(3):
        scheduler.tick()
    assert sent == []


def test_a_calendar_entry_without_a_history_that_may_not_be_written_is_not_sent(
    place: Place, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its history cannot begin, while that of others does."""
    daily = '{"__type__": "crontab", "minute": "*"}'
    slot = int(datetime.now(UTC).timestamp()) // 60 * 60
    names = ["ro-calendar", "good-calendar"]
    for name in names:
        text = f'{{"name": "{name}", "task": "tasks.{name}", "schedule": {daily}}}'
        place.admin.hset(f"redbeat:{name}", "definition", text)
        place.admin.zadd(SCHEDULE, {f"redbeat:{name}": slot})
    RedBeatScheduler(place.app).tick()
    assert sent == ["tasks.good-calendar"]
    assert place.admin.zscore(SCHEDULE, "redbeat:ro-calendar") == -2
    (told,) = errors_of(caplog)
    assert "Set aside redbeat:ro-calendar" in told


@pytest.mark.parametrize("count", [3, 2 * SCRIPT_ENTRIES])
def test_a_change_of_many_entries_is_made_as_a_whole_or_not_at_all(
    closed_place: Place, count: int
) -> None:
    """The error names the key and says what Redis said."""
    timetable = closed_place.timetable()
    timetable["good-before"] = {"task": "tasks.a", "schedule": 60}
    new = {f"good-{number}": {"task": "tasks.a", "schedule": 60} for number in range(count)}
    before = closed_place.admin.dbsize()
    with pytest.raises(redis.exceptions.NoPermissionError, match=r"to access.*redbeat:ro-1"):
        timetable.update({**new, "ro-1": {"task": "tasks.a", "schedule": 60}})
    entries = [timetable.build(name, fields) for name, fields in new.items()]
    with pytest.raises(redis.exceptions.NoPermissionError, match=r"to access.*redbeat:ro-1"):
        timetable.replace(entries, deleted=["good-before", "ro-1"])
    assert closed_place.admin.dbsize() == before
    assert closed_place.admin.zrange(SCHEDULE, 0, -1) == ["redbeat:good-before"]


@pytest.mark.parametrize("count", [3, SCRIPT_ENTRIES])
def test_a_change_with_a_key_of_another_type_changes_nothing(place: Place, count: int) -> None:
    timetable = place.timetable()
    place.admin.set("redbeat:good-text", "cache")
    new = {f"good-{number}": {"task": "tasks.a", "schedule": 60} for number in range(count)}
    with pytest.raises(redis.exceptions.ResponseError, match=r"^WRONGTYPE.*redbeat:good-text"):
        timetable.update({**new, "good-text": {"task": "tasks.a", "schedule": 60}})
    assert place.admin.zcard(SCHEDULE) == 0
    assert place.admin.keys("redbeat:good*") == ["redbeat:good-text"]
    assert place.admin.get("redbeat:good-text") == "cache"


SINGLE: dict[str, Callable[[Place], object]] = {
    "save": lambda place: RedBeatSchedulerEntry.from_key("redbeat:ro-1", place.app).save(),
    "delete": lambda place: RedBeatSchedulerEntry.from_key("redbeat:ro-1", place.app).delete(),
    "next": lambda place: next(RedBeatSchedulerEntry.from_key("redbeat:ro-1", place.app)),
    "reschedule": lambda place: RedBeatSchedulerEntry.from_key(
        "redbeat:ro-1", place.app
    ).reschedule(),
    "remove": lambda place: place.timetable().__delitem__("ro-1"),
    "pause": lambda place: place.timetable().pause("ro-1"),
}


@pytest.mark.parametrize("act", SINGLE)
def test_a_refused_change_of_one_entry_names_it_and_changes_nothing(place: Place, act: str) -> None:
    place.store("ro-1")
    before = place.admin.hgetall("redbeat:ro-1")
    with pytest.raises(redis.exceptions.NoPermissionError, match=r"to access.*redbeat:ro-1"):
        SINGLE[act](place)
    assert place.admin.hgetall("redbeat:ro-1") == before
    assert place.admin.zscore(SCHEDULE, "redbeat:ro-1") == 1


def test_all_that_may_be_removed_is_removed_before_a_refusal_is_raised(closed_place: Place) -> None:
    timetable = closed_place.timetable()
    closed_place.store(*GOOD, "ro-1")
    with pytest.raises(redis.exceptions.NoPermissionError, match="redbeat:ro-1"):
        timetable.clear()
    assert closed_place.admin.zrange(SCHEDULE, 0, -1) == ["redbeat:ro-1"]
    assert closed_place.admin.exists("redbeat:ro-1")


def test_pruning_keeps_what_may_not_be_removed_and_warns(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.store("good-1", "ro-1", "good-2")
    for name in ("good-1", "ro-1", "good-2"):
        place.admin.zadd(SCHEDULE, {f"redbeat:{name}": -1})
    caplog.set_level(logging.WARNING)
    assert place.timetable().prune() == ["good-1", "good-2"]
    assert place.admin.zrange(SCHEDULE, 0, -1) == ["redbeat:ro-1"]
    assert sum("redbeat:ro-1" in line and "to access" in line for line in caplog.messages) == 1


def test_owners_are_noted_beside_one_that_may_not_be_written(
    closed_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    closed_place.store("good-1", "ro-1", "good-2")
    closed_place.admin.set("redbeat:good-text", "cache")
    keys = ["redbeat:good-1", "redbeat:ro-1", "redbeat:good-text", "redbeat:good-2"]
    get_storage(closed_place.app).notes.write_owner(keys, "proj")
    assert [closed_place.admin.hget(keys[number], "owner") for number in (0, 1, 3)] == [
        "proj",
        None,
        "proj",
    ]
    told = [line for line in caplog.messages if "was not noted" in line]
    assert sum("redbeat:ro-1" in line for line in told) == 1


def test_a_beat_takes_office_and_stores_the_other_static_entries(
    closed_place: Place, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What Redis refuses to store or remove is logged, and the rest is done."""
    closed_place.store("ro-changed", "ro-gone", "good-gone")
    closed_place.admin.sadd("redbeat::statics", "ro-gone", "good-gone")
    closed_place.admin.set("redbeat:good-text", "cache")
    names = ["good-1", "ro-changed", "ro-new", "good-text", "good-2"]
    closed_place.app.conf.beat_schedule = {n: {"task": f"tasks.{n}", "schedule": 60} for n in names}
    scheduler = RedBeatScheduler(closed_place.app)
    scheduler.setup_schedule()
    assert closed_place.admin.zscore(SCHEDULE, "redbeat:good-1") is not None
    assert closed_place.admin.zscore(SCHEDULE, "redbeat:good-2") is not None
    assert closed_place.admin.zscore(SCHEDULE, "redbeat:good-gone") is None
    assert closed_place.admin.exists("redbeat:ro-gone")
    assert closed_place.admin.sismember("redbeat::statics", "ro-gone")
    for name in ("ro-changed", "ro-new", "good-text", "ro-gone"):
        assert any(name in line for line in errors_of(caplog)), name
