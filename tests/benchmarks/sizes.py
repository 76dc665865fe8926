"""How much is measured: for the record, and for a quick look at whether all works."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Numbers of entries unless said otherwise.

    Attributes:
        runs: Of each measurement.
        slow_runs: Of a measurement whose run takes half a minute or more.
        due: Due in one tick.
        due_slow: The same for who needs a round trip or more per entry, on the slow network.
        shared: Due for two beats.
        batch: As many as beat claims at once with default settings.
        few: Stored.
        many: Stored.
        idle_ticks: Ticks of which an idle beat's tick is the median.
        phased: One-second entries with their phases spread over the second.
        saves: Entries saved while beat sleeps.
        plain_saves: Entries written by plain commands while beat sleeps.
        old_rules_left_out: Old rules, from the slowest on, that 2.x is not asked to evaluate: it
            needs a minute for one, and half an hour for the other.
        minute: Seconds for which a real beat is watched.
    """

    runs: int = 5
    slow_runs: int = 3
    due: int = 10_000
    due_slow: int = 2_000
    shared: int = 20_000
    batch: int = 500
    few: int = 1_000
    many: int = 1_000_000
    idle_ticks: int = 500
    phased: int = 500
    saves: int = 50
    plain_saves: int = 5
    old_rules_left_out: int = 1
    minute: int = 60


FULL = Sizes()
QUICK = Sizes(
    runs=1,
    slow_runs=1,
    due=1_000,
    due_slow=200,
    batch=100,
    shared=2_000,
    few=100,
    many=10_000,
    idle_ticks=50,
    phased=100,
    saves=5,
    plain_saves=1,
    old_rules_left_out=2,
    minute=5,
)
