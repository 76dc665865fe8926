"""The pace of a beat: how many due entries it claims at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redbeat.beat.pace import LEAST, Filling, Pace

MOST = 500

#: Seconds in which a batch is filled.
AVAILABLE = 1.0

#: What one turn may cost, in seconds: 10,000 turns a second, or one in a minute.
COSTS = st.floats(0.0001, 60.0)

FILLINGS = st.builds(
    Filling,
    done=st.integers(0, MOST),
    seconds=st.just(0.0) | st.floats(1e-6, 1e6),
    available=st.floats(-60.0, AVAILABLE),
    lacked_time=st.booleans(),
)


def fill(size: int, cost: float) -> Filling:
    """What becomes of a batch of so many entries whose turns cost the same."""
    done, seconds = 0, 0.0
    while done < size and seconds < AVAILABLE:
        done, seconds = done + 1, seconds + cost
    return Filling(done, seconds, AVAILABLE, lacked_time=done < size)


def run(pace: Pace, cost: float, batches: int) -> list[tuple[int, int]]:
    """For each of so many batches: how many entries it claimed, and how many of them it ran."""
    history = []
    for _ in range(batches):
        size = pace.limit(MOST)
        filling = fill(size, cost)
        pace.note(filling)
        history.append((size, filling.done))
    return history


@given(st.lists(FILLINGS), st.integers(1, 2 * MOST))
def test_a_batch_is_never_larger_than_the_setting_nor_tiny(
    fillings: list[Filling], most: int
) -> None:
    pace = Pace()
    for filling in fillings:
        pace.note(filling)
        assert min(LEAST, most) <= pace.limit(most) <= most


@given(st.lists(FILLINGS))
def test_a_beat_whose_batches_never_lack_time_always_claims_as_many_as_it_may(
    fillings: list[Filling],
) -> None:
    """However long they took."""
    pace = Pace()
    for filling in fillings:
        pace.note(filling._replace(lacked_time=False))
    assert pace.limit(MOST) == MOST


@given(st.lists(FILLINGS), FILLINGS)
def test_a_batch_that_had_time_for_all_makes_the_next_one_no_smaller(
    fillings: list[Filling], last: Filling
) -> None:
    pace = Pace()
    for filling in fillings:
        pace.note(filling)
    before = pace.limit(MOST)
    pace.note(last._replace(lacked_time=False))
    assert pace.limit(MOST) >= before


@given(st.lists(FILLINGS))
def test_after_a_batch_that_lacked_time_the_next_one_is_as_large_as_that_could_be(
    fillings: list[Filling],
) -> None:
    """Whatever was before: 250 turns in two seconds are 125 in one."""
    pace = Pace()
    for filling in fillings:
        pace.note(filling)
    pace.note(Filling(250, 2.0, AVAILABLE, lacked_time=True))
    assert pace.limit(MOST) == 125


def test_a_batch_that_had_little_time_for_its_turns_makes_the_next_one_no_smaller() -> None:
    """The rest of its time went by before the first turn, as when a connection is made."""
    pace = Pace()
    pace.note(Filling(20, 0.02, AVAILABLE, lacked_time=True))
    assert pace.limit(MOST) == MOST


@given(COSTS)
def test_at_a_steady_pace_hardly_an_entry_is_claimed_in_vain(cost: float) -> None:
    """After the first batch, which shows the pace; or as few as the smallest batch has."""
    pace = Pace()
    run(pace, cost, 1)
    for claimed, ran in run(pace, cost, 20):
        assert claimed - ran <= 1 or claimed == LEAST
        assert ran >= min(MOST, AVAILABLE / cost) * 0.9 - 1


@given(st.lists(FILLINGS), st.integers(1, MOST), st.floats(AVAILABLE, 1e6))
def test_one_slow_entry_is_made_up_for_within_a_few_batches(
    fillings: list[Filling], done: int, seconds: float
) -> None:
    """Whenever it comes, and however long it takes."""
    pace = Pace()
    for filling in fillings:
        pace.note(filling)
    pace.note(Filling(done, seconds, AVAILABLE, lacked_time=True))
    run(pace, 0.001, 5)
    assert pace.limit(MOST) == MOST


@given(COSTS, COSTS)
def test_a_pace_that_changes_is_found_within_a_few_batches(before: float, after: float) -> None:
    """It is found at once if turns become slower."""
    pace = Pace()
    run(pace, before, 10)
    run(pace, after, 8 if after < before else 1)
    expected = min(max(AVAILABLE / after, LEAST), MOST)
    assert pace.limit(MOST) == pytest.approx(expected, rel=0.2, abs=2)


def test_entries_that_take_no_time_make_batches_large_again() -> None:
    """Those that are gone or broken count as done."""
    pace = Pace()
    pace.note(Filling(2, 1.0, AVAILABLE, lacked_time=True))
    for _ in range(3):
        pace.note(Filling(pace.limit(MOST), 0.0, AVAILABLE))
    assert pace.limit(MOST) == MOST


@given(st.floats(-60.0, 0.0))
def test_without_any_time_for_turns_batches_are_small(available: float) -> None:
    """As when loading took more time than the lease allows."""
    pace = Pace()
    pace.note(Filling(1, 0.001, available, lacked_time=True))
    assert pace.limit(MOST) == LEAST


def test_a_batch_with_nothing_to_run_says_nothing() -> None:
    """An idle beat looks ahead, and finds its pace as it was."""
    pace = Pace()
    pace.note(Filling(100, 1.0, AVAILABLE, lacked_time=True))
    for _ in range(5000):
        pace.note(Filling(0, 0.0, AVAILABLE))
    assert pace.limit(MOST) == 100
