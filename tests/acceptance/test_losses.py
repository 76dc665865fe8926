"""A schedule that Redis has lost: two real beats report it once, and restore its static part."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry
from support.apps import MakeApp
from support.commands import error_of, good, run_in
from support.messages import read_messages
from support.programs import MakeProject, Program, Project
from support.servers import RedisServer, StartRedis
from support.waiting import wait_until

SCHEDULE = "redbeat::schedule"
LOCK = "redbeat::lock"
STATIC = {"each-second": {"task": "proj.add", "schedule": 1, "args": [1, 2]}}
REPORTED = "ERROR.* has lost the schedule"

#: The defaults, but for more frequent looks.
SETTINGS = {
    "beat_max_loop_interval": None,
    "redbeat_lock_timeout": None,
    "redbeat_poll_interval": 1,
    "result_expires": None,
}


@pytest.fixture
def server(start_redis: StartRedis) -> RedisServer:
    """A server for the schedule alone, without persistence."""
    return start_redis()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of it."""
    with contextlib.closing(server.client()) as client:
        yield client


@pytest.fixture
def own_app(make_app_with: MakeApp, server: RedisServer) -> Celery:
    """The application of a program that saves entries there."""
    return make_app_with(redbeat_redis_url=server.url())


def save(app: Celery, name: str = "dynamic", **fields: object) -> RedBeatSchedulerEntry:
    """Store an entry that is not due for long."""
    known = {"task": "proj.add", "schedule": schedule(3600), "args": [1, 2]} | fields
    return RedBeatSchedulerEntry(name, app=app, **known).save()


def wait_for_runs(broker: redis.Redis, more: int = 3) -> None:
    """Wait until so many more messages have been sent."""
    wanted = len(read_messages(broker)) + more
    wait_until(lambda: len(read_messages(broker)) >= wanted, 20, "runs that go on")


def start_two(project: Project, client: redis.Redis) -> list[Program]:
    """Start two beats, and wait until they rest: a leader and a standby, or both without a lock."""
    lock_key = project.settings.get("redbeat_lock_key", LOCK)
    first = project.beat()
    wait_until(lambda: count_resting(client) == 1, 20, "a beat at work")
    second = project.beat()
    if lock_key:
        second.wait_for_line("Waiting for the lock")
    else:
        wait_until(lambda: count_resting(client) == 2, 20, "another beat at work")
    return [first, second]


def count_resting(client: redis.Redis) -> int:
    """How many beats listen for changes, which they do between two ticks."""
    return int(client.pubsub_numsub("redbeat::changed")[0][1])


def count_reports(beats: list[Program]) -> int:
    """How many times any beat has reported the loss."""
    return sum(beat.log.count("has lost the schedule") for beat in beats)


def flush_all(server: RedisServer) -> None:
    """Lose everything."""
    with server.client() as client:
        client.flushall()


def flush_db(server: RedisServer) -> None:
    """Lose this database."""
    with server.client() as client:
        client.flushdb()


def delete_schedule(server: RedisServer) -> None:
    """Lose the due times; the entries and the lock stay."""
    with server.client() as client:
        client.delete(SCHEDULE)


LOSSES = [flush_all, flush_db, delete_schedule, RedisServer.restart]


@pytest.mark.parametrize("lock_key", [LOCK, None], ids=["lock", "no lock"])
@pytest.mark.parametrize("lose", LOSSES)
def test_a_lost_schedule_is_reported_once_whichever_beat_leads_next(
    make_project: MakeProject,
    server: RedisServer,
    client: redis.Redis,
    own_app: Celery,
    broker: redis.Redis,
    lose: Callable[[RedisServer], None],
    lock_key: str | None,
) -> None:
    """Its static entries run again, and `check` fails for a while."""
    project = make_project(
        beat_schedule=STATIC,
        **SETTINGS | {"redbeat_redis_url": server.url(), "redbeat_lock_key": lock_key},
    )
    beats = start_two(project, client)
    save(own_app)
    wait_for_runs(broker)
    lose(server)
    wait_until(lambda: count_reports(beats), 20, "a report of the loss")
    wait_for_runs(broker, 6)
    assert error_of(run_in(project, "check", "--ignore", "overdue"), 1).startswith(
        "Error: Redis lost the schedule"
    )
    good(run_in(project, "check", "--ignore", "overdue", "--ignore", "lost"))
    for beat in beats:
        wait_for_runs(broker)
        assert beat.terminate() == 0
    assert count_reports(beats) == 1, "\n".join(beat.log for beat in beats)


@pytest.mark.parametrize("lose", [flush_all, delete_schedule])
def test_a_standby_that_takes_over_reports_the_loss(
    make_project: MakeProject,
    server: RedisServer,
    client: redis.Redis,
    own_app: Celery,
    broker: redis.Redis,
    lose: Callable[[RedisServer], None],
) -> None:
    """The leader, which could have reported it, is dead by then."""
    project = make_project(beat_schedule=STATIC, **SETTINGS, redbeat_redis_url=server.url())
    leader, standby = start_two(project, client)
    save(own_app)
    wait_for_runs(broker)
    leader.kill()
    lose(server)
    standby.wait_for_line(REPORTED)
    wait_for_runs(broker)
    assert standby.terminate() == 0
    assert standby.log.count("has lost the schedule") == 1


@pytest.mark.parametrize("lock_key", [LOCK, None], ids=["lock", "no lock"])
@pytest.mark.parametrize("lose", [flush_all, delete_schedule])
def test_idle_beats_notice_a_lost_schedule_without_static_entries(
    make_project: MakeProject,
    server: RedisServer,
    client: redis.Redis,
    own_app: Celery,
    lose: Callable[[RedisServer], None],
    lock_key: str | None,
) -> None:
    """Within seconds, although nothing is due for an hour."""
    project = make_project(
        **SETTINGS | {"redbeat_redis_url": server.url(), "redbeat_lock_key": lock_key}
    )
    save(own_app)
    beats = start_two(project, client)
    lose(server)
    wait_until(lambda: count_reports(beats), 20, "a report of the loss")
    for beat in beats:
        assert beat.terminate() == 0
    assert count_reports(beats) == 1


@pytest.mark.parametrize("lock_key", [LOCK, None], ids=["lock", "no lock"])
@pytest.mark.parametrize("is_static", [True, False], ids=["static", "dynamic"])
def test_a_schedule_whose_last_entry_was_deleted_is_not_lost(
    make_project: MakeProject,
    server: RedisServer,
    client: redis.Redis,
    own_app: Celery,
    lock_key: str | None,
    is_static: bool,
) -> None:
    """Not even when the lock vanishes after that and another beat leads."""
    hourly = {"hourly": {"task": "proj.add", "schedule": 3600, "args": [1, 2]}}
    project = make_project(
        beat_schedule=hourly if is_static else {},
        **SETTINGS | {"redbeat_redis_url": server.url(), "redbeat_lock_key": lock_key},
    )
    if not is_static:
        save(own_app, "hourly")
    beats = start_two(project, client)
    wait_until(lambda: client.exists(SCHEDULE), 20, "the entry")
    RedBeatSchedulerEntry.from_key("redbeat:hourly", app=own_app).delete()
    assert not client.exists(SCHEDULE)
    if lock_key:
        client.delete(LOCK)
        wait_until(lambda: client.exists(LOCK), 20, "a new leader")
    good(run_in(project, "check", "--ignore", "leader"))
    save(own_app, "another", schedule=schedule(1))
    for beat in beats:
        assert beat.terminate() == 0
    assert count_reports(beats) == 0, "\n".join(beat.log for beat in beats)
