"""Who leads when beats are killed, frozen, cut off or stuck: real processes, default settings."""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from support.messages import read_messages
from support.programs import MakeProject, Program, Project
from support.servers import RedisServer, StartRedis
from support.waiting import wait_until

#: Other tests use a project that ticks every second; here everything is as a user gets it.
DEFAULTS = {"beat_max_loop_interval": None, "redbeat_lock_timeout": None}

STATIC = {"each-second": {"task": "proj.add", "schedule": 1, "args": [1, 2]}}

LOCK = "redbeat::lock"

#: How many leaders are killed in a row; the long campaign kills more.
KILLS = int(os.environ.get("REDBEAT_TEST_KILLS", "3"))

SLOW_SCHEDULER = """
import pathlib
import time

from redbeat import RedBeatScheduler


class Scheduler(RedBeatScheduler):
    def apply_async(self, *args, **kwargs):
        pathlib.Path("sending").touch()
        time.sleep({seconds})
        return super().apply_async(*args, **kwargs)
"""


def senders(broker: redis.Redis) -> list[int]:
    """The process id of the sender of each message, the oldest first."""
    return [
        int(message.headers["origin"].partition("@")[0].removeprefix("gen"))
        for message in read_messages(broker)
    ]


def sends(broker: redis.Redis, beat: Program) -> Callable[[], bool]:
    """Make a condition: the beat has sent more than it had when this was called."""
    before = senders(broker).count(beat.pid)
    return lambda: senders(broker).count(beat.pid) > before


def dispatches(broker: redis.Redis) -> Callable[[], bool]:
    """Make a condition: any beat has sent something since this was called."""
    before = len(senders(broker))
    return lambda: len(senders(broker)) > before


@pytest.fixture
def two(make_project: MakeProject, broker: redis.Redis) -> tuple[Program, Program]:
    """A leader that dispatches, and a standby that waits."""
    project = make_project(beat_schedule=STATIC, **DEFAULTS)
    leader = project.beat()
    wait_until(sends(broker, leader), 20, "the first beat to dispatch")
    standby = project.beat()
    standby.wait_for_line("Waiting for the lock")
    return leader, standby


def test_a_killed_leader_is_replaced_within_20_seconds(
    two: tuple[Program, Program], broker: redis.Redis
) -> None:
    """`kill -9` leaves the lock behind, which is no longer renewed."""
    leader, standby = two
    leader.kill()
    wait_until(sends(broker, standby), 20, "the standby to dispatch")
    assert re.search(
        r"This beat leads: the lock .* taken over from .* last sign of life", standby.log
    )


def test_a_terminated_leader_is_replaced_within_2_seconds(
    two: tuple[Program, Program], broker: redis.Redis
) -> None:
    """SIGTERM releases the lock at once."""
    leader, standby = two
    assert leader.terminate() == 0
    wait_until(sends(broker, standby), 2, "the standby to dispatch")


def test_a_frozen_leader_is_replaced_and_comes_back_as_standby(
    two: tuple[Program, Program], broker: redis.Redis, redis_client: redis.Redis
) -> None:
    """It stays alive, and nothing is dispatched twice."""
    leader, standby = two
    leader.freeze()
    wait_until(sends(broker, standby), 20, "the standby to dispatch")
    leader.thaw()
    leader.wait_for_line("Lost the lock")
    leader.wait_for_line("Waiting for the lock")
    wait_until(sends(broker, standby), 5, "the new leader to go on")
    assert leader.is_running()
    assert_never_two_leaders(broker)
    leader.terminate()
    standby.terminate()
    assert count_in(redis_client) == len(senders(broker))


def count_in(client: redis.Redis) -> int:
    """The stored run count of the entry."""
    meta: Any = client.hget("redbeat:each-second", "meta")
    found = re.search(r'"total_run_count": (\d+)', meta)
    assert found is not None
    return int(found[1])


def assert_never_two_leaders(broker: redis.Redis) -> None:
    """Check that each process sent its messages in one stretch, so that nobody else led then."""
    terms = [pid for pid, _ in itertools.groupby(senders(broker))]
    assert len(terms) == len(set(terms)), f"leaders in turn: {terms}"


def test_a_beat_whose_lock_is_deleted_goes_on_within_2_seconds(
    make_project: MakeProject, broker: redis.Redis, redis_client: redis.Redis
) -> None:
    """If it is alone, the same process takes the lock again."""
    beat = make_project(beat_schedule=STATIC, **DEFAULTS).beat()
    wait_until(sends(broker, beat), 20, "the beat to dispatch")
    redis_client.delete(LOCK)
    wait_until(sends(broker, beat), 2, "the beat to go on")
    wait_until(lambda: redis_client.exists(LOCK), 5, "the lock to be held again")


def test_an_embedded_beat_whose_lock_is_deleted_goes_on_within_2_seconds(
    make_project: MakeProject, broker: redis.Redis, redis_client: redis.Redis
) -> None:
    """The same within a worker."""
    entry = {"task": "proj.record", "schedule": 1, "args": ["ran"]}
    project = make_project(beat_schedule={"each-second": entry}, **DEFAULTS)
    worker = project.worker("--beat", "--scheduler", "redbeat.RedBeatScheduler")
    wait_until(lambda: broker.llen("runs") > 0, 30, "the first run")
    redis_client.delete(LOCK)
    runs = broker.llen("runs")
    wait_until(lambda: broker.llen("runs") > runs, 2, "another run")
    assert worker.is_running()


@pytest.fixture
def schedule_server(start_redis: StartRedis) -> RedisServer:
    """A persistent server for the schedule alone."""
    return start_redis(appendonly="yes", appendfsync="always")


@pytest.fixture
def cut_off(
    make_project: MakeProject, schedule_server: RedisServer, broker: redis.Redis
) -> Project:
    """A project whose schedule and broker live on different servers."""
    return make_project(beat_schedule=STATIC, redbeat_redis_url=schedule_server.url(), **DEFAULTS)


def test_beat_outlives_an_outage_of_redis_that_keeps_its_data(
    cut_off: Project, schedule_server: RedisServer, broker: redis.Redis
) -> None:
    """After 20 seconds without Redis, the same process dispatches within five seconds."""
    beat = cut_off.beat()
    wait_until(sends(broker, beat), 20, "the beat to dispatch")
    go_away(schedule_server, 20)
    wait_until(sends(broker, beat), 5, "the same beat to dispatch")


def test_beat_restores_its_static_entries_when_redis_comes_back_empty(
    cut_off: Project, schedule_server: RedisServer, broker: redis.Redis
) -> None:
    """It says that what programs had saved is gone."""
    beat = cut_off.beat()
    wait_until(sends(broker, beat), 20, "the beat to dispatch")
    go_away(schedule_server, 20, lose_data=True)
    wait_until(sends(broker, beat), 5, "the same beat to dispatch")
    beat.wait_for_line(r"ERROR.*lost the schedule")


def go_away(server: RedisServer, seconds: float, lose_data: bool = False) -> None:
    """Stop the server for so many seconds, then start it again."""
    server.stop()
    back_at = time.monotonic() + seconds
    if lose_data:
        server.forget()
    wait_until(lambda: time.monotonic() > back_at, seconds + 1, "the end of the outage")
    server.start()


def test_beat_waits_for_a_redis_that_is_not_there_yet(
    cut_off: Project, schedule_server: RedisServer, broker: redis.Redis
) -> None:
    """Started ten seconds too early, it dispatches within five seconds once Redis is there."""
    schedule_server.stop()
    beat = cut_off.beat()
    beat.wait_for_line("trying again")
    comes_at = time.monotonic() + 10
    wait_until(lambda: time.monotonic() > comes_at, 11, "Redis to come")
    schedule_server.start()
    wait_until(sends(broker, beat), 5, "the beat to dispatch")


def test_a_stuck_leader_is_replaced_and_says_where_it_hangs(
    make_project: MakeProject, broker: redis.Redis
) -> None:
    """The stack of its main thread is logged at critical."""
    project = make_project(beat_schedule=STATIC, redbeat_stall_timeout=5, **DEFAULTS)
    (project.directory / "slow.py").write_text(SLOW_SCHEDULER.format(seconds=3600))
    stuck = project.beat(scheduler="slow.Scheduler")
    wait_until((project.directory / "sending").exists, 20, "the leader to hang")
    standby = project.beat()
    wait_until(sends(broker, standby), 5 + 20, "the standby to dispatch")
    stuck.wait_for_line("CRITICAL.*main thread")
    assert "in apply_async" in stuck.log


def test_a_long_tick_never_loses_a_short_lock(
    make_project: MakeProject, broker: redis.Redis, redis_client: redis.Redis
) -> None:
    """A tick of a minute, a lock of five seconds: the heartbeat keeps it."""
    project = make_project(beat_schedule=STATIC, **(DEFAULTS | {"redbeat_lock_timeout": 5}))
    (project.directory / "slow.py").write_text(SLOW_SCHEDULER.format(seconds=59))
    beat = project.beat(scheduler="slow.Scheduler")
    wait_until((project.directory / "sending").exists, 20, "the long tick")
    holder = redis_client.get(LOCK)

    def held() -> bool:
        return bool(redis_client.get(LOCK) == holder)

    wait_until(lambda: not held() or broker.llen("celery"), 75, "the end of the long tick")
    assert held()
    assert "Lost the lock" not in beat.log


@pytest.mark.timeout(900)
def test_one_of_five_beats_leads_however_often_the_leader_is_killed(
    make_project: MakeProject, broker: redis.Redis
) -> None:
    """Two beats never lead at once, and there is a leader again within 20 seconds."""
    project = make_project(beat_schedule=STATIC, **DEFAULTS)
    beats = [project.beat() for _ in range(5)]
    for _ in range(KILLS):
        wait_until(dispatches(broker), 20, "one of them to dispatch")
        leader = next(beat for beat in beats if beat.pid == senders(broker)[-1])
        leader.kill()
        beats[beats.index(leader)] = project.beat()
        wait_until(dispatches(broker), 20, "another one to dispatch")
    assert_never_two_leaders(broker)


def test_a_standby_with_another_static_schedule_writes_nothing_until_it_leads(
    make_project: MakeProject, broker: redis.Redis, redis_client: redis.Redis
) -> None:
    """A rolling deploy does not mix the schedules of two versions."""
    project = make_project(beat_schedule=STATIC, **DEFAULTS)
    leader = project.beat()
    wait_until(sends(broker, leader), 20, "the leader to dispatch")
    project.configure(
        broker_url=project.settings["broker_url"],
        redbeat_redis_url=project.settings["redbeat_redis_url"],
        beat_schedule={"another": STATIC["each-second"]},
    )
    standby = project.beat()
    standby.wait_for_line("Waiting for the lock")
    assert redis_client.smembers("redbeat::statics") == {"each-second"}
    assert not redis_client.exists("redbeat:another")
    leader.terminate()
    wait_until(sends(broker, standby), 5, "the standby to dispatch")
    assert redis_client.smembers("redbeat::statics") == {"another"}
    assert not redis_client.exists("redbeat:each-second")


@contextlib.contextmanager
def running(beat: Program) -> Iterator[Program]:
    """A beat that runs until the end of the block."""
    yield beat
    assert beat.terminate() == 0


def test_a_beat_of_2x_that_holds_the_lock_is_waited_for(
    make_project: MakeProject, broker: redis.Redis, redis_client: redis.Redis, peer: str
) -> None:
    """Its token promises no renewals, so its silence means nothing."""
    project = make_project(beat_schedule=STATIC, **DEFAULTS)
    with running(project.beat(python=peer)) as old:
        wait_until(sends(broker, old), 20, "the beat of 2.x to dispatch")
        ours = project.beat()
        ours.wait_for_line("Waiting for the lock")
        holder = redis_client.get(LOCK)
        later = time.monotonic() + 18
        wait_until(lambda: time.monotonic() > later, 19, "more than the failover timeout")
        assert redis_client.get(LOCK) == holder
        assert ours.pid not in senders(broker)
    wait_until(sends(broker, ours), 5, "ours to dispatch")


def test_a_beat_of_2x_waits_for_ours(
    make_project: MakeProject, broker: redis.Redis, redis_client: redis.Redis, peer: str
) -> None:
    """It respects our lock."""
    project = make_project(beat_schedule=STATIC, **DEFAULTS)
    ours = project.beat()
    wait_until(sends(broker, ours), 20, "ours to dispatch")
    old = project.beat(python=peer, level="debug")
    old.wait_for_line("Acquiring lock")
    wait_until(sends(broker, ours), 5, "ours to go on")
    assert old.pid not in senders(broker)
