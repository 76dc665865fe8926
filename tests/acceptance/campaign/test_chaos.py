"""A network that drops, delays, truncates and swallows what passes, for minutes."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.campaign import BATCH_SIZE, NO_STRIKE, ROUNDS, WITH_A_LEADER, Field, MakeField
from support.chaos import KINDS, SEED, Chaos
from support.runs import Strike
from support.servers import RedisServer

# Five minutes in fifty rounds.
SECONDS = ROUNDS * 6

# What makes a blackhole end: without it a client waits until its kernel gives up.
PATIENCE = {"socket_timeout": 1, "socket_connect_timeout": 1}


@contextlib.contextmanager
def chaos_before(server: RedisServer) -> Iterator[Chaos]:
    """A network of this kind before a server; what went wrong is printed at the end."""
    chaos = Chaos(server)
    try:
        yield chaos
    finally:
        chaos.refuse()
        print(f"REDBEAT_CHAOS_SEED={SEED}, troubles: {dict(chaos.troubles)}")


def dispatch_in(chaos: Chaos, field: Field, strike: Strike, **settings: Any) -> None:
    """Make all entries due again and again, and see them through with one and the same beat.

    For as long as the campaign wants it, and until there was every kind of trouble.
    """
    ends_at = time.monotonic() + SECONDS
    beat = field.launch_beat(
        redbeat_redis_url=chaos.url(), redbeat_redis_options=PATIENCE, **settings
    )
    while time.monotonic() < ends_at or chaos.troubles.keys() != KINDS.keys():
        field.runs.arm()
        field.runs.wait_until_settled(120)
        field.note(strike, batches=len(field.runs.names) // BATCH_SIZE)
        assert beat.is_running(), beat.log


@pytest.mark.timeout(1200)
def test_no_run_is_lost_or_doubled_on_a_bad_network_to_the_schedule(make_field: MakeField) -> None:
    """The same beat survives every kind of trouble."""
    field = make_field(**WITH_A_LEADER)
    with chaos_before(field.schedule_server) as chaos:
        dispatch_in(chaos, field, NO_STRIKE)


@pytest.mark.timeout(1200)
def test_no_run_is_lost_on_a_bad_network_to_the_schedule_and_the_broker(
    make_field: MakeField,
) -> None:
    """A batch that the broker did not acknowledge may have arrived in part: it is sent again."""
    field = make_field(**WITH_A_LEADER)
    any_run = Strike(frozenset(), frozenset(field.runs.names))
    with chaos_before(field.schedule_server) as chaos, chaos_before(field.broker_server) as other:
        dispatch_in(
            chaos, field, any_run, broker_url=other.url(), broker_transport_options=PATIENCE
        )
