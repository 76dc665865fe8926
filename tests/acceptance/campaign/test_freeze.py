"""A frozen beat that thaws after another has done its work."""

import pytest

from support.campaign import ENTRIES, FEW, LARGE, WITH_A_LEADER, Field, MakeField, take_share
from support.programs import Program
from support.runs import Strike
from support.tripwire import MakeTripwire, Tripwire
from support.waiting import wait_until


def thaw_and_settle(field: Field, frozen: Program, strike: Strike) -> None:
    """Let the frozen beat go on, and give it and the other more to do until it is heard of again.

    What it still does of the runs of before shows in the count of all.
    """
    logged = len(frozen.log)

    def is_back() -> bool:
        field.runs.arm(list(field.runs.settled()))
        return len(frozen.log) > logged

    frozen.thaw()
    wait_until(is_back, 30, "a word of the thawed beat")
    field.runs.wait_until_settled()
    assert frozen.is_running()
    assert frozen.terminate() == 0
    assert not field.find_miscounted()
    field.note(strike)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "1 MB"])
def test_no_run_is_lost_or_doubled_when_a_leader_is_frozen_and_thaws(
    make_field: MakeField, size: int
) -> None:
    """The standby takes over while the leader is frozen past its claim and its lock."""
    field = make_field(FEW if size else ENTRIES, size=size, **WITH_A_LEADER)
    leader = field.start_beat()
    leader.wait_for_line("Acquired lock")
    for _ in range(take_share(0.3)):
        standby = field.start_beat()
        field.runs.arm()
        field.runs.wait_for_first_message()
        field.pass_part_of_a_tick()
        strike = field.freeze(leader)
        field.runs.wait_until_settled()
        standby.wait_for_line("Acquired lock")
        thaw_and_settle(field, leader, strike)
        leader = standby


@pytest.mark.timeout(1200)
def test_no_run_is_lost_or_doubled_when_one_of_two_sharing_beats_is_frozen_and_thaws(
    field: Field,
) -> None:
    """Without a leader, the other beat gets the frozen one's claims when they expire."""
    other = field.start_beat()
    for _ in range(take_share(0.3)):
        beat = field.start_beat()
        field.runs.arm()
        field.runs.wait_for_first_message()
        field.pass_part_of_a_tick()
        strike = field.freeze(beat)
        field.runs.wait_until_settled()
        thaw_and_settle(field, beat, strike)
    other.terminate()


def freeze_at_request(field: Field, tripwire: Tripwire, wire: str, nth: int) -> None:
    """Freeze a beat while it waits for the answer to its nth request on this wire."""
    beat = field.start_beat(**{wire: tripwire.url()})
    tripwire.arm(nth, beat.freeze)
    field.runs.arm()
    tripwire.wait_until_struck()
    strike = field.freeze(beat)
    other = field.start_beat()
    field.runs.wait_until_settled()
    thaw_and_settle(field, beat, strike)
    other.terminate()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("leader", [{}, WITH_A_LEADER], ids=["sharing", "leading"])
@pytest.mark.parametrize("wire", ["redbeat_redis_url", "broker_url"])
def test_no_run_is_lost_or_doubled_when_beat_is_frozen_in_a_request(
    make_field: MakeField, make_tripwire: MakeTripwire, wire: str, leader: dict[str, object]
) -> None:
    """The answer is there when it thaws; by then it may mean nothing any more.

    A frozen sender's request is on its way all the same, so messages that are being sent at that
    moment count as caught in the window.
    """
    field = make_field(**leader)
    server = field.schedule_server if wire == "redbeat_redis_url" else field.broker_server
    tripwire = make_tripwire(server)
    for nth in range(1, 1 + take_share(0.25)):
        freeze_at_request(field, tripwire, wire, nth)
