"""The scheduler's surface and its tick, on each kind of storage."""

import json
import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any
from unittest import mock

import kombu.messaging
import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule
from redis.exceptions import LockNotOwnedError

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, signals
from redbeat.schedulers import HANDFUL, acquire_distributed_beat_lock, get_redis, get_storage
from redbeat.store.storage import Outcome, Storage
from support.apps import MakeApp
from support.bare import write_bare
from support.servers import RedisServer
from support.wire import Proxy

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"


@pytest.fixture
def scheduler(client_app: Celery) -> RedBeatScheduler:
    """A scheduler without a lock, on each kind of storage in turn."""
    client_app.conf.redbeat_lock_key = None
    return RedBeatScheduler(client_app)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that schedulers have sent, in order."""
    tasks: list[str] = []

    def send_task(self: RedBeatScheduler, name: str, *args: Any, **kwargs: Any) -> Any:
        tasks.append(name)
        return self.app.AsyncResult("some-id")

    monkeypatch.setattr(RedBeatScheduler, "send_task", send_task)
    return tasks


def due(app: Celery, name: str, every: float = 60, **fields: Any) -> RedBeatSchedulerEntry:
    """An entry that should have run a minute ago."""
    ran = datetime.now(UTC) - timedelta(seconds=every + 60)
    entry = RedBeatSchedulerEntry(
        name, f"tasks.{name}", schedule(every), app=app, last_run_at=ran, **fields
    )
    return entry.save()


def later(app: Celery, name: str, seconds: float) -> RedBeatSchedulerEntry:
    """An entry that is due in so many seconds."""
    return RedBeatSchedulerEntry(
        name, f"tasks.{name}", schedule(seconds), app=app, last_run_at=datetime.now(UTC)
    ).save()


def score_of(client: Any, name: str) -> float | None:
    score: float | None = client.zscore(SCHEDULE, f"redbeat:{name}")
    return score


def stored(app: Celery, name: str) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)


def test_a_tick_runs_all_that_is_due_and_nothing_else(
    scheduler: RedBeatScheduler, sent: list[str], client: redis.Redis
) -> None:
    """Each once; it returns the time to the first run after."""
    for name in ("a", "b"):
        due(scheduler.app, name)
    later(scheduler.app, "c", 20)
    wait = scheduler.tick()
    assert sorted(sent) == ["tasks.a", "tasks.b"]
    assert 18 < wait <= 20
    scheduler.tick()
    assert len(sent) == 2


def test_a_run_is_counted_and_the_next_one_set_to_the_fraction(
    scheduler: RedBeatScheduler, sent: list[str], client: redis.Redis
) -> None:
    """The score follows the run, not the tick."""
    due(scheduler.app, "a", every=1.5)
    scheduler.tick()
    entry = stored(scheduler.app, "a")
    assert entry.total_run_count == 1
    assert entry.last_run_at is not None
    assert score_of(client, "a") == pytest.approx(entry.last_run_at.timestamp() + 1.5, abs=1e-5)


def test_an_idle_tick_wants_to_sleep_as_long_as_it_may(scheduler: RedBeatScheduler) -> None:
    """Nothing is stored, or nothing is due within `max_interval`."""
    assert scheduler.tick() == scheduler.max_interval == 300
    later(scheduler.app, "far", 3600)
    assert scheduler.tick() == 300


def test_a_score_that_was_rounded_down_runs_at_its_exact_time_and_once(
    scheduler: RedBeatScheduler, sent: list[str], client: redis.Redis
) -> None:
    """Claimed up to a second early, it gets its exact due time instead."""
    entry = later(scheduler.app, "a", 0.9)
    assert entry.last_run_at is not None
    exact = entry.last_run_at.timestamp() + 0.9
    client.zadd(SCHEDULE, {entry.key: int(time.time())})
    wait = scheduler.tick()
    assert sent == []
    assert 0 < wait < 0.9
    assert score_of(client, "a") == pytest.approx(exact, abs=1e-5)


def test_many_due_entries_are_drained_batch_by_batch(
    scheduler: RedBeatScheduler, sent: list[str]
) -> None:
    """One tick runs them all, also when they fill several batches to the last."""
    scheduler.app.redbeat_conf.batch_size = 3
    for number in range(9):
        due(scheduler.app, f"e{number}")
    scheduler.tick()
    assert len(set(sent)) == len(sent) == 9


def test_a_slow_broker_does_not_keep_a_tick_from_draining(
    scheduler: RedBeatScheduler, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit into the time of one batch goes with the next ones."""
    monkeypatch.setattr("redbeat.beat.dispatch.FILLING_TIME", 0)
    for number in range(9):
        due(scheduler.app, f"e{number}")
    scheduler.tick()
    assert len(set(sent)) == len(sent) == 9


def test_a_lease_counts_from_its_claim_however_long_the_tick_lasts(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else other beats would find due what a long tick has just claimed."""
    scheduler.app.redbeat_conf.batch_size = 1
    leases: list[float] = []
    an_hour = 3600.0
    clock = iter([0.0, 0.0, an_hour, an_hour])

    def apply_async(self: RedBeatScheduler, entry: RedBeatSchedulerEntry, **kwargs: Any) -> None:
        score = score_of(client, entry.name)
        assert score is not None
        leases.append(score - time.time())
        self.reserve(entry)

    monkeypatch.setattr(RedBeatScheduler, "apply_async", apply_async)
    monkeypatch.setattr("redbeat.schedulers._clocks", lambda: (next(clock), 0.0))
    for name in "ab":
        due(scheduler.app, name)
    scheduler.tick()
    in_time, late = leases
    assert 0 < in_time < an_hour < late


@pytest.mark.parametrize("every", [60, 100_000], ids=["due", "due later"])
def test_an_entry_that_is_deleted_while_beat_claims_goes_without_a_word_and_stays_away(
    client_app: Celery,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    sent: list[str],
    monkeypatch: pytest.MonkeyPatch,
    every: float,
) -> None:
    """Its hash and its place in the schedule went together, so that nothing is restored."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"a": {"task": "tasks.a", "schedule": every}}
    scheduler = RedBeatScheduler(client_app)
    scheduler.max_interval = 2 * every
    entry = stored(client_app, "a")
    entry.reschedule(datetime.now(UTC) - timedelta(seconds=90))
    claim_due = Storage.claim_due

    def deleting(self: Storage, *args: Any) -> Any:
        found = claim_due(self, *args)
        entry.delete()
        return found

    monkeypatch.setattr(Storage, "claim_due", deleting)
    scheduler.tick()
    assert sent == []
    assert score_of(client, "a") is None
    assert "Failed to load" not in caplog.text


def test_maybe_due_is_called_once_per_run_with_the_producer(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Error trackers patch it on the class and call it positionally."""
    seen: list[tuple[str, list[str]]] = []
    original = RedBeatScheduler.maybe_due

    def tracked(*args: Any, **kwargs: Any) -> Any:
        seen.append((args[1].name, list(kwargs)))
        return original(*args, **kwargs)

    monkeypatch.setattr(RedBeatScheduler, "maybe_due", tracked)
    due(scheduler.app, "a")
    later(scheduler.app, "b", 30)
    scheduler.tick()
    assert seen == [("a", ["producer"]), ("b", ["producer"])]


def test_the_tick_returns_the_smallest_wait_that_maybe_due_gave(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the due entries and the first later one."""
    waits = {"a": 7.0, "b": 42.0, "c": 11.0}
    monkeypatch.setattr(
        RedBeatScheduler, "maybe_due", lambda self, entry, **kwargs: waits[entry.name]
    )
    due(scheduler.app, "a")
    due(scheduler.app, "b")
    later(scheduler.app, "c", 30)
    assert scheduler.tick() == 7.0


def test_an_entry_that_an_override_holds_back_stays_due(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, sent: list[str]
) -> None:
    """It is offered again by the next tick, and not in a hot loop by the same one."""
    due(scheduler.app, "a")
    scheduler.app.redbeat_conf.batch_size = 1
    with monkeypatch.context() as patch:
        patch.setattr(RedBeatScheduler, "maybe_due", lambda self, entry, **kwargs: 5.0)
        assert scheduler.tick() == 5.0
    scheduler.tick()
    assert sent == ["tasks.a"]


def test_a_message_that_cannot_be_sent_is_logged_and_counted(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others go on, and it is not tried again in a hot loop."""

    def send_task(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "tasks.bad":
            raise ValueError("does not serialise")

    monkeypatch.setattr(RedBeatScheduler, "send_task", send_task)
    due(scheduler.app, "bad")
    due(scheduler.app, "good")
    caplog.set_level(logging.DEBUG, logger="celery.beat")
    scheduler.tick()
    assert "Scheduler: Message Error: Couldn't apply scheduled task bad" in caplog.text
    assert "Traceback" in caplog.text
    assert stored(scheduler.app, "bad").total_run_count == 1
    assert stored(scheduler.app, "good").total_run_count == 1


def test_a_deleted_entry_stays_deleted_while_beat_dispatches_it(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    """Neither its hash nor its member comes back."""
    entry = due(scheduler.app, "a")
    monkeypatch.setattr(RedBeatScheduler, "send_task", lambda *args, **kwargs: entry.delete())
    scheduler.tick()
    assert client.keys("redbeat:*") == []


def test_an_entry_saved_while_beat_dispatches_it_keeps_its_new_time(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    """The run under way is counted all the same."""
    due(scheduler.app, "a")

    def save_anew(self: Any, *args: Any, **kwargs: Any) -> None:
        RedBeatSchedulerEntry(
            "a", "tasks.other", crontab(0, 0, month_of_year=1), app=self.app
        ).save()
        client.zadd(SCHEDULE, {"redbeat:a": 4_000_000_000})

    monkeypatch.setattr(RedBeatScheduler, "send_task", save_anew)
    scheduler.tick()
    entry = stored(scheduler.app, "a")
    assert entry.task == "tasks.other"
    assert entry.total_run_count == 1
    assert score_of(client, "a") == 4_000_000_000


def test_a_member_without_a_hash_is_dropped_and_logged(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    sent: list[str],
) -> None:
    """And hurts nobody else, due or due later."""
    client.zadd(SCHEDULE, {"redbeat:ghost": 5, "redbeat:spirit": time.time() + 9})
    due(scheduler.app, "a")
    assert scheduler.tick() == 0
    assert sent == ["tasks.a"]
    assert "Failed to load redbeat:ghost" in caplog.text
    assert client.zrange(SCHEDULE, 0, -1) == ["redbeat:a"]


@pytest.mark.parametrize(
    "definition",
    [
        "{not json",
        '{"name": "bad", "task": "t"}',
        '{"name": "bad", "task": "t", "schedule": {"__type__": "tea"}}',
        '{"name": "bad", "task": "t", "schedule": {"__type__": "crontab", "minute": "99"}}',
        "[]",
    ],
)
def test_a_malformed_entry_hurts_only_itself(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    sent: list[str],
    definition: str,
) -> None:
    """It is logged with its key and set aside, with the reason in its hash."""
    client.hset("redbeat:bad", "definition", definition)
    client.zadd(SCHEDULE, {"redbeat:bad": 1})
    due(scheduler.app, "good")
    scheduler.tick()
    assert sent == ["tasks.good"]
    assert "redbeat:bad" in caplog.text
    assert score_of(client, "bad") == -2
    reason: Any = client.hget("redbeat:bad", "set_aside")
    assert json.loads(reason)["reason"]


def test_an_entry_that_was_set_aside_runs_once_it_is_saved_anew(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """The reason goes with it."""
    client.hset("redbeat:a", "definition", "{not json")
    client.zadd(SCHEDULE, {"redbeat:a": 1})
    scheduler.tick()
    due(scheduler.app, "a")
    assert not client.hexists("redbeat:a", "set_aside")
    scheduler.tick()
    assert sent == ["tasks.a"]


def test_an_entry_that_was_set_aside_runs_once_its_definition_is_another_one(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Also when only the hash is written, as another language does; not before."""
    scheduler.app.redbeat_conf.poll_interval = 0
    good = due(scheduler.app, "a").encode_definition()
    client.hset("redbeat:a", "definition", "{not json")
    scheduler.tick()
    scheduler.tick()
    assert score_of(client, "a") == -2
    client.hset("redbeat:a", "definition", good)
    scheduler.tick()
    scheduler.tick()
    assert sent == ["tasks.a"]
    assert not client.hexists("redbeat:a", "set_aside")


def test_of_many_entries_that_are_set_aside_each_is_looked_at_in_turn(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], monkeypatch: Any
) -> None:
    """Whichever is mended is found within one round of pages."""
    monkeypatch.setattr("redbeat.beat.dispatch.SET_ASIDE_PAGE", 2)
    scheduler.app.redbeat_conf.poll_interval = 0
    good = {name: due(scheduler.app, name).encode_definition() for name in "abcde"}
    for name in good:
        client.hset(f"redbeat:{name}", "definition", "{not json")
    scheduler.tick()
    for name, definition in good.items():
        client.hset(f"redbeat:{name}", "definition", definition)
        for _ in range(4):
            scheduler.tick()
        assert sent.pop() == f"tasks.{name}"
    assert sent == []


def test_a_tick_reads_one_page_of_the_entries_that_are_set_aside(
    make_app_with: MakeApp, proxy: Proxy, monkeypatch: Any
) -> None:
    """However many there are, and the page after it the next time."""
    monkeypatch.setattr("redbeat.beat.dispatch.SET_ASIDE_PAGE", 2)
    app = make_app_with(
        redbeat_redis_url=proxy.url(), redbeat_lock_key=None, redbeat_poll_interval=0.001
    )
    scheduler = RedBeatScheduler(app)
    for name in "abcde":
        due(app, name)
        get_redis(app).hset(f"redbeat:{name}", "definition", "{not json")
    scheduler.tick()
    looks = []
    for _ in range(3):
        with proxy.counting() as traffic:
            scheduler.tick()
        looks.append([words[1] for words in traffic.commands if words[0] == "HMGET"])
    assert sorted(map(len, looks)) == [1, 2, 2]
    assert sorted(key for look in looks for key in look) == [f"redbeat:{name}" for name in "abcde"]


def test_a_commit_of_more_than_a_script_may_change_is_made_by_several(
    make_app_with: MakeApp, proxy: Proxy, redis_client: redis.Redis, monkeypatch: Any
) -> None:
    """In one round trip; it counts all that still bore the lease, and no other."""
    monkeypatch.setattr("redbeat.store.storage.SCRIPT_SIZE", 2)
    storage = get_storage(make_app_with(redbeat_redis_url=proxy.url()))
    redis_client.zadd(SCHEDULE, {f"redbeat:{name}": 5 for name in "abcde"} | {"redbeat:other": 6})
    storage.commit(4, [Outcome("redbeat:a", 7)])
    outcomes = [Outcome(f"redbeat:{name}", 7) for name in ("a", "b", "c", "d", "e", "other")]
    with proxy.counting() as traffic:
        assert storage.commit(5, outcomes) == 5
    assert traffic.round_trips == 1
    assert traffic.names == ["MULTI", "EVALSHA", "EVALSHA", "EVALSHA", "EXEC"]
    assert {score_of(redis_client, name) for name in "abcde"} == {7}
    assert score_of(redis_client, "other") == 6


def test_a_static_entry_whose_hash_is_gone_is_restored(
    client_app: Celery, client: redis.Redis
) -> None:
    """From `beat_schedule`, whether it was due or not."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"due": STATIC, "later": STATIC}
    scheduler = RedBeatScheduler(client_app)
    client.delete("redbeat:due", "redbeat:later")
    client.zadd(SCHEDULE, {"redbeat:due": 1})
    scheduler.tick()
    assert client.exists("redbeat:due", "redbeat:later") == 2
    assert client.zcard(SCHEDULE) == 2


def test_a_disabled_entry_is_skipped_at_its_time_and_moved_to_its_next(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Its history stays as it was."""
    entry = due(scheduler.app, "a", enabled=False)
    before = client.hgetall(entry.key)
    scheduler.tick()
    assert sent == []
    score = score_of(client, "a")
    assert score == pytest.approx(time.time() + 60, abs=2)
    assert client.hgetall(entry.key) == before


def test_a_calendar_entry_that_never_ran_waits_for_its_slot(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Also when another language inserted it without meta and with score 0; then it runs."""
    yearly = {"__type__": "crontab", "minute": "0", "hour": "0", "month_of_year": "1"}
    write_bare(client, "c", yearly, 0)
    scheduler.tick()
    assert sent == []
    score = score_of(client, "c")
    assert score is not None
    slot = datetime.fromtimestamp(score, UTC)
    assert (slot.month, slot.hour, slot.minute, slot.second) == (1, 0, 0, 0)
    last_run_at = stored(scheduler.app, "c").last_run_at
    assert last_run_at is not None
    assert stored(scheduler.app, "c").total_run_count == 0


DAY = 86400
#: A slot that is past for some hours, while the next one is far.
SLOT = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
DAILY = {"__type__": "crontab", "minute": "0", "hour": str(SLOT.hour)}
ONCE = {
    "__type__": "rrule",
    "freq": 3,
    "count": 1,
    "dtstart": int(SLOT.timestamp()),
    "dtstart_tz": 0,
}


@pytest.mark.parametrize(
    ("rule", "then"), [(DAILY, SLOT.timestamp() + DAY), (ONCE, -1)], ids=["crontab", "rrule"]
)
def test_a_calendar_entry_that_never_ran_runs_at_the_slot_that_its_writer_gave_as_score(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    sent: list[str],
    rule: dict[str, Any],
    then: float,
) -> None:
    """However late beat comes to it, and once."""
    write_bare(client, "c", rule, SLOT.timestamp())
    scheduler.tick()
    scheduler.tick()
    assert sent == ["tasks.c"]
    assert stored(scheduler.app, "c").total_run_count == 1
    assert score_of(client, "c") == then


def test_an_entry_whose_history_cannot_be_written_hurts_no_other(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """It is set aside."""

    class Broken(RedBeatSchedulerEntry):
        def encode_meta(self) -> str:
            if self.name == "c":
                raise RuntimeError("a bug")
            return super().encode_meta()

    due(scheduler.app, "a")
    write_bare(client, "c", DAILY, SLOT.timestamp())
    scheduler.Entry = Broken
    scheduler.tick()
    assert sent == ["tasks.a"]
    assert score_of(client, "c") == -2


@pytest.mark.parametrize("score", [0, 1, 61], ids=str)
def test_a_score_that_is_no_slot_makes_no_calendar_entry_run(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], score: int
) -> None:
    """Zero says *look at it now*, though it is the midnight with which 1970 began."""
    write_bare(client, "c", {"__type__": "crontab"}, score)
    scheduler.tick()
    assert sent == []


def test_a_calendar_entry_that_never_ran_is_left_alone_before_its_score(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Looking ahead to it writes nothing."""
    ahead = float(int(time.time()) // 60 * 60 + 120)
    write_bare(client, "c", {"__type__": "crontab"}, ahead)
    scheduler.tick()
    assert sent == []
    assert score_of(client, "c") == ahead
    assert client.hget("redbeat:c", "meta") is None


class Killed(BaseException):
    """What nothing catches, and what leaves nothing behind but what is in Redis."""


class Dying(RedBeatScheduler):
    """A scheduler that is killed before its first message."""

    def maybe_due(self, entry: RedBeatSchedulerEntry, **kwargs: Any) -> float:
        raise Killed


def test_the_first_slot_of_a_calendar_entry_outlives_a_beat_that_is_killed_in_it(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Its history begins before its message goes: the lease alone would not tell the slot."""
    write_bare(client, "c", DAILY, SLOT.timestamp())
    with pytest.raises(Killed):
        Dying(scheduler.app).tick()
    lease = score_of(client, "c")
    assert lease is not None
    assert lease > time.time()
    client.zadd(SCHEDULE, {"redbeat:c": lease - 60})
    scheduler.tick()
    assert sent == ["tasks.c"]


def test_the_schedule_shows_due_entries_and_the_first_later_one(
    scheduler: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """By name; a ghost is removed and logged at error."""
    due(scheduler.app, "a")
    for number, seconds in enumerate((30, 40)):
        later(scheduler.app, f"later{number}", seconds)
    client.zadd(SCHEDULE, {"redbeat:ghost": 5})
    assert set(scheduler.schedule) == {"a", "later0"}
    assert [r.levelno for r in caplog.records if "Failed to load" in r.message] == [logging.ERROR]
    assert client.zscore(SCHEDULE, "redbeat:ghost") is None


def test_reserve_stores_the_advanced_entry_at_once(scheduler: RedBeatScheduler) -> None:
    """Outside a tick."""
    entry = due(scheduler.app, "a")
    assert scheduler.reserve(entry).total_run_count == 1
    assert stored(scheduler.app, "a").total_run_count == 1


def test_subclasses_of_entries_with_fields_of_their_own_run(
    client_app: Celery, client: redis.Redis, sent: list[str]
) -> None:
    """Extra fields of the definition go to the constructor."""

    class Tenants(RedBeatSchedulerEntry):
        def __init__(self, *args: Any, tenant: str = "", **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.tenant = tenant

    class Scheduler(RedBeatScheduler):
        Entry = Tenants

        def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
            assert entry.tenant == "acme"
            return super().apply_async(entry, *args, **kwargs)

    client_app.conf.redbeat_lock_key = None
    definition = json.loads(due(client_app, "a").encode_definition()) | {"tenant": "acme"}
    client.hset("redbeat:a", "definition", json.dumps(definition))
    Scheduler(client_app).tick()
    assert sent == ["tasks.a"]


# Static entries

STATIC = {"task": "tasks.static", "schedule": 30}


def test_static_entries_are_stored_and_removed_with_the_code(
    client_app: Celery, client: redis.Redis
) -> None:
    """Their names are tracked, so that a removed one goes and a dynamic one stays."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC, "two": STATIC}
    due(client_app, "dynamic")
    RedBeatScheduler(client_app)
    assert client.smembers("redbeat::statics") == {"one", "two"}
    client_app.conf.beat_schedule = {"two": STATIC}
    RedBeatScheduler(client_app).tick()
    assert client.smembers("redbeat::statics") == {"two"}
    assert client.exists("redbeat:one") == 0
    assert client.exists("redbeat:two", "redbeat:dynamic") == 2


def test_a_static_entry_keeps_its_last_run_over_a_restart(client_app: Celery) -> None:
    """A restarted beat does not start its timer anew."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app)
    ran = stored(client_app, "one").next().last_run_at
    RedBeatScheduler(client_app)
    assert stored(client_app, "one").last_run_at == ran
    assert stored(client_app, "one").total_run_count == 1


def test_unchanged_static_entries_cost_one_round_trip_each_and_no_write(
    make_app_with: MakeApp, proxy: Proxy
) -> None:
    """A restart of beat rewrites nothing."""
    static = {f"static{number}": STATIC for number in range(50)}
    app = make_app_with(redbeat_redis_url=proxy.url(), redbeat_lock_key=None, beat_schedule=static)
    RedBeatScheduler(app)
    with proxy.counting() as traffic:
        RedBeatScheduler(app)
    assert traffic.round_trips <= 50 + 5
    assert not {"HSET", "ZADD", "EVALSHA", "SADD", "SREM", "DEL"} & set(traffic.names)


def test_a_static_entry_that_a_user_paused_stays_paused(client_app: Celery) -> None:
    """Over a restart, as long as the code does not say otherwise."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app)
    entry = stored(client_app, "one")
    entry.enabled = False
    entry.save()
    RedBeatScheduler(client_app)
    assert not stored(client_app, "one").enabled
    client_app.conf.beat_schedule = {"one": STATIC | {"enabled": True}}
    RedBeatScheduler(client_app)
    assert stored(client_app, "one").enabled


def test_a_static_entry_that_stays_paused_is_told_of_at_each_start(
    client_app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """Who took `"enabled": False` out of the code may think that it runs again."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC | {"enabled": False}}
    RedBeatScheduler(client_app)
    assert "stays so" not in caplog.text
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app)
    assert "'one' of beat_schedule is paused in Redis, and stays so" in caplog.text


def test_a_static_entry_that_a_user_resumed_stays_so_whatever_its_class_begins_with(
    scheduler: RedBeatScheduler,
) -> None:
    """The code says nothing about it."""

    class PausedAtFirst(RedBeatSchedulerEntry):
        def __init__(self, *args: Any, **fields: Any) -> None:
            super().__init__(*args, **{"enabled": False, **fields})

    scheduler.Entry = PausedAtFirst
    scheduler.app.conf.beat_schedule = {"one": STATIC}
    scheduler.setup_schedule()
    assert not stored(scheduler.app, "one").enabled
    entry = stored(scheduler.app, "one")
    entry.enabled = True
    entry.save()
    scheduler.setup_schedule()
    assert stored(scheduler.app, "one").enabled


def test_a_static_entry_that_was_set_aside_is_tried_again_after_a_restart(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Its definition is the same, but what was wrong may have been the code."""
    scheduler.app.conf.beat_schedule = {"one": STATIC}

    class Broken(RedBeatSchedulerEntry):
        def is_due(self) -> Any:
            raise RuntimeError("a bug")

    scheduler.Entry = Broken
    scheduler.setup_schedule()
    client.zadd(SCHEDULE, {"redbeat:one": time.time() - 1})
    scheduler.tick()
    assert score_of(client, "one") == -2
    mended = RedBeatScheduler(scheduler.app)
    assert score_of(client, "one") == pytest.approx(time.time() + 30, abs=5)
    client.hset("redbeat:one", "meta", '{"last_run_at": null}')
    client.zadd(SCHEDULE, {"redbeat:one": 0})
    mended.tick()
    assert sent == ["tasks.static"]


def make_zoned(make_app_with: MakeApp, server: RedisServer, zone: str) -> Celery:
    """An application with a task at an hour in a zone, which its code does not name.

    In UTC that is in four or five hours.
    """
    hour = (datetime.now(UTC) + timedelta(hours=5)).hour
    fields = {"task": "tasks.daily", "schedule": crontab(minute="0", hour=str(hour))}
    return make_app_with(
        redbeat_redis_url=server.url(),
        redbeat_lock_key=None,
        timezone=zone,
        beat_schedule={"daily": fields},
    )


def test_a_static_entry_moves_with_the_time_zone_of_its_application(
    make_app_with: MakeApp, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Though nothing is different in what is stored."""
    RedBeatScheduler(make_zoned(make_app_with, redis_server, "UTC"))
    in_utc = score_of(redis_client, "daily")
    app = make_zoned(make_app_with, redis_server, "Asia/Kathmandu")
    RedBeatScheduler(app)
    assert score_of(redis_client, "daily") == stored(app, "daily").score
    assert score_of(redis_client, "daily") != in_utc


def test_a_static_entry_whose_slot_is_past_is_left_to_the_tick(
    make_app_with: MakeApp, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """One that was enabled by another program, and waits for its next slot, goes on waiting."""
    app = make_zoned(make_app_with, redis_server, "UTC")
    RedBeatScheduler(app)
    entry = stored(app, "daily")
    entry.last_run_at = datetime.now(UTC) - timedelta(days=3)
    redis_client.hset("redbeat:daily", "meta", entry.encode_meta())
    score = score_of(redis_client, "daily")
    RedBeatScheduler(app)
    assert score_of(redis_client, "daily") == score


def test_a_static_entry_that_is_missing_in_the_schedule_is_stored_again(
    client_app: Celery, client: redis.Redis
) -> None:
    """Though its hash is as it should be."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app)
    client.zrem(SCHEDULE, "redbeat:one")
    RedBeatScheduler(client_app)
    assert score_of(client, "one") is not None


def test_an_entry_that_cannot_be_built_is_logged_and_left_out(
    client_app: Celery, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are stored."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {
        "bad": {"task": "tasks.bad", "schedule": 30, "args": [object()]},
        "worse": {"nonsense": 1},
        "good": STATIC,
    }
    RedBeatScheduler(client_app)
    assert client.exists("redbeat:good") == 1
    assert client.exists("redbeat:bad", "redbeat:worse") == 0
    assert "'bad'" in caplog.text
    assert "'worse'" in caplog.text


def test_a_lazily_built_scheduler_stores_nothing(client_app: Celery, client: redis.Redis) -> None:
    """Celery builds one for its banner."""
    client_app.conf.beat_schedule = {"one": STATIC}
    RedBeatScheduler(client_app, lazy=True)
    assert client.keys("*") == []


# The lock


@pytest.fixture
def locked(client_app: Celery) -> RedBeatScheduler:
    """A scheduler with a lock whose hook has not run."""
    return RedBeatScheduler(client_app)


def test_the_lock_settings_are_the_argument_the_setting_or_the_default(client_app: Celery) -> None:
    """In this order."""
    assert RedBeatScheduler(client_app).lock_timeout == 1500
    assert RedBeatScheduler(client_app, max_interval=10).lock_timeout == 50
    client_app.redbeat_conf.lock_timeout = 70
    assert RedBeatScheduler(client_app).lock_timeout == 70
    scheduler = RedBeatScheduler(client_app, lock_key="mine", lock_timeout=90)
    assert (scheduler.lock_key, scheduler.lock_timeout) == ("mine", 90)


def test_a_tick_without_the_hook_is_an_attribute_error(locked: RedBeatScheduler) -> None:
    """It says what to do."""
    with pytest.raises(AttributeError, match="beat_init"):
        locked.tick()


def test_the_hook_takes_the_free_lock_and_ticks_renew_it(
    locked: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """To its full time to live, however fresh it is."""
    caplog.set_level(logging.DEBUG, "celery.beat")
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    assert "beat: Acquiring lock..." in caplog.text
    assert "beat: Acquired lock" in caplog.text
    assert locked.lock.owned()
    client.pexpire("redbeat::lock", 5000)
    locked.tick()
    assert client.pttl("redbeat::lock") > 1_490_000
    assert "beat: Extending lock..." in caplog.text
    locked.lock_timeout = 60
    locked.tick()
    assert 55_000 < client.pttl("redbeat::lock") <= 60_000


def test_closing_releases_the_lock_and_may_be_repeated(
    locked: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """For its holder alone."""
    caplog.set_level(logging.DEBUG, "celery.beat")
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    locked.close()
    assert "beat: Releasing lock" in caplog.text
    assert locked.lock is None
    assert client.exists("redbeat::lock") == 0
    locked.close()


def test_closing_releases_the_lock_though_the_signal_came_to_a_log_handler(
    locked: RedBeatScheduler, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Which holds up every other thread that logs, until the handler of the signal is done."""
    caplog.set_level(logging.INFO, "celery.beat")
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    locked.tick()
    caplog.handler.acquire()
    try:
        locked.close()
    finally:
        caplog.handler.release()
    assert client.exists("redbeat::lock") == 0
    assert "beat: Releasing lock" in caplog.text
    assert "does not answer" not in caplog.text


def test_closing_leaves_a_lock_that_another_holds(
    locked: RedBeatScheduler, client: redis.Redis
) -> None:
    """It was lost, and taken since."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    client.set("redbeat::lock", "another")
    locked.close()
    assert client.get("redbeat::lock") == "another"


def test_a_standby_waits_says_so_and_dispatches_nothing(
    client_app: Celery,
    client: redis.Redis,
    sent: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It names the holder once, and leads as soon as the lock is free."""
    caplog.set_level(logging.INFO, "celery.beat")
    client.set("redbeat::lock", "another")
    due(client_app, "a")
    standby = RedBeatScheduler(client_app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=standby))
    assert 0 < standby.tick() <= 2
    standby.tick()
    assert sent == []
    assert caplog.text.count("Waiting for the lock redbeat::lock, held by another") == 1
    client.delete("redbeat::lock")
    standby.tick()
    assert sent == ["tasks.a"]


def test_a_lock_that_is_gone_is_taken_again(
    locked: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """The same process goes on."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    client.delete("redbeat::lock")
    due(locked.app, "a")
    locked.tick()
    assert sent == ["tasks.a"]
    assert locked.lock.owned()


def test_a_lock_that_another_has_taken_makes_a_standby(
    locked: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """It does not exit, and it dispatches nothing."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    client.set("redbeat::lock", "another")
    due(locked.app, "a")
    assert locked.tick() <= 2
    assert sent == []
    assert locked.lock is None


# Signals


@pytest.fixture
def signalled() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What the signals say, in order."""
    seen: list[tuple[str, dict[str, Any]]] = []
    receivers = []
    for name in signals.__all__:

        def receive(signal: Any, sender: Any, name: str = name, **facts: Any) -> None:
            seen.append((name, facts))

        getattr(signals, name).connect(receive)
        receivers.append(receive)
    yield seen
    for name, receiver in zip(signals.__all__, receivers, strict=True):
        getattr(signals, name).disconnect(receiver)


def test_signals_tell_what_became_of_each_entry(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    signalled: list[tuple[str, dict[str, Any]]],
) -> None:
    """With the entry, when it was due, and how late it was."""

    def send_task(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "tasks.bad":
            raise ValueError("does not serialise")

    monkeypatch.setattr(RedBeatScheduler, "send_task", send_task)
    due(scheduler.app, "good")
    due(scheduler.app, "bad")
    client.hset("redbeat:worse", "definition", "{not json")
    client.zadd(SCHEDULE, {"redbeat:worse": 1})
    scheduler.tick()
    facts = dict(signalled)
    good = facts["entry_dispatched"]
    assert good["entry"].name == "good"
    assert good["delay"] == pytest.approx(60, abs=2)
    assert datetime.now(UTC) - good["due_at"] == pytest.approx(
        timedelta(seconds=60), abs=timedelta(seconds=2)
    )
    assert facts["entry_failed"]["entry"].name == "bad"
    assert "does not serialise" in str(facts["entry_failed"]["exception"])
    assert facts["entry_set_aside"]["key"] == "redbeat:worse"
    assert facts["entry_set_aside"]["reason"]
    assert signalled[0][0] == "leadership_acquired"


def test_a_receiver_that_raises_harms_nothing(
    scheduler: RedBeatScheduler, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged."""

    def receive(**facts: Any) -> None:
        raise RuntimeError("receiver is broken")

    signals.entry_dispatched.connect(receive)
    try:
        due(scheduler.app, "a")
        scheduler.tick()
    finally:
        signals.entry_dispatched.disconnect(receive)
    assert sent == ["tasks.a"]
    assert "receiver is broken" in caplog.text
    assert stored(scheduler.app, "a").total_run_count == 1


def test_signals_tell_who_leads(
    locked: RedBeatScheduler, client: redis.Redis, signalled: list[tuple[str, dict[str, Any]]]
) -> None:
    """Acquired, lost, acquired again, and given up at the end."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    locked.tick()
    client.set("redbeat::lock", "another")
    locked.tick()
    client.delete("redbeat::lock")
    locked.tick()
    locked.close()
    locked.close()
    assert [name for name, _ in signalled] == ["leadership_acquired", "leadership_lost"] * 2


# The banner


def test_the_banner_shows_where_what_and_what_is_wrong(make_app_with: MakeApp) -> None:
    """Without a password."""
    app = make_app_with(redbeat_redis_url="redis://:secret@127.0.0.1:1/0")
    app.redbeat_redis = mock.Mock()
    app.redbeat_redis.config_get.return_value = {
        "maxmemory": "100",
        "maxmemory-policy": "allkeys-lru",
    }
    info = RedBeatScheduler(app, lazy=True).info
    assert "redis -> redis://:**@127.0.0.1:1/0" in info
    assert "redbeat::lock" in info
    assert "WARNING" in info
    assert "secret" not in info


# Costs


@pytest.mark.parametrize("broker", ["redis", "memory"])
def test_a_batch_costs_five_round_trips_however_many_are_due(
    make_app_with: MakeApp, proxy: Proxy, redis_url: str, sent: list[str], broker: str
) -> None:
    """Renew, claim, load and commit; publishing is the broker's.

    Where messages go one by one, each handful of them is committed.
    """
    broker_url = redis_url if broker == "redis" else "memory://"
    app = make_app_with(redbeat_redis_url=proxy.url(), broker_url=broker_url)
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    for number in range(200):
        due(app, f"e{number}")
    scheduler.tick()
    for number in range(200):
        due(app, f"e{number}")
        client = app.redbeat_redis
        client.zadd(SCHEDULE, {f"redbeat:e{number}": 1})
        client.hdel(f"redbeat:e{number}", "meta")
    sent.clear()
    with proxy.counting() as traffic:
        scheduler.tick()
    assert len(sent) == 200
    has_batches = broker == "redis" and hasattr(kombu.messaging.Producer, "batch")
    assert traffic.round_trips <= 5 + (0 if has_batches else 200 / HANDFUL)


def test_an_idle_tick_costs_two_round_trips(make_app_with: MakeApp, proxy: Proxy) -> None:
    """Renew and claim."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(mock.Mock(scheduler=scheduler))
    scheduler.tick()
    with proxy.counting() as traffic:
        scheduler.tick()
    assert traffic.round_trips == 2


# What others wrote


@pytest.mark.parametrize("field", ["definition", "meta"])
def test_bytes_that_are_no_text_hurt_only_their_entry(
    scheduler: RedBeatScheduler, client: Any, sent: list[str], field: str
) -> None:
    """Redis holds bytes, and others may have written them."""
    due(scheduler.app, "bad")
    client.hset("redbeat:bad", field, b"\xff\xfe")
    due(scheduler.app, "good")
    scheduler.tick()
    assert sent == ["tasks.good"]
    assert score_of(client, "bad") == -2


def test_a_member_that_is_no_entry_is_dropped(
    scheduler: RedBeatScheduler, client: Any, sent: list[str]
) -> None:
    """Due or due later."""
    client.set("redbeat:text", "no hash")
    client.zadd(SCHEDULE, {b"\xff\xfe": 1, "redbeat:text": 1, b"\xfe\xff": time.time() + 5})
    due(scheduler.app, "good")
    scheduler.tick()
    assert sent == ["tasks.good"]
    assert client.zrange(SCHEDULE, 0, -1) == ["redbeat:good"]


@pytest.mark.parametrize("task", ["null", '""', "42"])
def test_an_entry_without_a_task_is_set_aside(
    scheduler: RedBeatScheduler, client: Any, sent: list[str], task: str
) -> None:
    """It is not sent as a message that no worker can read."""
    due(scheduler.app, "a")
    definition = client.hget("redbeat:a", "definition").replace('"tasks.a"', task)
    client.hset("redbeat:a", "definition", definition)
    scheduler.tick()
    assert sent == []
    assert score_of(client, "a") == -2


def test_a_run_count_that_is_no_number_sets_the_entry_aside(
    scheduler: RedBeatScheduler, client: Any, sent: list[str]
) -> None:
    """It could never be counted."""
    due(scheduler.app, "a", total_run_count=1)
    meta = client.hget("redbeat:a", "meta").replace(": 1}", ': "many"}')
    client.hset("redbeat:a", "meta", meta)
    scheduler.tick()
    assert sent == []
    assert score_of(client, "a") == -2


def test_an_override_that_fails_before_it_reserves_is_no_hot_loop(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is counted as one whose message could not be built."""

    def apply_async(self: Any, *args: Any, **kwargs: Any) -> None:
        raise ValueError("override is broken")

    due(scheduler.app, "a")
    monkeypatch.setattr(RedBeatScheduler, "apply_async", apply_async)
    scheduler.tick()
    assert stored(scheduler.app, "a").total_run_count == 1


def test_a_malformed_entry_that_is_due_later_is_told_when_it_is_due(
    scheduler: RedBeatScheduler, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at each tick before."""
    client.hset("redbeat:bad", "definition", "{not json")
    client.zadd(SCHEDULE, {"redbeat:bad": time.time() + 60})
    assert 58 < scheduler.tick() <= 60
    assert "redbeat:bad" not in caplog.text


@pytest.mark.parametrize("wait", [None, 0, -1])
def test_an_entry_that_an_override_skips_is_no_hot_loop(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, wait: float | None
) -> None:
    """A running service offers it again after a second."""
    due(scheduler.app, "a")
    monkeypatch.setattr(RedBeatScheduler, "maybe_due", lambda self, entry, **kwargs: wait)
    scheduler.tick()
    assert scheduler.outlook is not None
    assert scheduler.outlook.first_due is not None
    assert scheduler.outlook.first_due - time.time() == pytest.approx(1, abs=0.5)


def test_an_entry_that_says_it_is_not_due_is_asked_again_when_it_says(
    client_app: Celery, client: Any, sent: list[str]
) -> None:
    """An `is_due` of a subclass may know better than its schedule."""

    class Resting(RedBeatSchedulerEntry):
        def is_due(self) -> tuple[bool, float | None]:
            return False, 40.0

    class Scheduler(RedBeatScheduler):
        Entry = Resting

    client_app.conf.redbeat_lock_key = None
    due(client_app, "a")
    assert Scheduler(client_app).tick() == 40
    assert sent == []
    assert score_of(client, "a") == pytest.approx(time.time() + 40, abs=2)


def test_a_service_that_is_away_does_not_set_an_entry_aside(
    client_app: Celery, client: Any, sent: list[str]
) -> None:
    """An override that asks one finds it at the next try."""

    class Asking(RedBeatSchedulerEntry):
        is_away = True

        def is_due(self) -> tuple[bool, float | None]:
            if Asking.is_away:
                raise ConnectionError("refused")
            return super().is_due()

    class Scheduler(RedBeatScheduler):
        Entry = Asking

    client_app.conf.redbeat_lock_key = None
    due(client_app, "a")
    scheduler = Scheduler(client_app)
    scheduler.tick()
    Asking.is_away = False
    scheduler.tick()
    assert sent == ["tasks.a"]


def test_a_lock_given_by_hand_that_is_lost_leaves_the_tick(locked: RedBeatScheduler) -> None:
    """Subclasses catch it."""
    locked.lock = mock.Mock()
    locked.lock.extend.side_effect = LockNotOwnedError("lost")
    with pytest.raises(LockNotOwnedError):
        locked.tick()


def test_names_become_text(client_app: Celery, client: Any) -> None:
    """Also those of `beat_schedule`."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {1: STATIC}
    RedBeatScheduler(client_app)
    RedBeatScheduler(client_app)
    assert client.smembers("redbeat::statics") == {"1"}
    assert score_of(client, "1") is not None


@pytest.mark.parametrize("name", ["next", "__next__", "_next_instance"])
@pytest.mark.parametrize("called", ["next", "__next__", "_next_instance"])
def test_an_override_of_what_advances_an_entry_may_call_it_by_any_name(
    client_app: Celery, name: str, called: str
) -> None:
    """They are one function, so that none of them comes back to an override of another."""

    class Marked(RedBeatSchedulerEntry):
        def __next__(self, *args: Any, **kwargs: Any) -> RedBeatSchedulerEntry:
            advanced: RedBeatSchedulerEntry = getattr(super(), called)(*args, **kwargs)
            advanced.total_run_count += 100
            return advanced

    setattr(Marked, name, Marked.__next__)
    entry = Marked("a", "tasks.a", schedule(60), app=client_app)
    assert next(entry).total_run_count == 101
    assert getattr(entry, name)().total_run_count == 101


def test_a_mock_may_stand_in_for_the_client(make_app_with: MakeApp) -> None:
    """Applications' tests inject one to keep Redis out."""
    app = make_app_with(redbeat_redis_url="redis://injected.invalid", beat_schedule={"a": STATIC})
    app.redbeat_redis = mock.MagicMock()
    scheduler = RedBeatScheduler(app)
    assert "redis://injected.invalid" in scheduler.info
    entry = RedBeatSchedulerEntry("a", "tasks.a", schedule(60), app=app)
    assert entry.save() is entry
    entry.delete()


@pytest.mark.parametrize("is_held", [True, False])
def test_a_lock_given_by_hand_is_released_only_while_it_is_held(
    scheduler: RedBeatScheduler, is_held: bool
) -> None:
    """Closing leaves alone what another has taken."""
    lock = scheduler.lock = mock.Mock()
    lock.owned.return_value = is_held
    scheduler.close()
    assert scheduler.lock is None
    assert lock.release.called is is_held


def test_looking_ahead_sends_nothing_though_an_override_would(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """An override that sends whatever is due by its meta is not asked before it is due."""

    class Eager(RedBeatScheduler):
        def maybe_due(self, entry: RedBeatSchedulerEntry, **kwargs: Any) -> float | None:
            is_due, wait = entry.is_due()
            if is_due:
                self.apply_async(entry, **kwargs)
            return wait

    due(scheduler.app, "a")
    client.zadd("redbeat::schedule", {"redbeat:a": time.time() + 60})
    eager = Eager(scheduler.app)
    assert eager.tick() == pytest.approx(60, abs=2)
    assert not sent


def test_what_was_saved_anew_is_not_removed_as_gone(
    scheduler: RedBeatScheduler, client: redis.Redis
) -> None:
    """Its score is another one by then."""
    due(scheduler.app, "a")
    scheduler._drop("redbeat:a", time.time() - 1000)
    assert client.zrank("redbeat::schedule", "redbeat:a") == 0


def test_a_long_beat_schedule_is_no_thread_that_hangs(scheduler: RedBeatScheduler) -> None:
    """Each entry is a sign of life."""
    now, stalls = [0.0], []
    scheduler.leadership.clock = lambda: now[0]

    class Slow(RedBeatSchedulerEntry):
        def save(self) -> RedBeatSchedulerEntry:
            now[0] += scheduler.leadership.stall_timeout * 0.9
            stalls.append(scheduler.leadership.is_stalled)
            return super().save()

    scheduler.Entry = Slow
    scheduler.leadership.expect(0)
    scheduler.update_from_dict({name: {"task": "tasks.a", "schedule": 60} for name in "abc"})
    assert stalls == [False] * 3


@pytest.mark.parametrize("overridden", ["due_at", "score"])
def test_an_entry_class_with_a_rule_of_its_own_decides_when_it_runs_next(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], overridden: str
) -> None:
    """As it does for `save` and `reschedule`."""

    class Jittered(RedBeatSchedulerEntry):
        @property
        def due_at(self) -> datetime | None:
            due_at = super().due_at
            return due_at and due_at + timedelta(seconds=1000 * (overridden == "due_at"))

        @property
        def score(self) -> int:
            return super().score + 1000 * (overridden == "score")

    scheduler.Entry = Jittered
    due(scheduler.app, "a", every=5)
    scheduler.tick()
    assert sent == ["tasks.a"]
    assert client.zscore("redbeat::schedule", "redbeat:a") == pytest.approx(
        time.time() + 1005, abs=2
    )


def test_an_entry_class_with_a_from_key_of_its_own_is_asked_for_what_runs(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a tick and in the property `schedule`."""

    class OfTenant(RedBeatSchedulerEntry):
        @classmethod
        def from_key(cls, key: str, app: Any = None) -> RedBeatSchedulerEntry:
            entry = super().from_key(key, app=app)
            entry.options["queue"] = "tenant"
            return entry

    queues = []
    monkeypatch.setattr(
        RedBeatScheduler,
        "apply_async",
        lambda self, entry, **kwargs: queues.append(entry.options["queue"]),
    )
    scheduler.Entry = OfTenant
    due(scheduler.app, "a")
    assert scheduler.schedule["a"].options == {"queue": "tenant"}
    scheduler.tick()
    assert queues == ["tenant"]


def static_from_key(key: str, app: Any = None) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry.from_key(key, app=app)


@pytest.mark.parametrize("kind", [staticmethod, partial, None], ids=["static", "partial", "patch"])
def test_a_from_key_that_is_no_class_method_is_asked_as_well(
    scheduler: RedBeatScheduler, sent: list[str], monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """However it was made."""
    if kind is None:
        original = RedBeatSchedulerEntry.from_key
        monkeypatch.setattr(RedBeatSchedulerEntry, "from_key", mock.Mock(wraps=original))
    else:
        own: Any = type("Own", (RedBeatSchedulerEntry,), {"from_key": kind(static_from_key)})
        scheduler.Entry = own
    due(scheduler.app, "a")
    assert list(scheduler.schedule) == ["a"]
    scheduler.tick()
    assert sent == ["tasks.a"]


SEVENTY = '{"last_run_at": null, "total_run_count": 70}'


@pytest.mark.parametrize(("meta", "runs"), [('{"last_run_at": null}', 8), (SEVENTY, 71)])
def test_a_definition_may_tell_of_runs_and_the_meta_is_right(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], meta: str, runs: int
) -> None:
    """As 2.x has it."""
    interval = {"__type__": "interval", "every": 60}
    write_bare(client, "c", interval, 0, last_run_at=None, total_run_count=7)
    client.hset("redbeat:c", "meta", meta)
    scheduler.tick()
    assert sent == ["tasks.c"]
    assert stored(scheduler.app, "c").total_run_count == runs


def test_the_signal_of_a_run_that_was_written_for_now_has_no_delay_of_decades(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    sent: list[str],
    signalled: list[tuple[str, dict[str, Any]]],
) -> None:
    """A score of zero means now."""
    write_bare(client, "c", {"__type__": "interval", "every": 60}, 0)
    scheduler.tick()
    facts = dict(signalled)["entry_dispatched"]
    assert facts["delay"] == pytest.approx(0, abs=5)
    assert facts["due_at"].timestamp() == pytest.approx(time.time(), abs=5)
