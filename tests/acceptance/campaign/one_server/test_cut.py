"""Connections that are cut around any request, where schedule and broker are one server."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from support.campaign import ROLES, ROUNDS, MakeField
from support.strikes import choose_requests, count_requests_of_a_round, cut_at_request
from support.tripwire import MakeTripwire, Tripwire

Cut = Callable[[Tripwire], None]

CUTS: dict[str, Cut] = {
    "before the request": Tripwire.drop,
    "before the answer": Tripwire.cut_answer,
    "in the answer": partial(Tripwire.cut_answer, part=0.5),
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("wire", ["redbeat_redis_url", "broker_url"])
def test_no_run_is_lost_or_doubled_when_a_connection_is_cut(
    make_field: MakeField, make_tripwire: MakeTripwire, wire: str, cut: Cut, role: dict[str, Any]
) -> None:
    """The same beat goes on, and cannot know whether the server has executed its request."""
    field = make_field(**role)
    tripwire = make_tripwire(field.server_of(wire))
    beat = field.start_beat(**{wire: field.url_through(tripwire, wire)})
    count_requests_of_a_round(field, tripwire)  # It connects in this one.
    requests = count_requests_of_a_round(field, tripwire)
    struck = []
    for nth in choose_requests(requests, ROUNDS):
        struck.append(cut_at_request(field, tripwire, nth, partial(cut, tripwire)))
        field.note()
    assert any(struck)
    assert beat.terminate() == 0
