"""How many instructions of the processor one run takes: the same on every machine of a kind.

Counted by `perf stat` where the machine has a counter, else by valgrind, which is slow. Each
contestant runs twice, with few and with many due entries; the difference is what the runs cost.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.contestants import BATCHED_LOOP, OURS, PEER
from benchmarks.entries import HOURLY, MINUTELY_CRONTAB, fill, overdue
from benchmarks.house import House
from benchmarks.table import Row, Target, at_most, number
from benchmarks.workload import Workload, WorkloadError
from support.messages import QUEUE

FEW, MANY = 50, 250

#: Commands that count the instructions of a program, and what finds the count in what they print.
PERF = ("perf", "stat", "-x,", "-e", "instructions:u", "--")
VALGRIND = (
    "valgrind",
    "--tool=callgrind",
    "--callgrind-out-file=/dev/null",
    "--trace-children=yes",
    "--",
)
COUNT = re.compile(r"^(\d+),,instructions|Collected : (\d+)", re.MULTILINE)


def instructions(house: House) -> list[Row]:
    """Intervals and crontabs, in thousands of instructions per run."""
    counter = find_counter()
    loop = _per_run(partial(_of_loop, house, counter))
    rows = []
    for kind, schedule in (("intervals", HOURLY), ("crontabs", MINUTELY_CRONTAB)):
        figures = {
            OURS: _per_run(partial(_of_ticks, house, counter, house.ours, schedule)),
            PEER: _per_run(partial(_of_ticks, house, counter, house.peer, schedule)),
            BATCHED_LOOP: loop,
        }
        targets: list[Target] = [at_most(0.5, figures[OURS] / figures[PEER], PEER)]
        measure = f"thousands of instructions per run, {kind} ({counter[0]})"
        rows.append(Row(measure, figures, number, targets))
    return rows


def find_counter() -> tuple[str, ...]:
    """The command that counts on this machine."""
    if shutil.which(PERF[0]):
        tried = subprocess.run([*PERF, "true"], capture_output=True, text=True, check=False)
        if COUNT.search(tried.stderr):
            return PERF
    if shutil.which(VALGRIND[0]):
        return VALGRIND
    raise RuntimeError("Install valgrind: this machine has no counter of instructions for perf.")


def _per_run(count: Callable[[int], int]) -> float:
    return (count(MANY) - count(FEW)) / (MANY - FEW) / 1000


def _of_ticks(
    house: House, counter: tuple[str, ...], python: str, schedule: dict[str, Any], due: int
) -> int:
    house.clear()
    fill(house.schedule, overdue(HOURLY, prefix="warm-up-"), 1)
    with Workload(python, "tick", *counter, **house.loopback._asdict(), ticks=1) as workload:
        house.broker.delete(QUEUE)
        fill(house.schedule, overdue(schedule), due)
        return _count(house, workload, due)


def _of_loop(house: House, counter: tuple[str, ...], due: int) -> int:
    house.clear()
    job = {"broker": house.loopback.broker, "count": due, "batched": True}
    with Workload(house.ours, "send", *counter, **job) as workload:
        house.broker.delete(QUEUE)
        return _count(house, workload, due)


def _count(house: House, workload: Workload, due: int) -> int:
    workload.start()
    workload.figures()
    said = workload.finish()
    # The interpreter of 2.x is a script that starts it, and counted as well.
    counts = [int(of_perf or of_valgrind) for of_perf, of_valgrind in COUNT.findall(said)]
    if not counts:
        raise WorkloadError(f"the counter did not count: {said[-500:]}")
    house.expect_messages(due)
    return max(counts)
