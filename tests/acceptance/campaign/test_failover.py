"""Planned failovers: sentinels replace a live master, which takes writes for a while."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis

from support.campaign import take_share
from support.messages import read_messages
from support.ports import LOOPBACK
from support.programs import MakeProject, Program
from support.runs import Tally
from support.targets import compare, numbered
from support.topologies import SERVICE, Sentinel, StartTopology
from support.waiting import wait_until

TICKERS = [f"ticker-{number:02}" for number in range(100)]
TICKS = {name: {"task": "proj.record", "schedule": 1, "args": [name]} for name in TICKERS}

# A sentinel that does not lead the failover names the new master when that has told it: a second
# after the promotion, in which the leading one asks the new master, and up to another one.
SECONDS_UNKNOWN = 2

# Seconds until runs go on: the old master is a replica by then, and the pauses of beat have ended.
RECOVERY = 40


@dataclass
class Scene:
    """Two beats on a schedule behind Sentinel; 100 entries are due each second."""

    topology: Sentinel
    broker_of_its_own: redis.Redis | None
    beats: list[Program]

    @contextmanager
    def broker(self) -> Iterator[redis.Redis]:
        """A client of the broker, which may be where the schedule is."""
        if self.broker_of_its_own is not None:
            yield self.broker_of_its_own
            return
        (master,) = self.topology.masters()
        with master.client() as client:
            yield client

    def wait_for_ticks(self) -> None:
        """Wait until each ticker was sent twice more."""
        with self.broker() as broker:
            wanted = broker.llen("celery") + 2 * len(TICKERS)
            wait_until(lambda: broker.llen("celery") >= wanted, RECOVERY, "ticks that go on")

    def tally(self) -> Tally:
        """End the beats, and compare the messages with the runs that are known in Redis.

        A run that is doubled several times counts as often.
        """
        for beat in self.beats:
            assert beat.terminate() == 0
        with self.broker() as broker:
            sent = Counter(message.args[0] for message in read_messages(broker))
        (master,) = self.topology.masters()
        with master.client() as client:
            metas = {name: client.hget(f"redbeat:{name}", "meta") for name in TICKERS}
        known = {name: json.loads(str(meta))["total_run_count"] for name, meta in metas.items()}
        verdict = compare(numbered(known), numbered(sent))
        return Tally(sum(known.values()), lost=verdict.lost, doubled=verdict.doubled)

    def explain(self, tally: Tally) -> str:
        """What became of the runs, and the logs without the lines of the entries."""
        lines = "\n".join(beat.log for beat in self.beats).splitlines()
        return "\n".join([str(tally), *(line for line in lines if "Sending due" not in line)])


MakeScene = Callable[..., Scene]


@pytest.fixture
def make_scene(
    start_topology: StartTopology, make_project: MakeProject, broker: redis.Redis
) -> MakeScene:
    """Start servers and two beats, and wait until one ticks: `make_scene("sentinel")`.

    With `shares_broker`, the messages go to the same master as the schedule.
    """

    def make(
        name: str, listed: Sequence[int] = (0, 1, 2), shares_broker: bool = False, **settings: Any
    ) -> Scene:
        topology = start_topology(name)
        assert isinstance(topology, Sentinel)
        ports = [topology.sentinels[number].port for number in listed]
        options = topology.settings["redbeat_redis_options"]
        sentinels = {"sentinels": [(LOOPBACK, port) for port in ports]}
        settings |= topology.settings | {"redbeat_redis_options": options | sentinels}
        if shares_broker:
            settings["broker_url"] = ";".join(f"sentinel://{LOOPBACK}:{port}" for port in ports)
            settings["broker_transport_options"] = {"master_name": SERVICE}
        project = make_project(beat_schedule=TICKS, result_expires=None, **settings)
        beats = [project.beat() for _ in range(2)]
        scene = Scene(topology, None if shares_broker else broker, beats)
        scene.wait_for_ticks()
        return scene

    return make


def fail_over_and_over(scene: Scene, by: int = 0) -> int:
    """Let the master be replaced, once and again; returns how often."""
    rounds = take_share(0.2)
    for _ in range(rounds):
        scene.topology.fail_over(by)
        scene.wait_for_ticks()
    return rounds


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shares_broker", [False, True], ids=["own broker", "same master"])
def test_no_run_is_lost_or_doubled_by_planned_failovers_of_a_guarded_master(
    make_scene: MakeScene, book: list[Tally], shares_broker: bool
) -> None:
    """The master refuses writes without a replica: `min-replicas-to-write`."""
    scene = make_scene("guarded-sentinel", shares_broker=shares_broker)
    fail_over_and_over(scene)
    tally = scene.tally()
    book.append(tally)
    assert not tally.lost, scene.explain(tally)
    assert not tally.doubled, scene.explain(tally)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("lock_key", ["redbeat::lock", None], ids=["a leader", "no lock"])
@pytest.mark.parametrize("by", [0, 2], ids=["listed", "not listed"])
def test_planned_failovers_double_runs_of_two_seconds_at_most(
    make_scene: MakeScene, book: list[Tally], by: int, lock_key: str | None
) -> None:
    """Where the leading sentinel is not listed, beat learns of the new master from others.

    Each of them may be doubled by the beat that was connected to the old master.
    """
    scene = make_scene("sentinel", listed=(0, 1), redbeat_lock_key=lock_key)
    rounds = fail_over_and_over(scene, by)
    tally = scene.tally()
    book.append(replace(tally, doubled=(), excused=tally.doubled))
    assert not tally.lost, scene.explain(tally)
    seconds = SECONDS_UNKNOWN if by == 2 else 0
    assert len(tally.doubled) <= rounds * seconds * len(TICKERS), scene.explain(tally)


@pytest.mark.timeout(1200)
def test_no_message_stays_behind_on_a_broker_that_was_demoted(
    make_scene: MakeScene, book: list[Tally]
) -> None:
    """Schedule and broker share a master: the new one has the messages of all counted runs."""
    scene = make_scene("sentinel", shares_broker=True)
    fail_over_and_over(scene)
    tally = scene.tally()
    book.append(tally)
    assert not tally.lost, scene.explain(tally)
    assert not tally.doubled, scene.explain(tally)
