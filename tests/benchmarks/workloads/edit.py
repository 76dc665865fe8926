"""Entries that become due while beat sleeps, and how long their messages take."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import redis
from celery import Celery
from celery.schedules import schedule

from benchmarks.entries import HOUR, HOURLY, fill, overdue
from benchmarks.workloads.application import open_app
from benchmarks.workloads.stage import await_start, read_job, report
from redbeat import RedBeatSchedulerEntry
from support.messages import QUEUE

Edit = Callable[[Celery, int], None]

#: Seconds between two edits, at least and at most: beat is asleep again, at no special time.
PAUSES = (0.3, 0.6)


def save(app: Celery, number: int) -> None:
    """Save an entry that is overdue."""
    RedBeatSchedulerEntry(
        f"saved-{number}",
        "bench.saved",
        schedule(HOUR),
        last_run_at=datetime.now(timezone.utc) - timedelta(seconds=2 * HOUR),
        app=app,
    ).save()


def write_plainly(app: Celery, number: int) -> None:
    """Write an overdue entry as other programs do, who tell nobody."""
    with redis.Redis.from_url(app.conf.redbeat_redis_url) as client:
        fill(client, overdue(HOURLY, prefix="written-"), 1, first=number)


EDITS: dict[str, Edit] = {"save": save, "write_plainly": write_plainly}


def delays(
    app: Celery, broker: redis.Redis, edit: Edit, count: int, patience: float
) -> Iterator[float]:
    """Seconds from each edit to its message; infinity, and no more, once one does not come."""
    for number in range(count):
        time.sleep(random.uniform(*PAUSES))
        began = time.perf_counter()
        edit(app, number)
        if broker.blpop(QUEUE, timeout=patience) is None:
            yield float("inf")
            return
        yield time.perf_counter() - began


def main(schedule: str, broker: str, edit: str, count: int, patience: float) -> None:
    app = open_app(schedule, broker)
    with redis.Redis.from_url(broker, socket_timeout=None) as client:
        await_start()
        report(delays=list(delays(app, client, EDITS[edit], count, patience)))


if __name__ == "__main__":
    main(**read_job())
