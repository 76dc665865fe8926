"""Several beats on one schedule without a lock."""

import pytest

from support.campaign import Field, take_share

RUNS_PER_ENTRY = 4


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("beats", [2, 3])
def test_each_run_is_dispatched_by_exactly_one_of_several_beats(field: Field, beats: int) -> None:
    """Entries become due again as soon as they have run, and every beat gets a part of them."""
    programs = [field.start_beat() for _ in range(beats)]
    for _ in range(take_share(0.5)):
        field.run_continuously(RUNS_PER_ENTRY)
        field.note()
    assert all(program.terminate() == 0 for program in programs)
    assert all("Sending due task" in program.log for program in programs)


@pytest.mark.timeout(1200)
def test_no_run_is_lost_when_one_of_two_sharing_beats_is_killed(field: Field) -> None:
    """The survivor continues at once with what is due, and with the rest when the lease expires."""
    survivor = field.start_beat()
    for _ in range(take_share(0.25)):
        victim = field.start_beat()
        field.runs.arm()
        field.runs.wait_for_first_message()
        field.pass_part_of_a_tick()
        strike = field.kill(victim)
        field.runs.wait_until_settled()
        field.note(strike)
    assert survivor.terminate() == 0
