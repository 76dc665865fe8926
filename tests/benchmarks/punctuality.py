"""A real beat with hundreds of one-second entries, watched for a minute."""

import json
import statistics
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

from benchmarks.beats import compare_beats, cpu_seconds, settled_beat
from benchmarks.contestants import BATCHED_LOOP, OURS, PEER, Figures, column, medians
from benchmarks.entries import EVERY_SECOND, Kind, fill
from benchmarks.house import House
from benchmarks.table import Row, at_most, duration, no_less_than, no_more_than, number
from benchmarks.workload import Workload
from support.messages import QUEUE

PERIOD = 1.0
PREFIX = "phased-"

#: Seconds for which a client waits at once; beyond its own time-out it would raise.
LONGEST_WAIT = 1


def punctuality(house: House) -> list[Row]:
    """Runs delivered, the gaps between them, and what they cost."""
    results = compare_beats(house, _watch_beat)
    shares, deviations = column(results, "share"), column(results, "deviation")
    costs, costs_per_run = column(results, "cpu"), column(results, "cpu per run")
    measure = f"{house.sizes.phased} one-second entries for {house.sizes.minute} s"
    return [
        Row(
            f"{measure}: runs delivered / ideal",
            shares,
            number,
            [no_less_than(0.98, shares[OURS], number)],
        ),
        Row(
            f"{measure}: deviation of the gap, 99th percentile",
            deviations,
            duration,
            [no_more_than(0.03, deviations[OURS], duration)],
        ),
        Row(
            f"{measure}: CPU of beat",
            costs | _sending_alone(house),
            duration,
            [at_most(1 / 3, costs[OURS] / costs[PEER], PEER)],
        ),
        Row(
            f"{measure}: CPU of beat per run delivered",
            costs_per_run,
            duration,
            [at_most(1 / 3, costs_per_run[OURS] / costs_per_run[PEER], PEER)],
        ),
    ]


def _watch_beat(house: House, python: str) -> Figures:
    house.clear()
    _fill_phases(house)
    with settled_beat(python, house.loopback) as beat:
        house.broker.delete(QUEUE)
        cpu_before = cpu_seconds(beat)
        arrivals = list(_arrivals(house, house.sizes.minute))
        cpu = cpu_seconds(beat) - cpu_before
    return {
        "share": len(arrivals) * PERIOD / (house.sizes.phased * house.sizes.minute),
        "deviation": _deviation(arrivals),
        "cpu": cpu,
        "cpu per run": cpu / len(arrivals),
    }


def _sending_alone(house: House) -> dict[str, float]:
    """The CPU of a process that only sends as many messages, in as many batches."""
    sizes = house.sizes
    return column(medians(sizes.slow_runs, {BATCHED_LOOP: partial(_pace, house)}), "cpu")


def _pace(house: House) -> Figures:
    house.clear()
    job = {
        "broker": house.loopback.broker,
        "per_second": house.sizes.phased,
        "seconds": house.sizes.minute,
    }
    with Workload(house.ours, "pace", **job) as workload:
        house.broker.delete(QUEUE)
        workload.start()
        figures = workload.figures()
    house.expect_messages(house.sizes.phased * house.sizes.minute)
    return figures


def _fill_phases(house: House) -> None:
    now, count = time.time(), house.sizes.phased
    for index in range(count):
        last_run_at = now + PERIOD * index / count
        kind = Kind(PREFIX, EVERY_SECOND, last_run_at, last_run_at + PERIOD)
        fill(house.schedule, kind, 1, first=index)


def _arrivals(house: House, seconds: float) -> Iterator[tuple[float, str | bytes]]:
    """When each message came into the queue, and the message; they are taken out of it.

    Those that came at once are taken at once: one by one, the last would seem late.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        taken = house.broker.brpop([QUEUE], timeout=min(left, LONGEST_WAIT))
        if taken is None:
            continue
        yield time.monotonic(), taken[1]
        rest: Any = house.broker.rpop(QUEUE, count=house.sizes.phased)
        came = time.monotonic()
        yield from ((came, message) for message in rest or [])


def _deviation(arrivals: list[tuple[float, str | bytes]]) -> float:
    """Seconds by which the gap between two runs of an entry differs from its period."""
    runs: dict[str, list[float]] = {}
    for moment, message in arrivals:
        runs.setdefault(json.loads(message)["headers"]["task"], []).append(moment)
    deviations = [
        abs(later - earlier - PERIOD)
        for moments in runs.values()
        for earlier, later in pairwise(moments)
    ]
    return statistics.quantiles(deviations, n=100)[-1]
