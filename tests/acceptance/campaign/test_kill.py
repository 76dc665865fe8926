"""kill -9 of beat at any moment: no run is lost, and the window is as narrow as promised."""

import random

import pytest

from support.campaign import (
    ENTRIES,
    FEW,
    LARGE,
    ROUNDS,
    WITH_A_LEADER,
    Field,
    MakeField,
    take_share,
)
from support.tripwire import MakeTripwire, Tripwire


def strike_in_mid_tick(field: Field) -> None:
    """Kill a beat while it dispatches, and let the next one do the rest."""
    beat = field.start_beat()
    field.runs.arm()
    field.runs.wait_for_first_message()
    field.pass_part_of_a_tick()
    strike = field.kill(beat)
    next_beat = field.start_beat()
    field.runs.wait_until_settled()
    assert next_beat.terminate() == 0
    assert not field.find_miscounted()
    field.note(strike)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "1 MB"])
def test_no_run_is_lost_when_beat_is_killed_at_a_random_moment(
    make_field: MakeField, size: int
) -> None:
    """Without a leader, the next beat gets the claims of the dead one when they expire."""
    field = make_field(FEW if size else ENTRIES, size=size)
    for _ in range(ROUNDS):
        strike_in_mid_tick(field)


@pytest.mark.timeout(1200)
def test_no_run_is_lost_when_the_leader_is_killed_and_started_again(make_field: MakeField) -> None:
    """With a lock, the next beat takes over, and what the dead one had claimed is due."""
    field = make_field(**WITH_A_LEADER)
    for _ in range(take_share(0.5)):
        strike_in_mid_tick(field)


@pytest.mark.timeout(1200)
def test_no_run_is_lost_when_the_leader_is_killed_while_a_standby_waits(
    make_field: MakeField,
) -> None:
    """The standby continues where the leader was killed, round after round."""
    field = make_field(**WITH_A_LEADER)
    leader = field.start_beat()
    leader.wait_for_line("Acquired lock")
    for _ in range(take_share(0.5)):
        standby = field.start_beat()
        field.runs.arm()
        field.runs.wait_for_first_message()
        field.pass_part_of_a_tick()
        strike = field.kill(leader)
        field.runs.wait_until_settled()
        field.note(strike)
        leader = standby


def count_requests(field: Field, tripwire: Tripwire) -> int:
    """How many round trips a beat makes on this wire for one round of runs."""
    beat = field.start_beat()
    with tripwire.counting() as traffic:
        field.runs.arm()
        field.runs.wait_until_settled()
    beat.terminate()
    field.note()
    return traffic.round_trips


def strike_at_request(field: Field, tripwire: Tripwire, nth: int) -> None:
    """Kill a beat just before its nth request on this wire, counted from when runs are due."""
    beat = field.start_beat()
    tripwire.arm(nth, beat.kill)
    field.runs.arm()
    tripwire.wait_until_struck()
    strike = field.kill(beat)
    next_beat = field.start_beat()
    field.runs.wait_until_settled()
    assert next_beat.terminate() == 0
    field.note(strike)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("wire", ["redbeat_redis_url", "broker_url"])
def test_no_run_is_lost_when_beat_is_killed_between_any_two_requests(
    make_field: MakeField, make_tripwire: MakeTripwire, wire: str
) -> None:
    """Other programs can see beat's work only as it is between two requests."""
    field = make_field()
    server = field.schedule_server if wire == "redbeat_redis_url" else field.broker_server
    tripwire = make_tripwire(server)
    field.settings = {wire: tripwire.url()}
    requests = range(1, count_requests(field, tripwire) + 1)
    for nth in random.sample(requests, min(len(requests), take_share(0.5))):
        strike_at_request(field, tripwire, nth)
