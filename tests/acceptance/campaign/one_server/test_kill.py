"""kill -9 of beat at any moment, where schedule and broker are one server."""

from typing import Any

import pytest

from support.campaign import ENTRIES, FEW, ROLES, ROUNDS, SIZES, WITH_A_LEADER, Field, MakeField
from support.strikes import (
    MOMENTS,
    Moment,
    as_a_batch_appears,
    choose_requests,
    count_requests,
    kill_the_leader,
    strike_at_request,
    strike_in_mid_tick,
)
from support.tripwire import MakeTripwire


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_no_run_is_lost_or_doubled_when_beat_is_killed(
    make_field: MakeField, moment: Moment, role: dict[str, Any], size: int
) -> None:
    """The next beat does what is left: nothing of a batch that the broker has."""
    field = make_field(FEW if size else ENTRIES, size=size, **role)
    for _ in range(ROUNDS):
        strike_in_mid_tick(field, moment)


@pytest.mark.timeout(1800)
def test_no_run_is_lost_or_doubled_when_the_leader_is_killed_while_a_standby_waits(
    make_field: MakeField,
) -> None:
    """The standby continues where the leader was killed, round after round."""
    field = make_field(**WITH_A_LEADER)
    leader = field.start_beat()
    leader.wait_for_line("Acquired lock")
    for _ in range(ROUNDS):
        leader = kill_the_leader(field, leader, as_a_batch_appears)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("wire", ["redbeat_redis_url", "broker_url"])
def test_no_run_is_lost_or_doubled_when_beat_is_killed_between_any_two_requests(
    field: Field, make_tripwire: MakeTripwire, wire: str
) -> None:
    """Other programs can see beat's work only as it is between two requests."""
    tripwire = make_tripwire(field.server_of(wire))
    field.settings = {wire: field.url_through(tripwire, wire)}
    for nth in choose_requests(count_requests(field, tripwire, wire), ROUNDS):
        strike_at_request(field, tripwire, nth)
