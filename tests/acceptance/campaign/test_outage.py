"""Servers that go away in the middle of a tick, and for a while."""

import re
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise

import pytest
import redis

from support.campaign import ROUNDS, Field, take_share
from support.programs import Program
from support.runs import Strike
from support.strikes import cut_at_request
from support.tripwire import MakeTripwire
from support.waiting import wait_until

TROUBLE = re.compile(r"\[([-0-9]+ [:0-9]+,[0-9]+): (?:WARNING|ERROR|CRITICAL)/")
PAUSES = 3

# Each takes one request to the broker.
BATCHES = 4


def any_batch(field: Field) -> Strike:
    """What to note where nobody can tell whether the broker has accepted the last batch."""
    return Strike(frozenset(field.runs.unsettled()), frozenset(field.runs.names))


def times_of_trouble(beat: Program) -> list[datetime]:
    """When beat logged a warning or worse."""
    lines = map(TROUBLE.match, beat.log.splitlines())
    return [datetime.strptime(line[1], "%Y-%m-%d %H:%M:%S,%f") for line in lines if line]


@pytest.mark.timeout(1200)
def test_no_run_is_lost_when_the_broker_is_killed_in_mid_batch(field: Field) -> None:
    """It comes back with its data; a batch without an answer may have arrived in part."""
    beat = field.start_beat()
    for _ in range(take_share(0.5)):
        field.runs.arm()
        field.runs.wait_for_first_message()
        field.pass_part_of_a_tick()
        field.broker_server.kill()
        strike = any_batch(field)
        field.broker_server.start()
        field.runs.wait_until_settled()
        field.note(strike)
    assert beat.terminate() == 0


@pytest.mark.timeout(1200)
def test_no_run_is_lost_or_doubled_when_the_schedule_s_redis_is_killed_in_mid_batch(
    field: Field,
) -> None:
    """It comes back with its data, and beat commits what it has published."""
    beat = field.start_beat()
    for _ in range(take_share(0.5)):
        field.runs.arm()
        field.runs.wait_for_first_message()
        field.pass_part_of_a_tick()
        field.schedule_server.kill()
        field.schedule_server.start()
        unfinished = field.runs.unsettled()
        field.runs.wait_until_settled()
        field.note(Strike(frozenset(unfinished)))
    assert beat.terminate() == 0


@pytest.mark.timeout(1200)
def test_no_run_is_lost_when_any_request_to_the_broker_ends_in_a_cut_connection(
    field: Field, make_tripwire: MakeTripwire
) -> None:
    """The request has left, and the answer never comes."""
    tripwire = make_tripwire(field.broker_server)
    beat = field.start_beat(broker_url=tripwire.url())
    for number in range(take_share(0.3)):
        cut_at_request(field, tripwire, 1 + number % BATCHES)
        field.note(any_batch(field))
    assert beat.terminate() == 0


@pytest.mark.timeout(1200)
def test_no_run_is_lost_or_doubled_when_a_request_to_the_schedule_s_redis_ends_in_a_cut(
    field: Field, make_tripwire: MakeTripwire
) -> None:
    """Claim, load and commit are repeated or given up so that each run still happens once."""
    tripwire = make_tripwire(field.schedule_server)
    beat = field.start_beat(redbeat_redis_url=tripwire.url())
    for nth in range(1, 1 + take_share(0.5)):
        cut_at_request(field, tripwire, nth)
        field.note()
    assert beat.terminate() == 0


@pytest.mark.timeout(600)
def test_beat_waits_for_an_unavailable_broker_without_using_up_runs(field: Field) -> None:
    """With growing pauses and one line each; it stays alive, and no run is lost or doubled."""
    beat = field.start_beat()
    field.broker_server.stop()
    field.runs.arm()
    wait_until(lambda: len(times_of_trouble(beat)) >= PAUSES, 60, f"{PAUSES} pauses")
    wait_until(lambda: is_all_due(field), 60, "claims that are given back")
    field.broker_server.start()
    field.runs.wait_until_settled(90)
    assert beat.terminate() == 0
    assert not field.find_miscounted()
    field.note()
    pauses = [later - earlier for earlier, later in pairwise(times_of_trouble(beat))]
    assert all(pause.total_seconds() > 0.2 for pause in pauses), beat.log
    assert "Traceback" not in beat.log


def is_all_due(field: Field) -> bool:
    """Whether every run is due, as it was when it was armed: none leased, none committed."""
    scores = field.runs.scores()
    return max(scores.values()) < datetime.now().timestamp()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("frozen", ["broker_server", "schedule_server"])
def test_no_run_is_lost_or_doubled_when_a_server_is_frozen_past_the_claims(
    field: Field, frozen: str
) -> None:
    """A single beat keeps its claims, since no other beat has claimed them."""
    server = getattr(field, frozen)
    beat = field.start_beat()
    for _ in range(take_share(0.2)):
        field.runs.arm()
        field.runs.wait_for_first_message()
        server.freeze()
        field.pass_a_claim_s_time()
        server.thaw()
        field.runs.wait_until_settled()
        field.note()
    assert beat.terminate() == 0


def refuse_writes(client: redis.Redis) -> None:
    """Let the server be full: it answers, and takes nothing more."""
    client.config_set("maxmemory", 1)


def accept_writes(client: redis.Redis) -> None:
    """Give the server room again."""
    client.config_set("maxmemory", 0)


def become_a_replica(client: redis.Redis) -> None:
    """Let the server be the replica of one that is not there: it is read-only."""
    client.replicaof("127.0.0.1", "1")


def become_the_master(client: redis.Redis) -> None:
    """Let the server be its own master again."""
    client.replicaof("NO", "ONE")


Act = Callable[[redis.Redis], None]
REFUSALS = {
    "full": (refuse_writes, accept_writes),
    "read-only": (become_a_replica, become_the_master),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("server", ["broker", "schedule"])
def test_no_run_is_lost_when_a_server_refuses_writes(
    field: Field, server: str, refusal: str
) -> None:
    """A full or demoted server has taken no message, so no run is counted."""
    refuse, accept = REFUSALS[refusal]
    client = getattr(field, server)
    beat = field.start_beat()
    for _ in range(max(1, ROUNDS // 10)):
        field.runs.arm()
        field.runs.wait_for_first_message()
        refuse(client)
        strike = any_batch(field)
        wait_for_trouble_or_the_end(field, beat)
        accept(client)
        field.runs.wait_until_settled()
        field.note(strike)
    assert beat.terminate() == 0


def wait_for_trouble_or_the_end(field: Field, beat: Program) -> None:
    """Wait until beat has logged trouble once more, or has got through before it met with any."""
    seen = len(times_of_trouble(beat))

    def is_over() -> bool:
        return len(times_of_trouble(beat)) > seen or not field.runs.unsettled()

    wait_until(is_over, 30, "trouble")


@pytest.mark.timeout(300)
def test_no_run_is_lost_or_doubled_when_the_scripts_are_flushed(field: Field) -> None:
    """SCRIPT FLUSH in the middle of ticks, repeatedly: the scripts are loaded again."""
    beat = field.start_beat()
    field.runs.arm()

    def flush() -> bool:
        field.schedule.script_flush()
        return not field.runs.unsettled()

    wait_until(flush, 60, "a settled schedule")
    field.note()
    assert beat.terminate() == 0
