"""kill -9 of beat at any moment: no run is lost, and the window is as narrow as promised."""

import pytest

from support.campaign import (
    ENTRIES,
    FEW,
    LARGE,
    ROUNDS,
    WITH_A_LEADER,
    MakeField,
    take_share,
)
from support.strikes import (
    MOMENTS,
    Moment,
    choose_requests,
    count_requests,
    kill_the_leader,
    strike_at_request,
    strike_in_mid_tick,
)
from support.tripwire import MakeTripwire


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "1 MB"])
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_no_run_is_lost_when_beat_is_killed(
    make_field: MakeField, moment: Moment, size: int
) -> None:
    """Without a leader, the next beat gets the claims of the dead one when they expire."""
    field = make_field(FEW if size else ENTRIES, size=size)
    for _ in range(ROUNDS):
        strike_in_mid_tick(field, moment)


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
        leader = kill_the_leader(field, leader)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("wire", ["redbeat_redis_url", "broker_url"])
def test_no_run_is_lost_when_beat_is_killed_between_any_two_requests(
    make_field: MakeField, make_tripwire: MakeTripwire, wire: str
) -> None:
    """Other programs can see beat's work only as it is between two requests."""
    field = make_field()
    tripwire = make_tripwire(field.server_of(wire))
    field.settings = {wire: field.url_through(tripwire, wire)}
    for nth in choose_requests(count_requests(field, tripwire, wire), take_share(0.5)):
        strike_at_request(field, tripwire, nth)
