"""A real beat on every kind of Redis, while the master of its schedule is killed.

Some entries tick: they are due each second. Others are due once in the test, in a wave that lasts
for three seconds, and the strike comes with the first message of the wave.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import ensure_conf, get_redis
from support.apps import MakeApp
from support.messages import QUEUE, read_messages
from support.ports import LOOPBACK
from support.programs import MakeProject, Program, Project
from support.topologies import Cluster, Sentinel, StartTopology, Topology
from support.waiting import wait_until

TICKERS = [f"ticker-{number}" for number in range(3)]
TICKS = {
    name: {"task": "proj.record", "schedule": 1, "args": [name], "options": {"queue": QUEUE}}
    for name in TICKERS
}

WAVE = "wave"
WAVES = [f"wave-{number:03}" for number in range(150)]
WAVE_SECONDS = 3
BATCH_SIZE = 10
DAY = 24 * 3600

# Seconds until runs go on once the servers serve again: the pauses of beat end at five.
RECOVERY = 40


@dataclass
class Scene:
    """A beat at work on a topology.

    Attributes:
        app: An application with the same settings, in the process of the test.
        broker: A client of the broker, which no strike hits.
    """

    topology: Topology
    project: Project
    app: Celery
    broker: redis.Redis
    beat: Program

    @property
    def schedule_key(self) -> str:
        """The key of the schedule, whose slot and whose server the strikes hit."""
        return ensure_conf(self.app).schedule_key

    def store_wave(self) -> None:
        """Store the entries of the wave, which begins in two seconds."""
        begin = datetime.now(timezone.utc) + timedelta(seconds=2)
        for number, name in enumerate(WAVES):
            due = begin + timedelta(seconds=number % WAVE_SECONDS)
            RedBeatSchedulerEntry(
                name,
                "proj.record",
                schedule(DAY),
                args=[name],
                options={"queue": WAVE},
                last_run_at=due - timedelta(seconds=DAY),
                app=self.app,
            ).save()
        self.topology.wait_until_replicated()

    def wait_for_wave(self) -> None:
        """Return as soon as the first message of the wave is with the broker."""
        wait_until(lambda: self.broker.blmove(WAVE, WAVE, 1, "LEFT", "LEFT"), 30, "the wave")

    def wait_for_end_of_wave(self) -> None:
        """Wait until every entry of the wave has its next due time, a day ahead."""
        wait_until(lambda: not self.unsettled(), RECOVERY, "the end of the wave")

    def unsettled(self) -> set[str]:
        """The entries of the wave that are due or leased."""
        members = get_redis(self.app).zrange(self.schedule_key, 0, -1, withscores=True)
        ahead = {key for key, score in members if score > time.time() + DAY / 2}
        generate_key = RedBeatSchedulerEntry.generate_key
        return {name for name in WAVES if generate_key(self.app, name) not in ahead}

    def wait_for_ticks(self, more: int = 3) -> None:
        """Wait until each ticker was sent so many times more."""
        wanted = {name: self.sent(QUEUE)[name] + more for name in TICKERS}
        wait_until(
            lambda: all(self.sent(QUEUE)[name] >= wanted[name] for name in TICKERS),
            RECOVERY,
            "ticks that go on",
        )

    def sent(self, queue: str) -> Counter[str]:
        """How many messages of each entry wait in the queue."""
        return Counter(message.args[0] for message in read_messages(self.broker, queue))

    def surplus(self) -> dict[str, int]:
        """For each ticker: how many more messages there are than runs that are known in Redis.

        For a beat that has ended; a negative number is that of runs that were lost.
        """
        return {name: self.sent(QUEUE)[name] - self.count_runs(name) for name in TICKERS}

    def count_runs(self, name: str) -> int:
        """The run count that is stored."""
        key = RedBeatSchedulerEntry.generate_key(self.app, name)
        return RedBeatSchedulerEntry.from_key(key, app=self.app).total_run_count

    def repeated(self) -> set[str]:
        """The entries of the wave that were sent more than once."""
        return {name for name, count in self.sent(WAVE).items() if count > 1}


MakeScene = Callable[[str], Scene]


@pytest.fixture
def make_scene(
    start_topology: StartTopology,
    make_project: MakeProject,
    make_app_with: MakeApp,
    broker: redis.Redis,
) -> MakeScene:
    """Start the servers and a beat, and wait until it ticks: `make_scene("sentinel")`."""

    def make(name: str) -> Scene:
        topology = start_topology(name)
        project = make_project(
            beat_schedule=TICKS, redbeat_batch_size=BATCH_SIZE, **topology.settings
        )
        app = make_app_with(**topology.settings)
        scene = Scene(topology, project, app, broker, project.beat())
        scene.wait_for_ticks(2)
        return scene

    return make


def strike_in_mid_wave(scene: Scene, strike: Callable[[str], object]) -> None:
    """Let a wave begin, strike where the schedule is, and see the same beat go through with it."""
    scene.store_wave()
    scene.wait_for_wave()
    strike(scene.schedule_key)
    scene.wait_for_end_of_wave()
    scene.wait_for_ticks()
    assert scene.beat.is_running()
    assert scene.beat.terminate() == 0
    assert "Traceback" not in scene.beat.log
    assert scene.sent(WAVE).keys() == set(WAVES)


@pytest.mark.parametrize("name", ["single", "tls"])
def test_beat_survives_a_server_that_is_killed_and_comes_back(
    make_scene: MakeScene, name: str
) -> None:
    """With its data, no run is lost and none happens twice."""
    scene = make_scene(name)
    strike_in_mid_wave(scene, scene.topology.lose_master_of)
    assert not scene.repeated()
    assert scene.surplus() == dict.fromkeys(TICKERS, 0)


@pytest.mark.parametrize("name", ["sentinel", "tls-sentinel", "cluster", "tagged-cluster"])
def test_beat_survives_a_master_that_is_killed_for_good(make_scene: MakeScene, name: str) -> None:
    """No run is lost; what the replica had not received, a batch at most, is repeated."""
    scene = make_scene(name)
    strike_in_mid_wave(scene, scene.topology.lose_master_of)
    assert len(scene.repeated()) <= BATCH_SIZE
    assert set(scene.surplus().values()) <= {0, 1}


@pytest.mark.parametrize("name", ["cluster", "tagged-cluster"])
def test_beat_follows_the_schedule_to_another_node(make_scene: MakeScene, name: str) -> None:
    """Its slot is moved key by key: no run is lost, and none happens twice."""
    scene = make_scene(name)
    topology = scene.topology
    assert isinstance(topology, Cluster)
    before = topology.master_of(scene.schedule_key)
    strike_in_mid_wave(scene, topology.move_slot_of)
    assert topology.master_of(scene.schedule_key) is not before
    assert not scene.repeated()
    assert scene.surplus() == dict.fromkeys(TICKERS, 0)


@pytest.fixture
def sentinel(start_topology: StartTopology) -> Sentinel:
    """A master, a replica and three sentinels."""
    topology = start_topology("sentinel")
    assert isinstance(topology, Sentinel)
    return topology


def test_idle_beats_leave_a_master_that_was_replaced_within_two_seconds(
    sentinel: Sentinel, make_project: MakeProject
) -> None:
    """Leader and standby do, long before the old master is demoted."""
    hourly = {"hourly": {"task": "proj.record", "schedule": 3600, "args": ["hourly"]}}
    defaults = {"beat_max_loop_interval": None, "redbeat_lock_timeout": None}
    project = make_project(beat_schedule=hourly, **defaults, **sentinel.settings)
    leader = project.beat()
    leader.wait_for_line("This beat leads")
    standby = project.beat()
    standby.wait_for_line("Waiting for the lock")
    (old,) = sentinel.masters()
    new = sentinel.promote()
    for beat in (leader, standby):
        line = beat.wait_for_line("WARNING.* The master of", 2)
        assert f"now {LOOPBACK}:{new.port} (was {LOOPBACK}:{old.port})" in line
    assert sentinel.masters() == [old, new] or sentinel.masters() == [new, old]
    with new.client() as client:
        before = client.pttl("redbeat::lock")
        wait_until(lambda: client.pttl("redbeat::lock") > before, 10, "a renewal")
    assert leader.terminate() == 0
    assert "Lost the lock" not in leader.log
    standby.wait_for_line("This beat leads")


@pytest.mark.parametrize("strike", ["kill", "freeze"])
def test_beat_goes_on_while_no_sentinel_answers(make_scene: MakeScene, strike: str) -> None:
    """With the master that it knows; while one sentinel answers, nothing is logged."""
    scene = make_scene("sentinel")
    assert isinstance(scene.topology, Sentinel)
    first, *others = scene.topology.sentinels
    getattr(first, strike)()
    scene.wait_for_ticks()
    assert "WARNING" not in scene.beat.log
    for each in others:
        getattr(each, strike)()
    scene.beat.wait_for_line("WARNING.* No sentinel of the-schedule answers")
    scene.wait_for_ticks()
    assert scene.beat.terminate() == 0
    assert scene.beat.log.count("No sentinel of") == 1
