"""SIGTERM in the middle of a tick."""

import random
import signal
import threading
import time
from functools import partial

import pytest

from support.campaign import (
    BATCH_SIZE,
    ENTRIES,
    FEW,
    LARGE,
    WITH_A_LEADER,
    Field,
    MakeField,
    take_share,
)
from support.programs import Program
from support.tripwire import MakeTripwire

# What is promised for the end of a beat, and for the first run by the next.
EXIT_SECONDS = 2.0
HANDOVER_SECONDS = 2.0

# Service managers wait no less before they kill.
PATIENCE_SECONDS = 10.0


def end_in_time(beat: Program) -> None:
    """Ask a beat to end; it ends well, and as soon as promised."""
    began = time.monotonic()
    assert beat.terminate() == 0
    assert time.monotonic() - began < EXIT_SECONDS


def terminate_in_mid_tick(field: Field, beat: Program) -> None:
    """End a beat while it dispatches; it leaves nothing leased and nothing in the window."""
    field.runs.arm()
    field.runs.wait_for_first_message()
    field.pass_part_of_a_tick()
    end_in_time(beat)


def tell_twice(beat: Program) -> None:
    """Two signals, as from a hasty service manager; the second one while the answer is read."""
    beat.signal(signal.SIGTERM)
    threading.Timer(random.uniform(0, 0.05), beat.signal, [signal.SIGTERM]).start()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "1 MB"])
def test_a_terminated_beat_commits_what_it_published_and_gives_the_rest_back(
    make_field: MakeField, size: int
) -> None:
    """Each entry has its message and its next time, or has no message and is due."""
    field = make_field(FEW if size else ENTRIES, size=size)
    for _ in range(take_share(0.3)):
        terminate_in_mid_tick(field, field.start_beat())
        strike = field.runs.find_struck()
        assert not strike.caught
        scores = field.runs.scores()
        assert all(scores[name] <= time.time() for name in strike.unfinished)
        next_beat = field.start_beat()
        field.runs.wait_until_settled()
        assert next_beat.terminate() == 0
        assert not field.find_miscounted()
        field.note(strike)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "1 MB"])
def test_a_beat_that_gets_sigterm_twice_sets_nothing_aside(
    make_field: MakeField, make_tripwire: MakeTripwire, size: int
) -> None:
    """Two SIGTERMs within 50 ms, at any point: entries that were not reached stay as claimed."""
    count = FEW if size else 500
    field = make_field(count, size=size, **(WITH_A_LEADER | {"redbeat_batch_size": count}))
    tripwire = make_tripwire(field.schedule_server)
    field.settings["redbeat_redis_url"] = tripwire.url()
    for number in range(take_share(0.3)):
        beat = field.start_beat()
        beat.wait_for_line("Acquired lock")
        # Of a tick: renew, claim, load, begin histories, renew, commit.
        tripwire.arm(number % 6 + 1, partial(tell_twice, beat))
        field.runs.arm()
        tripwire.wait_until_struck()
        beat.wait_for_exit()
        strike = field.runs.find_struck()
        assert not field.runs.set_aside(), beat.log
        next_beat = field.start_beat()
        field.runs.wait_until_settled()
        assert next_beat.terminate() == 0
        field.note(strike, batches=count // BATCH_SIZE + 1)


@pytest.mark.timeout(1200)
def test_a_standby_continues_when_the_leader_is_terminated_in_mid_tick(
    make_field: MakeField,
) -> None:
    """Nothing is lost or doubled in between."""
    field = make_field(**WITH_A_LEADER)
    leader = field.start_beat()
    leader.wait_for_line("Acquired lock")
    for _ in range(take_share(0.3)):
        standby = field.start_beat()
        terminate_in_mid_tick(field, leader)
        field.runs.wait_until_settled(HANDOVER_SECONDS)
        field.note()
        leader = standby


@pytest.mark.timeout(300)
def test_a_beat_that_waits_for_its_broker_ends_in_time(field: Field) -> None:
    """SIGTERM in the pause between two tries: every run is given back."""
    beat = field.start_beat()
    field.broker_server.stop()
    field.runs.arm()
    beat.wait_for_line("trying again in [1-9]")
    end_in_time(beat)
    assert max(field.runs.scores().values()) <= time.time()
    field.broker_server.start()
    field.start_beat()
    field.runs.wait_until_settled()
    field.note()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("frozen", ["broker_server", "schedule_server"])
def test_a_beat_whose_server_does_not_answer_ends_in_time(field: Field, frozen: str) -> None:
    """SIGTERM while a server is frozen: beat does not wait for the answer, and no run is lost."""
    server = getattr(field, frozen)
    beat = field.start_beat()
    field.runs.arm()
    field.runs.wait_for_first_message()
    server.freeze()
    try:
        beat.terminate(timeout=PATIENCE_SECONDS)
    finally:
        server.thaw()
    strike = field.runs.find_struck()
    field.start_beat()
    field.runs.wait_until_settled()
    field.note(strike)
