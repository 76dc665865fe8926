"""The cost of `is_due`, by type of schedule."""

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.contestants import OURS, PEER, Figures, column, medians
from benchmarks.house import House
from benchmarks.table import Row, duration, no_more_than
from benchmarks.workload import measure

OLD_RULES = (
    "rrule DAILY with a count, 20 years old",
    "rrule MINUTELY, 20 years old",
    "rrule SECONDLY, 10 years old",
)
OLD_RULE_LIMIT = 1e-3


def evaluation(house: House) -> list[Row]:
    """Each entry is asked once, fresh from its constructor."""
    contestants: dict[str, Callable[[], Figures]] = {
        OURS: partial(_evaluate, house, house.ours, ()),
        PEER: partial(_evaluate, house, house.peer, OLD_RULES[-house.sizes.old_rules_left_out :]),
    }
    results = medians(house.sizes.slow_runs, contestants)
    return [_row(schedule, column(results, schedule)) for schedule in results[OURS]]


def _evaluate(house: House, python: str, left_out: Sequence[str]) -> Figures:
    return measure(python, "evaluate", **house.loopback._asdict(), left_out=left_out)


def _row(schedule: str, costs: dict[str, float]) -> Row:
    targets = [no_more_than(OLD_RULE_LIMIT, costs[OURS], duration)] if schedule in OLD_RULES else []
    return Row(f"is_due: {schedule}", costs, duration, targets)
