"""A busy beat runs due entries in pulses, which are always the same."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.beat.loop import freeze_garbage_collector
from redbeat.beat.rest import PULSE, SHORTEST_PULSE, Outlook
from support.messages import read_messages
from support.waiting import wait_until

UTC = timezone.utc


@pytest.fixture
def scheduler(app: Celery, redis_url: str) -> Iterator[RedBeatScheduler]:
    """A scheduler that sleeps in its ticks, as under a running beat service."""
    app.conf.update(broker_url=redis_url, redbeat_lock_key=None)
    scheduler = RedBeatScheduler(app)
    scheduler.join(is_service=True)
    yield scheduler
    scheduler.close()


def store(app: Celery, name: str, ran: datetime) -> None:
    """Save an entry of every second that ran at this time."""
    RedBeatSchedulerEntry(name, "tasks.add", schedule(1), [name], app=app, last_run_at=ran).save()


def test_entries_that_are_due_all_the_time_cost_no_more_ticks_than_pulses(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    """Each of them runs."""
    now, count = datetime.now(UTC), 200
    for number in range(count):
        store(scheduler.app, str(number), now + timedelta(seconds=number / count))
    ends_at, ticks = time.time() + 2.5, 0
    while time.time() < ends_at:
        scheduler.tick()
        ticks += 1
    assert ticks <= 2.5 / PULSE + 2
    assert len({message.args[0] for message in read_messages(redis_client)}) == count


def test_beat_wakes_for_a_single_entry_at_its_due_time(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    """It does not wait for a pulse."""
    due_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2.301)
    store(scheduler.app, "a", due_at - timedelta(seconds=1))
    redis_client.zadd("redbeat::schedule", {"redbeat:a": due_at.timestamp()})
    scheduler.tick()
    assert scheduler.redbeat_parts.rest.wakes_at == due_at.timestamp()
    assert not read_messages(redis_client)
    scheduler.tick()
    assert len(read_messages(redis_client)) == 1


@pytest.mark.parametrize("every", [0.05, 0.06, 0.08])
def test_an_interval_shorter_than_a_pulse_loses_no_run(
    scheduler: RedBeatScheduler, redis_client: redis.Redis, every: float
) -> None:
    """What just ran is due at its own time; what else is due waits for the end of the pulse."""
    now = datetime.now(UTC)
    ran_at = now - timedelta(seconds=every)
    fast = RedBeatSchedulerEntry(
        "fast", "tasks.add", schedule(every), app=scheduler.app, last_run_at=ran_at
    ).save()
    redis_client.zadd("redbeat::schedule", {fast.key: now.timestamp()})
    store(scheduler.app, "slow", now - timedelta(hours=1))
    scheduler.tick()
    due_at = redis_client.zscore("redbeat::schedule", fast.key)
    assert due_at == pytest.approx(now.timestamp() + every, abs=1e-5)
    assert scheduler.outlook is not None
    assert scheduler.outlook.first_again == due_at
    outlook = replace(scheduler.outlook, ticked_at=due_at - every)
    assert outlook.wakes_at(0.0, longest=due_at + 1) == due_at


@pytest.mark.parametrize(
    ("ticked_at", "pulse"), [(0.0, 0.1), (0.02, 0.1), (0.099, 0.1), (0.3, 0.4)]
)
def test_what_is_due_soon_waits_for_the_pulse_that_follows_a_tick(
    ticked_at: float, pulse: float
) -> None:
    """Also for one that came at a pulse, to the microsecond."""
    second = 1_800_000_000
    now = second + ticked_at
    outlook = Outlook(wait=1.0, first_due=now + 1e-6, ticked_at=now)
    assert outlook.wakes_at(now, longest=300) == second + pulse


def test_an_interval_of_microseconds_does_not_keep_beat_busy() -> None:
    now = 1_800_000_000.0
    outlook = Outlook(wait=1e-6, first_due=now, ticked_at=now, first_again=now)
    assert outlook.wakes_at(now, longest=300) == now + SHORTEST_PULSE


def test_a_closed_scheduler_does_not_stay_in_memory(app: Celery) -> None:
    """Only what was there when the first service of a process started is never collected."""
    freeze_garbage_collector()
    frozen = gc.get_freeze_count()
    assert frozen
    app.conf.redbeat_lock_key = None
    scheduler = RedBeatScheduler(app)
    scheduler.join(is_service=True)
    # Fewer, where some were not in use any more; a second service freezes nothing.
    assert gc.get_freeze_count() <= frozen
    scheduler.close()
    reference = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("is_service", [True, False])
def test_only_a_service_has_settings_where_celery_finds_them_at_once(
    app: Celery, is_service: bool
) -> None:
    """A program that ticks by hand keeps its configuration as it is."""
    app.conf.redbeat_lock_key = None
    scheduler = RedBeatScheduler(app)
    scheduler.join(is_service=is_service)
    assert ("task_always_eager" in app.conf.changes) == is_service
    scheduler.close()


@pytest.mark.parametrize(
    ("hour", "late"),
    [(1.5, 0.01), (1 - 0.01 / 3600, 0.02)],
    ids=["the repeated hour", "clocks that change while it is late"],
)
@pytest.mark.parametrize("change", ["2026-03-29T00:00", "2026-10-25T00:00"])
def test_a_tick_reads_the_same_instant_whatever_clocks_show(
    scheduler: RedBeatScheduler,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    hour: float,
    late: float,
) -> None:
    """Berlin changes its clocks at 01:00 UTC, in spring as in autumn."""
    meant = datetime.fromisoformat(change).replace(tzinfo=UTC) + timedelta(hours=hour)
    read = (meant + timedelta(seconds=late)).astimezone(ZoneInfo("Europe/Berlin"))
    monkeypatch.setattr(scheduler.app, "now", lambda: read)
    scheduler.redbeat_parts.rest.wakes_at = meant.timestamp()
    taken = scheduler.redbeat_parts.rest.read_now(scheduler.app.now())
    assert abs(taken.astimezone(UTC) - meant) < timedelta(microseconds=10)
    assert taken.tzinfo == read.tzinfo


@pytest.mark.parametrize(("late", "is_put_back"), [(0.0, True), (0.9, True), (1.1, False)])
def test_a_tick_that_is_a_little_late_counts_as_in_time(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, late: float, is_put_back: bool
) -> None:
    """An entry that is due right after a pulse does not run in it, however late the tick is."""
    pulse = 1_800_000_000.0
    now = datetime.fromtimestamp(pulse + late * PULSE, UTC)
    monkeypatch.setattr(scheduler.app, "now", lambda: now)
    scheduler.redbeat_parts.rest.wakes_at = pulse
    taken = (
        scheduler.redbeat_parts.rest.read_now(scheduler.app.now())
        - datetime.fromtimestamp(pulse, UTC)
    ).total_seconds()
    assert taken == pytest.approx(0 if is_put_back else late * PULSE, abs=1e-5)
    assert taken > 0


def test_a_beat_that_sleeps_longer_since_the_clock_was_set_back_is_not_stalled(
    scheduler: RedBeatScheduler, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it was set back by less than beat notices, entries are due when the clock says so."""
    scheduler.redbeat_parts.leadership.watchdog.stall_timeout = 0.1
    scheduler.app.redbeat_conf.poll_interval = 0.01
    store(scheduler.app, "a", datetime.now(UTC))
    redis_client.zadd("redbeat::schedule", {"redbeat:a": time.time() + 1})
    clock, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: clock() + offset[0])
    sleeper = threading.Thread(target=scheduler.tick)
    sleeper.start()
    wait_until(lambda: scheduler.redbeat_parts.rest.wakes_at, 5, "the sleep")
    wakes_at = scheduler.redbeat_parts.rest.wakes_at
    offset[0] = -1.5
    wait_until(lambda: clock() > wakes_at + 0.5, 5, "the time at which it would have been wedged")
    assert sleeper.is_alive()
    assert not scheduler.redbeat_parts.leadership.watchdog.is_stalled
    offset[0] = 1000.0
    sleeper.join(5)
    assert not sleeper.is_alive()
