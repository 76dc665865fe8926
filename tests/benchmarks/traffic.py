"""Commands and round trips of one tick, counted on the wire."""

import contextlib
from collections.abc import Iterator
from functools import partial

from benchmarks.contestants import OURS, PEER, column, medians
from benchmarks.entries import HOURLY, overdue
from benchmarks.house import House, Route
from benchmarks.table import Row, no_more_than, number
from benchmarks.ticking import run_ticks
from support.wire import Proxy, Traffic


def traffic(house: House) -> list[Row]:
    """A tick over one batch, on the way to the schedule and in all.

    Counted once: no noise of the machine changes it, and exact counting takes time.
    """
    count = house.sizes.batch
    results = medians(
        1,
        {
            OURS: partial(_count, house, house.ours, count),
            PEER: partial(_count, house, house.peer, count),
        },
    )
    beyond = column(results, "round trips, beyond publishing")
    return [
        Row(
            f"round trips per {count} due entries, beyond publishing",
            beyond,
            number,
            [no_more_than(5, beyond[OURS], number)],
        ),
        *(
            Row(f"{name.replace(',', f' per {count} due entries,')}", column(results, name), number)
            for name in ("round trips, in all", "commands, beyond publishing", "commands, in all")
        ),
    ]


def _count(house: House, python: str, count: int) -> dict[str, float]:
    with house.proxies() as proxies:
        to_schedule, to_broker = proxies
        counted = _Counted(to_schedule, to_broker)
        run_ticks(
            house,
            python,
            (overdue(HOURLY), count),
            route=Route(to_schedule.url(), to_broker.url()),
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
        schedule, broker = self._traffic
        return {
            "round trips, beyond publishing": schedule.round_trips,
            "round trips, in all": schedule.round_trips + broker.round_trips,
            "commands, beyond publishing": len(schedule.commands),
            "commands, in all": len(schedule.commands) + len(broker.commands),
        }
