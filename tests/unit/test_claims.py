"""The leases under which beat claims due entries."""

from redbeat.beat.claims import LEASE_SPREAD, STEP, Pace, unique_lease


def test_a_lease_is_later_than_the_claim_timeout_and_no_other_claim_has_it() -> None:
    """Its fraction is random, and there always is one: whole seconds are what users write."""
    leases = {unique_lease(1000.2, 30) for _ in range(1000)}
    assert len(leases) == 1000
    assert all(1030.2 <= lease <= 1030.2 + LEASE_SPREAD for lease in leases)
    assert not any(lease.is_integer() for lease in leases)


def test_a_batch_is_as_large_as_the_setting_allows_until_one_runs_out_of_time() -> None:
    pace = Pace()
    assert pace.limit(500) == 500
    pace.note(500, is_out_of_time=False)
    assert pace.limit(500) == 500
    pace.note(300, is_out_of_time=True)
    assert pace.limit(500) == 300


def test_a_batch_that_had_time_left_is_followed_by_a_larger_one() -> None:
    """Up to what the setting allows; a batch that was not full says nothing."""
    pace = Pace()
    pace.note(0, is_out_of_time=True)
    limits = []
    for _ in range(20):
        limits.append(pace.limit(50))
        pace.note(limits[-1], is_out_of_time=False)
    assert limits[:3] == [1, 1 + STEP, 50]
    assert limits[-1] == 50
    pace.note(40, is_out_of_time=False)
    assert pace.limit(50) == 50


def test_where_the_pace_is_steady_few_entries_are_claimed_in_vain() -> None:
    """One in eight at the most, where all batches are full and a batch has time for 300."""
    pace, claimed, runs = Pace(), 0, 0
    for _ in range(100):
        limit = pace.limit(500)
        turns = min(limit, 300)
        pace.note(turns, is_out_of_time=turns < limit)
        claimed, runs = claimed + limit, runs + turns
    assert claimed / runs <= 9 / 8 + 0.01
