"""Which differences between two clocks count as a jump."""

import pytest

from redbeat.beat.clocks import TOLERANCE, WallClock


class Clocks:
    """Two clocks that are set by hand."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_800_000_000.0, 50.0
        self.watched = WallClock(lambda: self.wall, lambda: self.steady)

    def go_on(self, seconds: float, drift: float = 0.0) -> None:
        self.steady += seconds
        self.wall += seconds + drift


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 2.5, -2.5])
def test_a_jump_is_reported_once(jump: float) -> None:
    clocks = Clocks()
    clocks.go_on(300)
    assert not clocks.watched.has_jumped()
    clocks.go_on(5, drift=jump)
    assert clocks.watched.has_jumped()
    assert clocks.watched.read_jump() == pytest.approx(jump)
    assert not clocks.watched.has_jumped()
    assert clocks.watched.read_jump() == 0


def test_a_suspended_machine_has_no_jump() -> None:
    """Both clocks go on meanwhile."""
    clocks = Clocks()
    clocks.go_on(86_400)
    assert clocks.watched.read_jump() == 0


def test_drift_never_adds_up_to_a_jump() -> None:
    """A clock that loses a second a day, for years."""
    clocks = Clocks()
    for _ in range(10_000):
        clocks.go_on(300, drift=-0.004)
        assert clocks.watched.read_jump() == 0
    clocks.go_on(5, drift=-TOLERANCE - 0.1)
    assert clocks.watched.read_jump() < -TOLERANCE
