"""Commands and round trips of one tick, counted on the wire."""

import contextlib
from collections.abc import Iterator
from functools import partial

from benchmarks.contestants import OURS, PEER, column, medians
from benchmarks.entries import HOURLY, overdue
from benchmarks.house import House
from benchmarks.table import Row, no_more_than, number
from benchmarks.ticking import run_ticks
from support.wire import Proxy, Traffic


def traffic(house: House) -> list[Row]:
    """A tick over one batch, on the way to the schedule and in all.

    Counted once: no noise of the machine changes it, and exact counting takes time.
    """
    assert house.apart is not None, "broker and schedule share a server"
    return _rows(house, "", 3) + _rows(house.apart, ", broker on another server", 4)


def _rows(house: House, where: str, most: int) -> list[Row]:
    count = house.sizes.batch
    results = medians(
        1,
        {
            OURS: partial(_count, house, house.ours, count),
            PEER: partial(_count, house, house.peer, count),
        },
    )
    trips = column(results, "round trips")
    target = no_more_than(most, trips[OURS], number)
    return [
        Row(f"round trips per {count} due entries{where}", trips, number, [target]),
        Row(f"commands per {count} due entries{where}", column(results, "commands"), number),
    ]


def _count(house: House, python: str, count: int) -> dict[str, float]:
    with house.proxies() as proxies:
        to_schedule, to_broker = proxies
        counted = _Counted(to_schedule, to_broker)
        run_ticks(
            house,
            python,
            (overdue(HOURLY), count),
            route=house.through(to_schedule, to_broker),
            during=counted.counting(),
        )
    return counted.figures()


class _Counted:
    """What passed on both ways."""

    def __init__(self, to_schedule: Proxy, to_broker: Proxy) -> None:
        self._proxies = to_schedule, to_broker
        self._traffic: list[Traffic] = []

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            self._traffic = [stack.enter_context(each.counting()) for each in self._proxies]
            yield

    def figures(self) -> dict[str, float]:
        return {
            "round trips": sum(each.round_trips for each in self._traffic),
            "commands": sum(len(each.commands) for each in self._traffic),
        }
