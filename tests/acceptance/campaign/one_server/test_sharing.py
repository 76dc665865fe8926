"""Several beats without a lock, on the one server of schedule and broker."""

import random

import pytest

from support.campaign import ROUNDS, Field, take_share
from support.strikes import MOMENTS

RUNS_PER_ENTRY = 4


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("beats", [2, 3])
def test_each_run_is_dispatched_once_by_several_beats(field: Field, beats: int) -> None:
    """Entries become due again as soon as they have run, and every beat gets a part of them."""
    programs = [field.start_beat() for _ in range(beats)]
    for _ in range(take_share(0.6)):
        field.run_continuously(RUNS_PER_ENTRY)
        field.note()
    assert all(program.terminate() == 0 for program in programs)
    assert all("Sending due task" in program.log for program in programs)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("beats", [2, 3])
def test_no_run_is_lost_or_doubled_when_all_but_one_of_the_beats_are_killed(
    field: Field, beats: int
) -> None:
    """The survivor continues at once with what is due, and with the rest when the lease expires."""
    programs = [field.start_beat() for _ in range(beats)]
    for _ in range(ROUNDS):
        field.runs.arm()
        random.choice(list(MOMENTS.values()))(field)
        survivor, *victims = random.sample(programs, beats)
        for victim in victims:
            victim.kill()
        strike = field.find_struck()
        field.runs.wait_until_settled()
        field.note(strike)
        programs = [survivor, *(field.start_beat() for _ in victims)]
    assert all(program.terminate() == 0 for program in programs)
