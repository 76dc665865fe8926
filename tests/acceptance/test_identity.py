"""The identity of runs, by real programs: what a worker sees, and what a killed beat repeats."""

import contextlib
import json
import socket
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
import redis
from celery.schedules import crontab, schedule

from redbeat.schedules import rrule
from support.apps import MakeApp
from support.bare import write_bare
from support.entries import overdue
from support.messages import read_messages
from support.programs import RUNS_KEY, MakeProject, Program
from support.servers import RedisServer, StartRedis
from support.waiting import wait_until
from support.wire import Proxy

UTC = timezone.utc

WITNESS = """
import json
import redis
from proj import app

@app.task(name="proj.witness", bind=True)
def witness(self):
    seen = [self.request.id, self.request.headers["scheduled_at"]]
    with redis.Redis.from_url(app.conf.broker_url) as client:
        client.rpush({runs_key!r}, json.dumps(seen))
    if not self.request.retries:
        raise self.retry(countdown=0)
"""


class Guillotine(Proxy):
    """Stands before the schedule, and kills a beat that has sent messages and is to commit them.

    Its request is not handed on. The broker lives on another server.
    """

    def __init__(self, server: RedisServer, broker: redis.Redis) -> None:
        self.victim: Program | None = None
        self._broker = broker
        super().__init__(server.port)

    def hand_on(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        is_request = receiver is not client
        if is_request and self.victim is not None and self._broker.exists("celery"):
            self.victim.kill()
            raise ConnectionAbortedError
        super().hand_on(passing, client, receiver)


@pytest.fixture
def schedule_server(start_redis: StartRedis) -> RedisServer:
    """A server for the schedule alone."""
    return start_redis()


@pytest.fixture
def client(schedule_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of it."""
    with contextlib.closing(schedule_server.client()) as client:
        yield client


@pytest.fixture
def guillotine(schedule_server: RedisServer, broker: redis.Redis) -> Iterator[Guillotine]:
    """A guillotine before it."""
    guillotine = Guillotine(schedule_server, broker)
    yield guillotine
    guillotine.refuse()


def identities(broker: redis.Redis) -> dict[str, list[tuple[str, str]]]:
    """The ids and the slots that each entry has been sent with."""
    found = defaultdict(list)
    for message in read_messages(broker):
        headers = message.headers
        found[headers["periodic_task_name"]].append((headers["id"], headers["scheduled_at"]))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"redbeat_failover_timeout": 2},
        {"redbeat_lock_key": None, "redbeat_claim_timeout": 4},
    ],
    ids=["lock", "no lock"],
)
def test_what_a_killed_beat_had_sent_is_sent_again_with_the_same_identity(
    make_project: MakeProject,
    make_app_with: MakeApp,
    guillotine: Guillotine,
    schedule_server: RedisServer,
    client: redis.Redis,
    broker: redis.Redis,
    settings: dict[str, Any],
) -> None:
    """Killed with -9 after the broker has taken the messages, and before their commit."""
    app = make_app_with(redbeat_redis_url=schedule_server.url())
    began = datetime(2024, 1, 1, tzinfo=UTC)
    for name, rule in [
        ("interval", schedule(3600)),
        ("crontab", crontab(minute=0)),
        ("rrule", rrule("HOURLY", began)),
    ]:
        overdue(app, name, rule)
    interval = {"__type__": "interval", "every": 3600.0, "relative": False}
    write_bare(client, "new", interval, 1_700_000_000)
    write_bare(client, "new-now", interval, 0)
    names = {"interval", "crontab", "rrule", "new", "new-now"}
    project = make_project(
        redbeat_redis_url=guillotine.url(), redbeat_identify_runs=True, **settings
    )
    guillotine.victim = beat = project.beat()
    wait_until(lambda: not beat.is_running(), 30, "the end of the first beat")
    guillotine.victim = None
    first = identities(broker)
    assert first.keys() == names
    assert not any(
        "total_run_count" in str(client.hget(f"redbeat:{each}", "meta")) for each in names
    )

    project.beat()
    wait_until(lambda: len(read_messages(broker)) == 2 * len(names), 30, "the same runs again")
    for name, sent in identities(broker).items():
        assert sent == first[name] * 2, name
    assert first["new"][0][1] == "2023-11-14T22:13:20+00:00"


def test_a_worker_sees_the_slot_of_a_run(make_project: MakeProject, broker: redis.Redis) -> None:
    """Each slot has an id of its own, which a retry keeps."""
    project = make_project(
        redbeat_identify_runs=True,
        imports=["witness"],
        beat_schedule={"each-second": {"task": "proj.witness", "schedule": 1}},
    )
    (project.directory / "witness.py").write_text(WITNESS.format(runs_key=RUNS_KEY))
    project.worker("--beat", "--scheduler", "redbeat.RedBeatScheduler")
    wait_until(lambda: broker.llen(RUNS_KEY) >= 7, 40, "three runs and their retries")
    tries = Counter(tuple(json.loads(each)) for each in broker.lrange(RUNS_KEY, 0, 5))
    assert sorted(tries.values()) == [2, 2, 2]
    ids, slots = zip(*tries, strict=True)
    assert len(set(ids)) == len(set(slots)) == 3
    now = datetime.now(UTC)
    assert all(0 <= (now - datetime.fromisoformat(slot)).total_seconds() < 60 for slot in slots)
