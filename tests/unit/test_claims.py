"""The leases under which beat claims due entries."""

from redbeat.beat.claims import LEASE_SPREAD, unique_lease


def test_a_lease_is_later_than_the_claim_timeout_and_no_other_claim_has_it() -> None:
    """Its fraction is random, and there always is one: whole seconds are what users write."""
    leases = {unique_lease(1000.2, 30) for _ in range(1000)}
    assert len(leases) == 1000
    assert all(1030.2 <= lease <= 1030.2 + LEASE_SPREAD for lease in leases)
    assert not any(lease.is_integer() for lease in leases)
