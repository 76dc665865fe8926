"""The server of schedule and broker, killed while beat dispatches, and started again."""

from typing import Any

import pytest

from support.campaign import ROLES, MakeField, take_share
from support.runs import Strike
from support.strikes import MOMENTS, Moment


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_no_run_is_lost_or_doubled_when_the_server_is_killed_and_started_again(
    make_field: MakeField, moment: Moment, role: dict[str, Any]
) -> None:
    """With an append-only file (`appendfsync always`), which has a batch as a whole or not at all.

    The file is rewritten after each start, since the kill may have torn it.
    """
    field = make_field(**role)
    beat = field.start_beat()
    for _ in range(take_share(0.6)):
        field.runs.arm()
        moment(field)
        field.schedule_server.kill()
        field.schedule_server.start()
        strike = Strike(frozenset(field.runs.unsettled()))
        field.schedule_server.rewrite_log()
        field.runs.wait_until_settled()
        field.note(strike)
    assert beat.terminate() == 0
