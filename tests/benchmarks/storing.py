"""What it takes to store many entries."""

from functools import partial

from benchmarks.contestants import OURS, PEER, Figures, column, medians
from benchmarks.house import House, Route
from benchmarks.table import Row, at_most, duration
from benchmarks.workload import measure

#: A bulk change beside single saves of the same entries.
SHARE = 0.1

BULK = "update()"


def storing(house: House) -> list[Row]:
    """On loopback, and through the slow network."""
    with house.proxies() as (to_schedule, _):
        slow = Route(to_schedule.url(), house.loopback.broker)
        return [
            *_rows(house, house.loopback, house.sizes.due, "loopback"),
            *_rows(house, slow, house.sizes.due_slow, "1 ms per round trip"),
        ]


def _rows(house: House, route: Route, count: int, network: str) -> list[Row]:
    times = medians(
        house.sizes.slow_runs,
        {
            OURS: partial(_store, house, house.ours, route, "save_each", count),
            PEER: partial(_store, house, house.peer, route, "save_each", count),
            BULK: partial(_store, house, house.ours, route, "update", count),
        },
    )
    seconds = column(times, "seconds")
    bulk = seconds.pop(BULK)
    saves = f"save() of {count:,} new entries, {network}"
    target = at_most(SHARE, bulk / seconds[OURS], "single saves")
    return [
        Row(saves, seconds, duration),
        Row(f"Timetable.update() of the same, {network}", {OURS: bulk}, duration, [target]),
    ]


def _store(house: House, python: str, route: Route, way: str, count: int) -> Figures:
    house.clear()
    return measure(python, "store", **route._asdict(), way=way, count=count)
