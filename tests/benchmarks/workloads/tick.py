"""Ticks of a warm scheduler: it has connected, and it has run an entry before."""

import re
import statistics
import time
from pathlib import Path

from benchmarks.workloads.application import open_app
from benchmarks.workloads.stage import await_start, read_job, report
from redbeat import RedBeatScheduler

KIBIBYTE = 1 << 10


def peak_memory() -> int:
    """The largest resident size of this process, in bytes.

    What `getrusage` gives for a young process is no less than what its parent had when it forked.
    """
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) * KIBIBYTE


def time_tick(scheduler: RedBeatScheduler) -> float:
    began = time.perf_counter()
    scheduler.tick()
    return time.perf_counter() - began


def main(schedule: str, broker: str, ticks: int) -> None:
    scheduler = RedBeatScheduler(app=open_app(schedule, broker))
    assert scheduler.producer
    scheduler.tick()
    await_start()
    seconds = statistics.median(time_tick(scheduler) for _ in range(ticks))
    report(seconds=seconds, memory=peak_memory())


if __name__ == "__main__":
    main(**read_job())
