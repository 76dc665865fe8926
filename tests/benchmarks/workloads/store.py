"""New entries stored one by one, and all at once."""

import time
from collections.abc import Callable

from celery import Celery
from celery.schedules import schedule

from benchmarks.entries import HOUR
from benchmarks.workloads.application import open_app
from benchmarks.workloads.stage import await_start, read_job, report
from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import get_redis

Entries = dict[str, RedBeatSchedulerEntry]


def save_each(app: Celery, entries: Entries) -> None:
    for entry in entries.values():
        entry.save()


def update(app: Celery, entries: Entries) -> None:
    """Store them by the timetable, which 2.x has not."""
    from redbeat import Timetable

    Timetable(app).update(entries)


WAYS: dict[str, Callable[[Celery, Entries], None]] = {"save_each": save_each, "update": update}


def main(schedule: str, broker: str, way: str, count: int) -> None:
    app = open_app(schedule, broker)
    entries = make_entries(app, count)
    get_redis(app).ping()
    await_start()
    began = time.perf_counter()
    WAYS[way](app, entries)
    report(seconds=time.perf_counter() - began)


def make_entries(app: Celery, count: int) -> Entries:
    names = [f"stored-{number}" for number in range(count)]
    return {
        name: RedBeatSchedulerEntry(name, "bench.stored", schedule(HOUR), app=app) for name in names
    }


if __name__ == "__main__":
    main(**read_job())
