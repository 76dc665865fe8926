"""What a score says, and what a claim keeps of the score that it replaces."""

import math

import pytest

from redbeat.store.keys import (
    FINISHED,
    SET_ASIDE,
    due_by,
    lease_of,
    may_be_written,
    may_tell_slot,
)

NOW = 1_700_000_000.7
LEASE = 1_700_000_030.25


@pytest.mark.parametrize("score", [1_699_999_990.0, 1_699_999_990.25, LEASE])
def test_a_claim_keeps_that_a_score_may_name_a_slot(score: float) -> None:
    assert may_tell_slot(score)
    assert may_tell_slot(lease_of(LEASE, score))
    assert may_tell_slot(due_by(NOW, score))


@pytest.mark.parametrize("score", [0.0, FINISHED, SET_ASIDE, 1_699_999_990.5, LEASE + 0.5])
def test_a_claim_keeps_that_a_score_names_no_slot(score: float) -> None:
    assert not may_tell_slot(score)
    assert not may_tell_slot(lease_of(LEASE, score))
    assert not may_tell_slot(due_by(NOW, score))


@pytest.mark.parametrize("score", [1_699_999_990.0, 1_699_999_990.5])
def test_an_entry_that_is_given_back_is_due(score: float) -> None:
    assert math.floor(NOW) - 1 <= due_by(NOW, score) < NOW


def test_programs_write_whole_seconds_and_beat_does_not() -> None:
    assert may_be_written(1_700_000_000.0)
    assert not may_be_written(LEASE)
    assert not may_be_written(due_by(NOW, 1.0))
