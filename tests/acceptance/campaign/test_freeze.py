"""A frozen beat that thaws after another has done its work."""

import pytest

from support.campaign import ENTRIES, FEW, LARGE, WITH_A_LEADER, Field, MakeField, take_share
from support.strikes import (
    MOMENTS,
    Moment,
    choose_requests,
    count_requests,
    freeze_at_request,
    freeze_one_of_two,
    freeze_the_leader,
)
from support.tripwire import MakeTripwire


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "1 MB"])
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_no_run_is_lost_or_doubled_when_a_leader_is_frozen_and_thaws(
    make_field: MakeField, moment: Moment, size: int
) -> None:
    """The standby takes over while the leader is frozen past its claim and its lock."""
    field = make_field(FEW if size else ENTRIES, size=size, **WITH_A_LEADER)
    leader = field.start_beat()
    leader.wait_for_line("Acquired lock")
    for _ in range(take_share(0.3)):
        leader = freeze_the_leader(field, leader, moment)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_no_run_is_lost_or_doubled_when_one_of_two_sharing_beats_is_frozen_and_thaws(
    field: Field, moment: Moment
) -> None:
    """Without a leader, the other beat gets the frozen one's claims when they expire."""
    other = field.start_beat()
    for _ in range(take_share(0.3)):
        freeze_one_of_two(field, moment)
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
    tripwire = make_tripwire(field.server_of(wire))
    for nth in choose_requests(count_requests(field, tripwire, wire), take_share(0.25)):
        freeze_at_request(field, tripwire, wire, nth)
