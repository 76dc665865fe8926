"""Due entries that one tick runs in a second, and how fast a bare loop sends as many messages."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.contestants import BARE_LOOP, BATCHED_LOOP, OURS, PEER, column, medians
from benchmarks.entries import HOURLY, MINUTELY_CRONTAB, overdue
from benchmarks.house import House, Route
from benchmarks.table import Row, Target, at_least, rate
from benchmarks.ticking import run_ticks
from benchmarks.workload import Workload
from support.messages import QUEUE

Rates = dict[str, float]
FindTargets = Callable[[Rates], list[Target]]


def intervals(house: House) -> list[Row]:
    """Intervals on loopback."""
    assert house.apart is not None, "broker and schedule share a server"
    return [_intervals(house, ""), _intervals(house.apart, ", broker on another server")]


def _intervals(house: House, where: str) -> Row:
    count = house.sizes.due
    rates = _rates(house, HOURLY, house.loopback, house.sizes.runs, count, count)
    targets = [
        at_least(4, rates[OURS] / rates[PEER], PEER),
        at_least(0.8, rates[OURS] / rates[BATCHED_LOOP], BATCHED_LOOP),
    ]
    return Row(f"{count:,} due intervals, loopback{where}", rates, rate, targets)


def crontabs(house: House) -> list[Row]:
    """Crontabs on loopback."""
    count = house.sizes.due
    rates = _rates(house, MINUTELY_CRONTAB, house.loopback, house.sizes.runs, count, count)
    targets = [
        at_least(3, rates[OURS] / rates[PEER], PEER),
        at_least(0.6, rates[OURS] / rates[BATCHED_LOOP], BATCHED_LOOP),
    ]
    return [Row(f"{count:,} due crontabs, loopback", rates, rate, targets)]


def delayed_intervals(house: House) -> list[Row]:
    """Intervals through the slow network."""
    rates = _delayed_rates(house, HOURLY)
    targets = [at_least(15, rates[OURS] / rates[PEER], PEER)]
    return [Row(_delayed_measure(house, "intervals"), rates, rate, targets)]


def delayed_crontabs(house: House) -> list[Row]:
    """Crontabs through the slow network."""
    return [Row(_delayed_measure(house, "crontabs"), _delayed_rates(house, MINUTELY_CRONTAB), rate)]


def _delayed_measure(house: House, kind: str) -> str:
    sizes = house.sizes
    return (
        f"{sizes.due:,} due {kind}, 1 ms per round trip "
        f"({sizes.due_slow:,} for {PEER} and the {BARE_LOOP})"
    )


def _delayed_rates(house: House, schedule: dict[str, Any]) -> Rates:
    sizes = house.sizes
    with house.proxies() as (to_schedule, to_broker):
        route = house.through(to_schedule, to_broker)
        return _rates(house, schedule, route, sizes.slow_runs, sizes.due, sizes.due_slow)


def _rates(
    house: House, schedule: dict[str, Any], route: Route, runs: int, count: int, count_slow: int
) -> Rates:
    """Runs a second; `count_slow` is for those who need a round trip or more per entry."""
    contestants = {
        OURS: partial(_tick_rate, house, house.ours, schedule, route, count),
        PEER: partial(_tick_rate, house, house.peer, schedule, route, count_slow),
        BARE_LOOP: partial(_loop_rate, house, route, count_slow, batched=False),
        BATCHED_LOOP: partial(_loop_rate, house, route, count, batched=True),
    }
    return column(medians(runs, contestants), "rate")


def _tick_rate(
    house: House, python: str, schedule: dict[str, Any], route: Route, count: int
) -> Rates:
    ticked = run_ticks(house, python, (overdue(schedule), count), route=route)
    return {"rate": count / ticked.seconds}


def _loop_rate(house: House, route: Route, count: int, *, batched: bool) -> Rates:
    house.clear()
    job = {"broker": route.broker, "count": count, "batched": batched}
    with Workload(house.ours, "send", **job) as workload:
        house.broker.delete(QUEUE)
        workload.start()
        seconds = workload.figures()["seconds"]
    house.expect_messages(count)
    return {"rate": count / seconds}
