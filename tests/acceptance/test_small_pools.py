"""Real beats whose client may open one connection or two."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry
from support.apps import MakeApp
from support.messages import read_messages
from support.programs import MakeProject, Project
from support.servers import RedisServer
from support.topologies import StartTopology
from support.waiting import wait_until
from support.wire import MakeProxy, Traffic

STATIC = {"static": {"task": "proj.add", "schedule": 1, "args": ["static", 2]}}

#: Seconds between two renewals by the heartbeat, and how many a beat must live through.
HEARTBEAT = 0.5
TICKS = 5

BLOCKING = """
import redis

pool = redis.BlockingConnectionPool.from_url(
    app.conf.redbeat_redis_url, max_connections=1, timeout=5, decode_responses=True
)
app.redbeat_redis = redis.Redis(connection_pool=pool)
"""


@pytest.fixture
def runs(broker: redis.Redis) -> Callable[[str], int]:
    """How many messages for an entry the broker has."""
    return lambda name: [message.args[0] for message in read_messages(broker)].count(name)


def polls(traffic: Traffic) -> bool:
    """Whether a beat has looked for due entries several times."""
    return traffic.names[-4:].count("ZRANGEBYSCORE") >= 3


def live_through(project: Project, app: Any, runs: Callable[[str], int], has_lock: bool) -> None:
    """Send for some heartbeats, notice an edit, and hand over to another beat."""
    leader = project.beat()
    wait_until(lambda: runs("static") >= TICKS, 30, "the static entry")
    before = runs("static")
    RedBeatSchedulerEntry("edit", "proj.add", schedule(1), args=["edit", 1], app=app).save()
    wait_until(lambda: runs("edit") >= 1, 5, "the new entry")
    standby = project.beat()
    if has_lock:
        standby.wait_for_line("Waiting for the lock")
        leader.kill()
        standby.wait_for_line("This beat leads: the lock .* taken over from")
        before = runs("static")
    wait_until(lambda: runs("static") >= before + TICKS, 30, "the static entry, once more")
    assert standby.terminate() == 0, standby.log
    for log in (leader.log, standby.log):
        for word in ("ERROR", "Traceback", "Too many connections", "not renewed", "not released"):
            assert word not in log, log


@pytest.mark.parametrize("topology", ["single", "unix", "sentinel", "cluster"])
@pytest.mark.parametrize("connections", [1, 2, 3])
def test_beat_does_its_work_with_few_connections(
    make_project: MakeProject,
    make_app_with: MakeApp,
    start_topology: StartTopology,
    runs: Callable[[str], int],
    topology: str,
    connections: int,
) -> None:
    settings = start_topology(topology).settings
    options = settings.get("redbeat_redis_options", {}) | {"max_connections": connections}
    project = make_project(
        beat_schedule=STATIC,
        redbeat_poll_interval=0.5,
        redbeat_failover_timeout=2 * HEARTBEAT,
        **settings | {"redbeat_redis_options": options},
    )
    live_through(project, make_app_with(**settings), runs, has_lock=True)


@pytest.mark.parametrize("settings", [{"redbeat_lock_key": None}, {"retry_period": -1}])
def test_beat_does_its_work_with_one_connection_however_it_leads_and_retries(
    make_project: MakeProject,
    make_app_with: MakeApp,
    redis_url: str,
    runs: Callable[[str], int],
    settings: dict[str, Any],
) -> None:
    period = {"retry_period": -1} if "retry_period" in settings else {}
    lock = {"redbeat_lock_key": None} if "redbeat_lock_key" in settings else {}
    project = make_project(
        beat_schedule=STATIC,
        redbeat_poll_interval=0.5,
        redbeat_failover_timeout=2 * HEARTBEAT,
        redbeat_redis_options={"max_connections": 1, **period},
        **lock,
    )
    app = make_app_with(redbeat_redis_url=redis_url)
    live_through(project, app, runs, has_lock=not lock)


def test_beat_does_its_work_with_a_pool_that_lets_callers_wait(
    make_project: MakeProject, make_app_with: MakeApp, redis_url: str, runs: Callable[[str], int]
) -> None:
    project = make_project(
        beat_schedule=STATIC, redbeat_poll_interval=0.5, redbeat_failover_timeout=2 * HEARTBEAT
    )
    with (project.directory / "proj.py").open("a") as source:
        source.write(BLOCKING)
    live_through(project, make_app_with(redbeat_redis_url=redis_url), runs, has_lock=True)


def test_beat_says_once_what_one_connection_means(
    make_project: MakeProject, runs: Callable[[str], int]
) -> None:
    project = make_project(
        beat_schedule=STATIC,
        redbeat_poll_interval=0.2,
        redbeat_redis_options={"max_connections": 1},
    )
    beat = project.beat()
    wait_until(lambda: runs("static") >= TICKS, 30, "the static entry")
    assert beat.log.count("max_connections") == 1


def test_beat_releases_the_lock_even_if_it_is_stopped_in_the_middle_of_a_command(
    make_project: MakeProject,
    make_proxy: MakeProxy,
    redis_server: RedisServer,
    redis_client: redis.Redis,
) -> None:
    """With one connection, and a server so far away that there is always a command in flight."""
    proxy = make_proxy(redis_server, delay=0.2)
    project = make_project(
        redbeat_redis_url=proxy.url(),
        redbeat_poll_interval=0.01,
        redbeat_redis_options={"max_connections": 1},
        beat_max_loop_interval=None,
    )
    for _ in range(3):
        beat = project.beat()
        beat.wait_for_line("This beat leads")
        with proxy.counting() as traffic:
            wait_until(partial(polls, traffic), 30, "a beat that polls")
        assert beat.terminate() == 0
        assert not redis_client.exists("redbeat::lock")
        assert "ERROR" not in beat.log
