"""A running beat service with a scheduler whose `tick`, lock or client is the user's own."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from types import MethodType
from typing import Any

import pytest
import redis
from celery import Celery
from celery.beat import Service
from celery.schedules import crontab, schedule
from celery.signals import beat_init
from redis.exceptions import LockNotOwnedError

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.clocks import WallClock
from redbeat.schedulers import REDBEAT_REDIS_KEY
from redbeat.schedules import once, rrule
from support.apps import MakeApp, disconnect
from support.entries import due
from support.servers import RedisServer
from support.waiting import wait_until

LOCK = "redbeat::lock"
STATIC = {"static": {"task": "tasks.static", "schedule": 3600}}

EARLIER = datetime.now(timezone.utc) - timedelta(hours=2)

Serve = Callable[..., RedBeatScheduler]


@pytest.fixture
def serve(app: Celery) -> Iterator[Serve]:
    """Start a beat service with a scheduler of this class: each `tick()` is one of its turns."""
    with contextlib.ExitStack() as stack:

        def start(scheduler_class: type[RedBeatScheduler], app: Celery = app) -> RedBeatScheduler:
            service = Service(app, scheduler_cls=scheduler_class)
            beat_init.send(sender=service)
            scheduler: RedBeatScheduler = service.scheduler
            return stack.enter_context(contextlib.closing(scheduler))

        yield start


class Capped(RedBeatScheduler):
    """Looks at something of its own at least every 0.3 seconds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers: list[float] = []

    def tick(self, *args: Any, **kwargs: Any) -> float:
        self.answers.append(super().tick(*args, **kwargs))
        return min(self.answers[-1], 0.3)


class Copied(RedBeatScheduler):
    """Ticks in the way of 2.x, without a call of ours."""

    ticks = 0

    def tick(self, min: Any = min, **kwargs: Any) -> float:
        Copied.ticks += 1
        if self.lock:
            self.lock.extend(int(self.lock_timeout))
        waits = [
            self.maybe_due(entry, **self._maybe_due_kwargs) for entry in self.schedule.values()
        ]
        return float(min([wait for wait in waits if wait] + [0.05]))


@pytest.fixture(autouse=True)
def _uncounted() -> None:
    Copied.ticks = 0


def test_an_override_that_caps_the_wait_is_called_again_after_that_time(
    serve: Serve, app: Celery
) -> None:
    """Its return value is the number of seconds to wait, as in Celery."""
    scheduler: Any = serve(Capped)
    due(app, "a")
    for _ in range(3):
        began = time.time()
        assert scheduler.tick() == 0.0
        assert scheduler.redbeat_parts.rest.wakes_at - began < 60
    assert scheduler.answers == [pytest.approx(300, abs=5)] * 3


def test_an_override_that_returns_a_longer_wait_does_not_delay_due_entries(
    serve: Serve, app: Celery
) -> None:
    """Its return value is an upper bound."""

    class Lazy(RedBeatScheduler):
        def tick(self, *args: Any, **kwargs: Any) -> float:
            return super().tick(*args, **kwargs) + 100

    scheduler = serve(Lazy)
    entry = due(app, "a")
    entry.reschedule(datetime.now(timezone.utc) - timedelta(seconds=3598))
    scheduler.tick()
    assert scheduler.redbeat_parts.rest.wakes_at < time.time() + 50


@pytest.mark.parametrize("is_assigned", [False, True], ids=["defined", "assigned"])
def test_a_tick_that_does_not_call_ours_runs_only_on_the_leader(
    serve: Serve, redis_client: redis.Redis, sent: list[str], is_assigned: bool
) -> None:
    """It starts when beat begins to lead, and stops when the lead is lost."""

    class Assigned(RedBeatScheduler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.__dict__["tick"] = MethodType(Copied.tick, self)

    redis_client.set(LOCK, "another")
    scheduler = serve(Assigned if is_assigned else Copied)
    due(scheduler.app, "a")
    scheduler.tick()
    assert sent == []
    redis_client.delete(LOCK)
    wait_until(lambda: scheduler.tick() == 0 and sent == ["tasks.a"], 5, "the run")
    redis_client.set(LOCK, "another")
    scheduler.tick()
    sent.clear()
    due(scheduler.app, "b")
    scheduler.tick()
    assert sent == []
    assert scheduler.lock is None


def test_a_tick_that_extends_a_lost_lock_does_not_end_beat(
    serve: Serve, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Beat becomes a standby."""
    scheduler = serve(Copied)
    scheduler.tick()
    redis_client.set(LOCK, "another")
    scheduler.tick()
    assert scheduler.lock is None
    assert "Lost the lock" in caplog.text


def test_an_overridden_tick_survives_an_outage(
    serve: Serve, make_app_with: MakeApp, start_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """2.x needs `retry_period` for this."""
    server: RedisServer = start_redis()
    scheduler = serve(Copied, make_app_with(redbeat_redis_url=server.url()))
    scheduler.tick()
    server.stop()
    scheduler.tick()
    assert "Nothing is lost; trying again in 1 second" in caplog.text
    server.start()
    wait_until(lambda: scheduler.tick() == 0 and scheduler.lock is not None, 10, "the lead")
    ticks = Copied.ticks
    scheduler.tick()
    assert Copied.ticks > ticks


def test_a_beat_that_was_frozen_in_an_overridden_tick_stops_sending(
    serve: Serve, redis_client: redis.Redis, sent: list[str]
) -> None:
    """Another beat leads by the time it continues."""

    class Frozen(Copied):
        def maybe_due(self, *args: Any, **kwargs: Any) -> Any:
            wait = super().maybe_due(*args, **kwargs)
            redis_client.set(LOCK, "another")
            self.redbeat_parts.leadership.clock = lambda: time.monotonic() + 60
            return wait

    scheduler = serve(Frozen)
    due(scheduler.app, "a")
    due(scheduler.app, "b")
    scheduler.tick()
    assert len(sent) == 1


def test_an_assigned_lock_is_renewed_by_ticks_only(
    serve: Serve, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the thread that took it may be able to; it is renewed to its time to live, not by it."""
    caplog.set_level(logging.WARNING)

    class ByHand(RedBeatScheduler):
        def setup_schedule(self) -> None:
            super().setup_schedule()
            if self.lock is None:
                self.lock = redis_client.lock("redbeat:mine", timeout=50)
                self.lock.acquire()

    scheduler = serve(ByHand)
    scheduler.lock_timeout = 100
    heartbeat = threading.Thread(target=scheduler.redbeat_parts.leadership.heartbeat.beat)
    heartbeat.start()
    heartbeat.join()
    assert redis_client.ttl("redbeat:mine") <= 50
    for _ in range(3):
        scheduler.redbeat_parts.rest.take = lambda *args: None  # type: ignore[method-assign]  # no time to rest
        scheduler.tick()
        assert 90 < redis_client.ttl("redbeat:mine") <= 100
    assert not redis_client.exists(LOCK)
    assert caplog.records == []


def test_losing_an_assigned_lock_raises_from_tick(app: Celery, redis_client: Any) -> None:
    """Where no service drives the ticks, subclasses catch the error."""
    scheduler = RedBeatScheduler(app)
    scheduler.lock = redis_client.lock("redbeat:mine", timeout=50)
    scheduler.lock.acquire()
    scheduler.tick()
    redis_client.delete("redbeat:mine")
    with pytest.raises(LockNotOwnedError):
        scheduler.tick()


def test_no_client_is_made_before_an_overridden_setup(
    serve: Serve, make_app_with: MakeApp, redis_server: RedisServer
) -> None:
    """The setup may set the client, and the banner must not make another one before."""
    clients: list[Any] = []

    class Bringing(RedBeatScheduler):
        def setup_schedule(self) -> None:
            if getattr(self.app, REDBEAT_REDIS_KEY, None) is None:
                clients.append(redis_server.client())
                setattr(self.app, REDBEAT_REDIS_KEY, clients[-1])
            super().setup_schedule()

    app = make_app_with(redbeat_redis_url="redis://nowhere.invalid/0", beat_schedule=STATIC)
    assert "nowhere.invalid" in Bringing(app, lazy=True).info
    scheduler = serve(Bringing, app)
    assert len(clients) == 1
    assert scheduler.lock.owned()
    assert RedBeatSchedulerEntry.from_key("redbeat:static", app=app).task == "tasks.static"
    disconnect(clients[0])


def test_constructing_a_scheduler_removes_nothing(
    app: Celery, make_app_with: MakeApp, redis_url: str, redis_client: redis.Redis
) -> None:
    """A program that only lists the schedule may have another `beat_schedule`."""
    app.conf.beat_schedule = STATIC
    RedBeatScheduler(app).close()
    ran = RedBeatSchedulerEntry.from_key("redbeat:static", app=app).next()
    other = make_app_with(redbeat_redis_url=redis_url)
    for lister in (RedBeatScheduler(other), RedBeatScheduler(other, lazy=True)):
        lister.close()
        stored = RedBeatSchedulerEntry.from_key("redbeat:static", app=app)
        assert stored.total_run_count == ran.total_run_count == 1
        assert redis_client.smembers("redbeat::statics") == {"static"}


@pytest.mark.parametrize("how", ["leading", "by hand"])
def test_the_leader_removes_entries_that_are_gone_from_the_code(
    serve: Serve,
    app: Celery,
    make_app_with: MakeApp,
    redis_url: str,
    redis_client: redis.Redis,
    how: str,
) -> None:
    app.conf.beat_schedule = STATIC
    RedBeatScheduler(app).close()
    other = make_app_with(redbeat_redis_url=redis_url, beat_schedule={"other": STATIC["static"]})
    if how == "leading":
        serve(Capped, other).tick()
    else:
        RedBeatScheduler(other).setup_schedule()
    assert redis_client.smembers("redbeat::statics") == {"other"}
    assert not redis_client.exists("redbeat:static")


class Choosing(RedBeatScheduler):
    """Decides in `schedule` what may run, and how."""

    held_back: frozenset[str] = frozenset()

    @property  # type: ignore[misc]  # users leave out the setter
    def schedule(self) -> dict[str, RedBeatSchedulerEntry]:
        entries = {n: e for n, e in super().schedule.items() if n not in self.held_back}
        for entry in entries.values():
            entry.args = ["changed"]
        made_up = RedBeatSchedulerEntry(
            "made-up", "tasks.made-up", schedule(3600), app=self.app, last_run_at=EARLIER
        )
        made_up.last_run_at = EARLIER
        return entries if "made-up" in self.held_back else entries | {"made-up": made_up}


def test_an_overridden_schedule_decides_what_runs_and_how(
    serve: Serve, app: Celery, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in 2.x, it may leave out entries, change them, and add some that are not stored."""
    sent: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        RedBeatScheduler,
        "send_task",
        lambda self, name, args, *others, **options: sent.append((name, args)),
    )
    scheduler: Any = serve(Choosing)
    scheduler.redbeat_parts.rest.take = lambda *args: None
    due(app, "a")
    due(app, "b")
    scheduler.held_back = frozenset({"b"})
    scheduler.tick()
    assert sorted(sent) == [("tasks.a", ["changed"]), ("tasks.made-up", [])]
    assert RedBeatSchedulerEntry.from_key("redbeat:a", app=app).total_run_count == 1
    assert RedBeatSchedulerEntry.from_key("redbeat:b", app=app).total_run_count == 0
    score = redis_client.zscore("redbeat::schedule", "redbeat:b")
    assert score is not None
    assert score <= time.time() + 1
    scheduler.held_back = frozenset({"made-up"})
    sent.clear()
    wait_until(lambda: scheduler.tick() == 0 and sent, 10, "the run that was held back")
    assert sent == [("tasks.b", ["changed"])]


def test_a_calendar_entry_without_a_history_runs_with_an_overridden_schedule(
    serve: Serve, app: Celery, redis_client: redis.Redis, sent: list[str]
) -> None:
    """Another language wrote it, with its slot as the score."""
    slot = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    entry = RedBeatSchedulerEntry(
        "a", "tasks.a", crontab(minute=slot.minute, hour=slot.hour), app=app
    ).save()
    redis_client.hdel(entry.key, "meta")
    redis_client.zadd("redbeat::schedule", {entry.key: slot.timestamp()})
    scheduler: Any = serve(Choosing)
    scheduler.held_back = frozenset({"made-up"})
    scheduler.redbeat_parts.rest.take = lambda *args: None
    scheduler.tick()
    assert sent == ["tasks.a"]


def test_entries_that_ran_while_the_clock_was_ahead_are_corrected(
    serve: Serve, app: Celery, redis_client: redis.Redis
) -> None:
    """Intervals, calendars and rules; finished, new, paused or right ones stay as they are."""
    scheduler = serve(Capped)
    scheduler.tick()
    now = datetime.now(timezone.utc)
    ahead = now + timedelta(hours=1)
    minutely = rrule("MINUTELY", dtstart=now - timedelta(days=1))
    schedules = {"interval": schedule(60), "crontab": crontab(), "rule": minutely}
    for name, each in schedules.items():
        RedBeatSchedulerEntry(name, "tasks.a", each, app=app).save().next(ahead)
    over = RedBeatSchedulerEntry("over", "tasks.a", once(ahead), app=app).save().next(ahead)
    right = RedBeatSchedulerEntry("right", "tasks.a", schedule(9999), app=app).save()
    scores = {
        each.key: redis_client.zscore("redbeat::schedule", each.key) for each in (over, right)
    }
    offset = [0.0]
    scheduler.redbeat_parts.rest.clock = WallClock(
        lambda: time.monotonic() + offset[0], time.monotonic
    )
    offset[0] = -3600.0
    scheduler.redbeat_parts.rest.take = lambda *args: None  # type: ignore[method-assign]  # no time to rest
    scheduler.tick()
    for name in schedules:
        entry = RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)
        assert entry.last_run_at is not None
        assert entry.last_run_at <= datetime.now(timezone.utc)
        score = redis_client.zscore("redbeat::schedule", entry.key)
        assert score is not None
        assert score <= time.time() + 61
    for key, score in scores.items():
        assert redis_client.zscore("redbeat::schedule", key) == score


def test_a_late_signal_of_the_heartbeat_does_not_end_the_sleep(
    serve: Serve, redis_client: redis.Redis
) -> None:
    """The heartbeat may still report the loss of a lock that is held again."""
    scheduler = serve(Capped)
    old = scheduler.lock
    redis_client.delete(LOCK)
    scheduler.redbeat_parts.leadership.lose(old, "deleted")
    scheduler.tick()
    assert scheduler.lock is not None
    scheduler.redbeat_parts.leadership.lose(old, "deleted")
    assert not scheduler.redbeat_parts.leadership.lost.is_set()
    scheduler.redbeat_parts.leadership.lost.set()
    scheduler.tick()
    assert not scheduler.redbeat_parts.leadership.lost.is_set()
    assert time.time() >= scheduler.redbeat_parts.rest.wakes_at
