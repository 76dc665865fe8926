"""Two beats without a lock on one schedule, against one."""

from functools import partial

from benchmarks.contestants import OURS, medians
from benchmarks.entries import HOURLY, overdue
from benchmarks.house import House
from benchmarks.table import Row, at_least, rate
from benchmarks.ticking import run_ticks

ONE = "one beat"
TWO = "two beats"


def sharing(house: House) -> list[Row]:
    """The same entries due, until the last beat is done."""
    due = house.sizes.shared
    results = medians(
        house.sizes.runs,
        {ONE: partial(_rate, house, due, 1), TWO: partial(_rate, house, due, 2)},
    )
    one, two = results[ONE]["rate"], results[TWO]["rate"]
    target = at_least(1.6, two / one, ONE)
    return [
        Row(f"{due:,} due, {ONE}", {OURS: one}, rate),
        Row(f"{due:,} due, {TWO} without a lock", {OURS: two}, rate, [target]),
    ]


def _rate(house: House, due: int, beats: int) -> dict[str, float]:
    ticked = run_ticks(house, house.ours, (overdue(HOURLY), due), beats=beats)
    return {"rate": due / ticked.elapsed}
