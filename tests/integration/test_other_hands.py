"""What other programs do to the data, and applications to the scheduler's parts."""

import logging
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import fakeredis
import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.schedulers import (
    LUA_EXTEND_TO_SCRIPT,
    acquire_distributed_beat_lock,
    get_redis,
    get_storage,
)
from redbeat.schedules import once
from support.apps import MakeApp
from support.servers import StartRedis

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
HOURLY = '"schedule": {"__type__": "crontab", "minute": 0}'
NOW = '{"__type__": "interval", "every": 60.0, "relative": false}'
LONG_AGO = (
    '{"__type__": "datetime", "year": 2020, "month": 1, "day": 1, "hour": 0, "minute": 0, '
    '"second": 0, "microsecond": 0}'
)


@pytest.fixture
def scheduler(client_app: Celery) -> RedBeatScheduler:
    """A scheduler without a lock, on each kind of client."""
    client_app.conf.redbeat_lock_key = None
    return RedBeatScheduler(client_app)


def overdue(app: Celery, name: str = "a", **fields: Any) -> RedBeatSchedulerEntry:
    two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
    known: dict[str, Any] = {"last_run_at": two_hours_ago, "total_run_count": 5} | fields
    return RedBeatSchedulerEntry(name, "tasks.a", schedule(3600), app=app, **known).save()


def sending(monkeypatch: pytest.MonkeyPatch, meanwhile: Any = lambda entry: None) -> list[str]:
    """Take down what is sent, and do something at that moment."""
    sent: list[str] = []

    def send(self: RedBeatScheduler, entry: RedBeatSchedulerEntry, **kwargs: Any) -> None:
        self.reserve(entry)
        sent.append(entry.name)
        meanwhile(entry)

    monkeypatch.setattr(RedBeatScheduler, "apply_async", send)
    return sent


@pytest.mark.parametrize("schedule", ["0", "-5", "1e-9", '{"__type__": "timedelta", "days": 0}'])
def test_an_interval_of_no_time_is_set_aside_with_the_reason(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: Any, schedule: str
) -> None:
    """However another program wrote it: it would run without a pause."""
    sent = sending(monkeypatch)
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


@pytest.mark.parametrize("runs", ["", ', "total_run_count": 0', ', "total_run_count": 3'])
def test_a_calendar_entry_without_a_last_run_gets_one_and_runs(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: Any, runs: str
) -> None:
    """Whatever count another program wrote beside it."""
    sent = sending(monkeypatch)
    client.hset("redbeat:a", "definition", f'{{"name": "a", "task": "t", {HOURLY}}}')
    client.hset("redbeat:a", "meta", f'{{"last_run_at": null{runs}}}')
    client.zadd(SCHEDULE, {"redbeat:a": 0})
    scheduler.tick()
    entry = RedBeatSchedulerEntry.from_key("redbeat:a", app=scheduler.app)
    assert entry.last_run_at is not None
    client.hset("redbeat:a", "meta", f'{{"last_run_at": {LONG_AGO}{runs}}}')
    client.zadd(SCHEDULE, {"redbeat:a": 0})
    scheduler.tick()
    assert sent == ["a"]


def test_a_run_that_leaves_the_count_is_recorded(
    scheduler: RedBeatScheduler, monkeypatch: Any
) -> None:
    """An override of `reserve` that only updates the last run."""
    sending(monkeypatch)

    def reserve(self: Any, entry: RedBeatSchedulerEntry) -> RedBeatSchedulerEntry:
        return entry.next(only_update_last_run_at=True)

    monkeypatch.setattr(RedBeatScheduler, "reserve", reserve)
    entry = overdue(scheduler.app)
    scheduler.tick()
    stored = RedBeatSchedulerEntry.from_key(entry.key, app=scheduler.app)
    assert stored.total_run_count == 5
    assert stored.last_run_at is not None
    assert datetime.now(UTC) - stored.last_run_at < timedelta(minutes=1)


def test_an_entry_rescheduled_while_it_is_dispatched_keeps_what_its_user_said(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: Any
) -> None:
    base = datetime.now(UTC) - timedelta(minutes=50)
    sending(monkeypatch, lambda entry: overdue(scheduler.app).reschedule(base))
    entry = overdue(scheduler.app)
    scheduler.tick()
    stored = RedBeatSchedulerEntry.from_key(entry.key, app=scheduler.app)
    assert stored.last_run_at == base
    score: Any = client.zscore(SCHEDULE, entry.key)
    assert abs(score - (base + timedelta(hours=1)).timestamp()) < 2


def test_an_entry_made_anew_while_it_is_dispatched_has_no_past(
    scheduler: RedBeatScheduler, monkeypatch: Any
) -> None:
    def remake(entry: RedBeatSchedulerEntry) -> None:
        entry.delete()
        RedBeatSchedulerEntry("a", "tasks.new", schedule(60), app=scheduler.app).save()

    sending(monkeypatch, remake)
    entry = overdue(scheduler.app)
    scheduler.tick()
    assert RedBeatSchedulerEntry.from_key(entry.key, app=scheduler.app).total_run_count == 0


def test_a_one_off_without_meta_that_is_saved_while_it_runs_does_not_run_again(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: Any
) -> None:
    at = once(datetime.now(UTC) - timedelta(minutes=1))

    def save(entry: RedBeatSchedulerEntry) -> None:
        RedBeatSchedulerEntry("a", "tasks.a", at, app=scheduler.app).save()

    sent = sending(monkeypatch, save)
    save(mock.Mock())
    client.hdel("redbeat:a", "meta")
    for _ in range(3):
        scheduler.tick()
    assert sent[:1] == ["a"]
    assert RedBeatSchedulerEntry.from_key("redbeat:a", app=scheduler.app).total_run_count >= 1


@pytest.mark.parametrize("fails", [False, True], ids=["run", "set aside"])
def test_a_key_that_becomes_another_type_while_it_is_dispatched_hurts_only_itself(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: Any, fails: bool
) -> None:
    """The other runs are recorded, and the next tick goes on."""

    def replace(entry: RedBeatSchedulerEntry) -> None:
        if entry.name == "odd":
            client.delete(entry.key)
            client.set(entry.key, "cache")
            if fails and entry.claim:
                entry.claim.set_aside(ValueError("no"))

    sent = sending(monkeypatch, replace)
    for name in ("good", "odd"):
        overdue(scheduler.app, name)
    scheduler.tick()
    assert sorted(sent) == ["good", "odd"]
    assert RedBeatSchedulerEntry.from_key("redbeat:good", scheduler.app).total_run_count == 6
    assert client.get("redbeat:odd") == "cache"
    overdue(scheduler.app, "later")
    scheduler.tick()
    assert sorted(sent) == ["good", "later", "odd"]


@pytest.fixture
def guarded_app(start_redis: StartRedis, make_app_with: MakeApp) -> Celery:
    """An application without a lock, whose user may touch the keys of redbeat alone."""
    server = start_redis(user=["beat on >pass ~redbeat:* &* +@all"])
    url = f"redis://beat:pass@127.0.0.1:{server.port}/0"
    return make_app_with(redbeat_redis_url=url, redbeat_lock_key=None)


def test_a_member_that_the_acl_refuses_hurts_only_itself(
    guarded_app: Celery, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside by its score alone, and told once, by its key."""
    sent = sending(monkeypatch)
    scheduler, client = RedBeatScheduler(guarded_app), get_redis(guarded_app)
    client.zadd(SCHEDULE, {"heartbeat": 0})
    for round_ in range(3):
        overdue(guarded_app, f"good-{round_}")
        scheduler._retries_set_aside_at = 0
        scheduler.tick()
    assert sent == ["good-0", "good-1", "good-2"]
    assert RedBeatSchedulerEntry.from_key("redbeat:good-2", guarded_app).total_run_count == 6
    assert client.zscore(SCHEDULE, "heartbeat") == -2
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "Set aside heartbeat" in told
    assert "Allow the key in the ACL" in told


def test_a_member_that_the_acl_refuses_runs_once_it_is_allowed(
    guarded_app: Celery, monkeypatch: Any
) -> None:
    sent = sending(monkeypatch)
    scheduler, client = RedBeatScheduler(guarded_app), get_redis(guarded_app)
    client.zadd(SCHEDULE, {"heartbeat": 0})
    scheduler.tick()
    client.acl_setuser("beat", enabled=True, keys=["*"])
    client.hset("heartbeat", "definition", f'{{"name": "h", "task": "t", "schedule": {NOW}}}')
    scheduler._retries_set_aside_at = 0
    for _ in range(2):
        scheduler.tick()
    assert sent == ["h"]


def test_an_acl_that_refuses_to_read_any_entry_sets_none_aside(
    start_redis: StartRedis, make_app_with: MakeApp
) -> None:
    """Where the command is refused, nothing is wrong with the entries."""
    server = start_redis(user=["beat on >pass ~* &* +@all -hmget"])
    app = make_app_with(redbeat_redis_url=f"redis://beat:pass@127.0.0.1:{server.port}/0")
    with pytest.raises(redis.exceptions.NoPermissionError):
        get_storage(app).read_entries(["redbeat:a"])


@pytest.mark.parametrize("meta", ["garbage", "null", "[]", '{"last_run_at": "2020"}', '"x"'])
def test_saving_replaces_a_meta_that_nobody_can_read(
    client_app: Celery, client: redis.Redis, meta: str
) -> None:
    """As the line says that tells of an entry set aside."""
    entry = overdue(client_app)
    client.hset(entry.key, "meta", meta)
    overdue(client_app)
    assert RedBeatSchedulerEntry.from_key(entry.key, app=client_app).total_run_count == 5


def test_an_entry_whose_meta_is_no_text_is_replaced_together_with_a_removal(
    client_app: Celery, client: redis.Redis
) -> None:
    """Both are made, as one change."""
    timetable, fields = Timetable(client_app), {"task": "t", "schedule": timedelta(hours=1)}
    timetable.update({"a": fields, "gone": fields})
    client.hset("redbeat:a", "meta", b"\xff\xfe")
    timetable.replace([timetable.build("a", fields)], deleted=["gone"])
    assert list(timetable) == ["a"]
    assert timetable["a"].total_run_count == 0


def test_a_lock_whose_token_is_no_text_is_waited_for(
    client_app: Celery, client: redis.Redis
) -> None:
    """Its holder is nobody that we know."""
    client.set("redbeat::lock", b"\xff\xfe", px=60000)
    scheduler = RedBeatScheduler(client_app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    assert scheduler.lock is None
    client.delete("redbeat::lock")
    scheduler.tick()
    assert scheduler.lock is not None


def test_the_extend_script_works_as_that_of_a_lock_of_redis_py(redis_client: redis.Redis) -> None:
    """Renewed to the full time, under its own token."""
    lock = redis.lock.Lock(redis_client, "lock", timeout=100)
    extend: Any = redis_client.register_script(LUA_EXTEND_TO_SCRIPT)
    lock.lua_extend = extend
    assert lock.acquire()
    lock.extend(100)
    assert lock.owned()
    remaining: Any = redis_client.ttl("lock")
    assert 95 <= remaining <= 100
    lock.release()
    assert not redis_client.exists("lock")


def test_a_lock_that_was_assigned_is_released_at_the_end(
    make_app_with: MakeApp, redis_url: str, redis_client: redis.Redis
) -> None:
    """Though only the thread that took it can."""
    scheduler = RedBeatScheduler(make_app_with(redbeat_redis_url=redis_url))
    lock = redis.lock.Lock(redis_client, "redbeat::lock", timeout=100)
    assert lock.acquire()
    scheduler.lock = lock
    scheduler.close()
    assert scheduler.lock is None
    assert not redis_client.exists("redbeat::lock")


@pytest.mark.parametrize("make", [fakeredis.FakeRedis, redis.Redis], ids=["fakeredis", "redis"])
def test_a_client_that_answers_in_bytes_will_do(
    make_app_with: MakeApp, redis_server: Any, make: Any
) -> None:
    """It leads, dispatches, and lets go."""
    app = make_app_with(
        redbeat_redis_url="redis://injected.invalid/0",
        beat_schedule={"static": {"task": "tasks.a", "schedule": 3600}},
    )
    app.redbeat_redis = make(port=redis_server.port)
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    assert scheduler.lock is not None
    assert list(Timetable(app)) == ["static"]
    assert RedBeatScheduler(app, lazy=True).info.count("leader ->") == 1
    scheduler.close()
    assert Timetable(app).leader() is None


def test_bytes_that_are_no_text_end_nothing(
    make_app_with: MakeApp, redis_url: str, redis_client: redis.Redis
) -> None:
    """On the channel, among the names of static entries, and in reports."""
    redis_client.sadd("redbeat::statics", b"\xff")
    redis_client.hset("redbeat::reports", b"\xff", b"\xff")
    app = make_app_with(
        redbeat_redis_url=redis_url, beat_schedule={"s": {"task": "t", "schedule": 9}}
    )
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.rest.listen(0.01, before=0)
    redis_client.publish("redbeat::changed", b"\xff")
    assert scheduler.rest.listen(5, before=0)
    scheduler.tick()
    assert scheduler.lock is not None


def test_a_beat_leads_where_it_may_not_read_reports(
    start_redis: StartRedis, make_app_with: MakeApp
) -> None:
    server = start_redis(user=["guest on >pass ~* &* +@all -hgetall -hdel"])
    url = f"redis://guest:pass@127.0.0.1:{server.port}/0"
    scheduler = RedBeatScheduler(make_app_with(redbeat_redis_url=url))
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    assert scheduler._is_in_office


def test_static_entries_come_back_without_a_leader_when_redis_lost_its_data(
    make_app_with: MakeApp, redis_url: str, redis_client: redis.Redis
) -> None:
    app = make_app_with(
        redbeat_redis_url=redis_url,
        redbeat_lock_key=None,
        beat_schedule={"static": {"task": "t", "schedule": 3600}},
    )
    scheduler = RedBeatScheduler(app)
    scheduler.tick()
    redis_client.flushall()
    for _ in range(2):
        scheduler.tick()
    assert "static" in Timetable(app)


def test_every_start_logs_the_static_entries(
    make_app_with: MakeApp, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are stored as they are, too."""
    caplog.set_level(logging.DEBUG, "celery.beat")
    schedule_ = {"static": {"task": "t", "schedule": 3600}}
    for _ in range(2):
        RedBeatScheduler(make_app_with(redbeat_redis_url=redis_url, beat_schedule=schedule_))
    told = [record for record in caplog.messages if record.startswith("beat: Stored entry: ")]
    assert sum("static" in line for line in told) == 2


def test_an_entry_object_in_the_static_schedule_says_whether_it_is_enabled(
    make_app_with: MakeApp, redis_url: str
) -> None:
    app = make_app_with(redbeat_redis_url=redis_url)
    entry = RedBeatSchedulerEntry("s", "t", schedule(9), app=app).save()
    entry.enabled = False
    app.conf.beat_schedule = {"s": entry}
    RedBeatScheduler(app)
    assert not Timetable(app)["s"].enabled


def test_a_paused_one_off_whose_time_has_passed_is_not_pruned(
    client_app: Celery, scheduler: RedBeatScheduler
) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    RedBeatSchedulerEntry("a", "t", once(at), app=client_app, enabled=False).save()
    scheduler.tick()
    timetable = Timetable(client_app)
    assert timetable.listing("a").state == "paused"
    assert timetable.prune() == []


def test_the_hook_leaves_schedulers_of_others_alone() -> None:
    """A project may import this package and run Celery's own scheduler."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=object()))


def test_an_entry_without_a_name_bears_that_of_its_key(
    scheduler: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Other languages may leave it out."""
    caplog.set_level(logging.INFO)
    client.hset("redbeat:nameless", "definition", f'{{"task": "tasks.a", "schedule": {NOW}}}')
    client.zadd(SCHEDULE, {"redbeat:nameless": 0})
    scheduler.tick()
    assert "Sending due task nameless (tasks.a)" in caplog.text
