"""What it costs to ask an entry whether it is due, the first time, as a tick does."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule

from benchmarks.workloads.application import open_app
from benchmarks.workloads.stage import await_start, read_job, report
from redbeat import RedBeatSchedulerEntry
from redbeat.schedules import rrule

YEAR = timedelta(days=365)
MOST_ENTRIES = 300

#: Seconds after which no further entry of a schedule is asked.
PATIENCE = 1.0


def rule(freq: str, age: timedelta, **parts: Any) -> Callable[[], BaseSchedule]:
    start = datetime.now(timezone.utc).replace(microsecond=0) - age
    return lambda: rrule(freq, dtstart=start, **parts)


SCHEDULES: dict[str, Callable[[], BaseSchedule]] = {
    "interval": lambda: schedule(60),
    "crontab, every 5 minutes": lambda: crontab("*/5"),
    "crontab, yearly": lambda: crontab("0", "0", "*", "1", "1"),
    "rrule DAILY, a month old": rule("DAILY", YEAR / 12),
    "rrule DAILY with a count, 20 years old": rule(
        "DAILY", 20 * YEAR, count=14_000, byhour=[6, 18]
    ),
    "rrule MINUTELY, 20 years old": rule("MINUTELY", 20 * YEAR),
    "rrule SECONDLY, 10 years old": rule("SECONDLY", 10 * YEAR),
}


def time_entry(app: Celery, make_schedule: Callable[[], BaseSchedule]) -> float:
    last_run_at = datetime.now(timezone.utc) - timedelta(seconds=90)
    entry = RedBeatSchedulerEntry(
        "asked", "bench.asked", make_schedule(), last_run_at=last_run_at, app=app
    )
    began = time.perf_counter()
    entry.is_due()
    return time.perf_counter() - began


def time_entries(app: Celery, make_schedule: Callable[[], BaseSchedule]) -> Iterator[float]:
    spent = 0.0
    for _ in itertools.repeat(None, MOST_ENTRIES):
        seconds = time_entry(app, make_schedule)
        yield seconds
        spent += seconds
        if spent > PATIENCE:
            return


def main(schedule: str, broker: str, left_out: list[str]) -> None:
    app = open_app(schedule, broker)
    await_start()
    report(
        **{
            name: statistics.median(time_entries(app, make))
            for name, make in SCHEDULES.items()
            if name not in left_out
        }
    )


if __name__ == "__main__":
    main(**read_job())
