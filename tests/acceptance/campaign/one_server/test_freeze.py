"""A frozen beat that thaws after another has done its work, on the one server that both use."""

from typing import Any

import pytest

from support.campaign import ENTRIES, FEW, ROLES, ROUNDS, SIZES, WITH_A_LEADER, Field, MakeField
from support.strikes import (
    MOMENTS,
    Moment,
    choose_requests,
    count_requests,
    freeze_at_request,
    freeze_one_of_two,
    freeze_the_leader,
    hold_request,
)
from support.tripwire import MakeTripwire


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_leader_that_thaws_after_the_standby_took_over_sends_nothing(
    make_field: MakeField, moment: Moment, size: int
) -> None:
    """What it had claimed is done by the standby, once."""
    field = make_field(FEW if size else ENTRIES, size=size, **WITH_A_LEADER)
    leader = field.start_beat()
    leader.wait_for_line("Acquired lock")
    for _ in range(ROUNDS):
        leader = freeze_the_leader(field, leader, moment)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_one_of_two_sharing_beats_that_thaws_after_its_claims_ran_out_sends_nothing(
    field: Field, moment: Moment
) -> None:
    """The other beat gets the frozen one's claims when they expire, and does them once."""
    other = field.start_beat()
    for _ in range(ROUNDS):
        freeze_one_of_two(field, moment)
    assert other.terminate() == 0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
@pytest.mark.parametrize("wire", ["redbeat_redis_url", "broker_url"])
def test_no_run_is_lost_or_doubled_when_beat_is_frozen_in_a_request(
    make_field: MakeField, make_tripwire: MakeTripwire, wire: str, role: dict[str, Any]
) -> None:
    """The answer is there when it thaws; by then it may mean nothing any more."""
    field = make_field(**role)
    tripwire = make_tripwire(field.server_of(wire))
    for nth in choose_requests(count_requests(field, tripwire, wire), ROUNDS):
        freeze_at_request(field, tripwire, wire, nth)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
def test_a_batch_that_reaches_the_server_after_another_beat_did_the_work_is_refused(
    make_field: MakeField, make_tripwire: MakeTripwire, role: dict[str, Any]
) -> None:
    """The network holds it back for longer than the lease lasts; its entries have run by then."""
    field = make_field(**role)
    tripwire = make_tripwire(field.broker_server)
    for nth in choose_requests(count_requests(field, tripwire, "broker_url"), ROUNDS):
        hold_request(field, tripwire, "broker_url", nth)
