"""A beat that is killed while it stores its static schedule."""

import random
from typing import Any

import pytest

from support.campaign import Field, MakeField, take_share
from support.runs import DAY, PREFIX, SCHEDULE_KEY
from support.tripwire import MakeTripwire, Tripwire
from support.waiting import wait_until

STATICS = [f"static-{number:03d}" for number in range(30)]
STATICS_KEY = f"{PREFIX}:statics"


def static_schedule() -> dict[str, Any]:
    """Entries as an application's configuration holds them."""
    return {name: {"task": "proj.record", "schedule": DAY, "args": [name]} for name in STATICS}


@pytest.fixture
def field(make_field: MakeField) -> Field:
    """A field on which nothing is stored yet."""
    return make_field(entries=0, beat_schedule=static_schedule())


def is_complete(field: Field) -> bool:
    """Whether every static entry has a definition and a place, and is known as static."""
    keys = {f"{PREFIX}{name}" for name in STATICS}
    return (
        set(field.schedule.zrange(SCHEDULE_KEY, 0, -1)) == keys
        and field.schedule.smembers(STATICS_KEY) == set(STATICS)
        and all(field.schedule.hexists(key, "definition") for key in keys)
    )


def complete_schedule(field: Field, **settings: Any) -> None:
    """Start a beat, and see that it stores all that is missing."""
    beat = field.start_beat(**settings)
    wait_until(lambda: is_complete(field), 30, "a complete schedule")
    beat.terminate()


def count_requests(field: Field, tripwire: Tripwire) -> int:
    """How many round trips a beat makes that starts with nothing stored."""
    with tripwire.counting() as traffic:
        complete_schedule(field, redbeat_redis_url=tripwire.url())
    return traffic.round_trips


@pytest.mark.timeout(1200)
def test_a_static_schedule_is_complete_though_beat_was_killed_while_storing_it(
    field: Field, make_tripwire: MakeTripwire
) -> None:
    """Between any two requests: the next beat stores what is missing."""
    tripwire = make_tripwire(field.schedule_server)
    count_requests(field, tripwire)
    field.schedule.flushall()
    # Counted once the server knows the scripts, as it does when beat is struck.
    requests = range(1, count_requests(field, tripwire) + 1)
    for nth in random.sample(requests, min(len(requests), take_share(1))):
        field.schedule.flushall()
        beat = field.launch_beat(redbeat_redis_url=tripwire.url())
        tripwire.arm(nth, beat.kill)
        tripwire.wait_until_struck()
        complete_schedule(field)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["zrem", "delete", "srem", "meta"])
def test_an_incomplete_static_schedule_is_completed(field: Field, command: str) -> None:
    """Whether a member, a hash or a name is missing, it is stored again at the start."""
    complete_schedule(field)
    tear = {
        "zrem": lambda: field.schedule.zrem(SCHEDULE_KEY, f"{PREFIX}{STATICS[0]}"),
        "delete": lambda: field.schedule.delete(f"{PREFIX}{STATICS[0]}"),
        "srem": lambda: field.schedule.srem(STATICS_KEY, STATICS[0]),
        "meta": lambda: field.schedule.hdel(f"{PREFIX}{STATICS[0]}", "meta"),
    }
    tear[command]()
    complete_schedule(field)
