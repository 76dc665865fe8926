"""Failovers of the one server of schedule and broker, behind Sentinel.

What is claimed: on the master that remains, each slot has exactly one message. The test waits until
the replica has acknowledged the schedule (`WAIT`), since what a replica never heard of is gone with
its master. What beat writes is not waited for, and need not be: messages and their commit are one
transaction in the stream of replication, so the new master has both or neither, and a slot of which
it has neither is still due there.

What is not claimed: that no message is run twice. A worker may have taken it from the old master,
and the new one never have heard of it: Redis answers before it replicates. `min-replicas-to-write`
shortens the time in which a master that was replaced accepts such messages, and does not end it.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.sentinel import Sentinel as Sentinels

from support.apps import disconnect
from support.campaign import BROKER_DB, ENTRIES, ROLES, Field, take_share
from support.ports import LOOPBACK
from support.programs import Project
from support.runs import Runs, Strike, Tally
from support.servers import RedisServer
from support.topologies import SERVICE, Sentinel, StartTopology

LayBehindSentinels = Callable[..., Field]
FailOver = Callable[[Sentinel, RedisServer], None]

# Seconds over which entries become due, one after the other, so that beat dispatches all through a
# failover. A planned one takes effect within a second or two after it was ordered.
SPREAD = 4.0


def replace_a_live_master(topology: Sentinel, master: RedisServer) -> None:
    """A planned failover: the old master takes writes for a while, which are discarded."""
    topology.promote()


def lose_the_master(topology: Sentinel, master: RedisServer) -> None:
    """An unplanned one; what was the master comes back as a replica."""
    topology.lose(master)
    topology.bring_back(master)


FAILOVERS: dict[str, FailOver] = {"planned": replace_a_live_master, "killed": lose_the_master}


def client_of_master(ports: list[int], db: int) -> redis.Redis:
    """A client of a database of whichever server the sentinels at these ports name."""
    sentinels = Sentinels([(LOOPBACK, port) for port in ports])  # type: ignore[no-untyped-call]  # its gap
    client: redis.Redis = sentinels.master_for(SERVICE, db=db, decode_responses=True)  # type: ignore[no-untyped-call]  # too
    return client


@pytest.fixture
def lay_behind_sentinels(tmp_path: Path, book: list[Tally]) -> Iterator[LayBehindSentinels]:
    """Lay a field on the master of a topology, whichever server that is at any time."""
    with contextlib.ExitStack() as stack:

        def lay(topology: Sentinel, **settings: Any) -> Field:
            ports = [sentinel.port for sentinel in topology.sentinels]
            schedule, broker = (client_of_master(ports, db) for db in (0, BROKER_DB))
            for client in (schedule, broker):
                stack.callback(disconnect, client)
            urls = [f"sentinel://{LOOPBACK}:{port}/{BROKER_DB}" for port in ports]
            options = {"master_name": SERVICE}
            where = {"broker_url": ";".join(urls), "broker_transport_options": options}
            directory = tmp_path / "project"
            directory.mkdir()
            (server,) = topology.masters()
            field = Field(
                server,
                server,
                schedule,
                broker,
                stack.enter_context(contextlib.closing(Project(directory))),
                Runs(schedule, broker, ENTRIES),
                topology.settings | where | settings,
                book,
                BROKER_DB,
            )
            field.runs.store()
            return field

        yield lay


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("fail_over", FAILOVERS.values(), ids=FAILOVERS)
@pytest.mark.parametrize(
    ("name", "role"),
    [
        pytest.param("sentinel", ROLES["sharing"], id="sharing"),
        pytest.param("sentinel", ROLES["leading"], id="leading"),
        pytest.param("guarded-sentinel", ROLES["leading"], id="leading-guarded"),
    ],
)
def test_the_new_master_has_one_message_for_each_slot(
    start_topology: StartTopology,
    lay_behind_sentinels: LayBehindSentinels,
    name: str,
    role: dict[str, Any],
    fail_over: FailOver,
) -> None:
    """See above for what is claimed; `guarded-sentinel` has `min-replicas-to-write 1`."""
    topology = start_topology(name)
    assert isinstance(topology, Sentinel)
    field = lay_behind_sentinels(topology, **role)
    beats = [field.start_beat() for _ in range(2)]
    for _ in range(take_share(0.4)):
        topology.wait_until_whole()
        (master,) = topology.masters()
        field.runs.arm(spread=SPREAD)
        assert field.schedule.wait(1, 10_000) == 1
        field.runs.wait_for_messages(random.randrange(1, ENTRIES // 2))
        fail_over(topology, master)
        for client in (field.schedule, field.broker):
            disconnect(client)
        strike = Strike(frozenset(field.runs.unsettled()))
        field.runs.wait_until_settled()
        field.note(strike)
    assert all(beat.terminate() == 0 for beat in beats)
