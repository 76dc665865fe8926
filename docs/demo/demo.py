"""A schedule that changes while beat runs: a live demonstration of about 20 seconds.

It starts a Redis server, a Celery worker and `celery beat -S redbeat.RedBeatScheduler`; then it
adds entries, edits one, removes one, and shows what runs. It fails if something that was due did
not run, or if the removed entry ran on.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import redis
from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule

from house import (
    BEAT,
    RUNS,
    WORKER,
    redis_server,
    running,
    scratch_directory,
    stop_on_signals,
    wait_until,
)
from redbeat import RedBeatSchedulerEntry
from redbeat.schedules import rrule

TASK = "tasks.say"
QUEUE = "celery"

# A message that is under way when its entry is removed still runs, within this many seconds.
IN_FLIGHT = 1.0


class Run(NamedTuple):
    """One run, as the worker took it down."""

    at: float
    entry: str
    word: str


class Expectation(NamedTuple):
    """How often an entry has to run with an argument, from a moment on."""

    entry: str
    word: str
    at_least: int
    at_most: int
    after: float = 0

    def matches(self, run: Run) -> bool:
        """Whether this run counts."""
        return (run.entry, run.word) == (self.entry, self.word) and run.at > self.after

    def __str__(self) -> str:
        bounds = sorted({self.at_least, self.at_most})
        return " to ".join(map(str, bounds))


def main() -> int:
    """Start everything, play, stop everything; gives the exit status."""
    stop_on_signals()
    print("Starting Redis, a worker and beat ...", flush=True)
    with scratch_directory() as directory, redis_server(directory) as url:
        os.environ["DEMO_REDIS"] = url
        from tasks import app

        with redis.Redis.from_url(f"{url}/2", decode_responses=True) as client:
            with worker_and_beat(app, directory):
                runs, expectations = play(app, client)
            runs += watch(client, seconds=0)
    return report(runs, expectations)


@contextlib.contextmanager
def worker_and_beat(app: Celery, directory: Path) -> Iterator[None]:
    """Run both, from when they are ready until all that beat has sent is done."""
    beat_log = directory / "beat.log"
    with running(WORKER, directory / "worker.log"):
        with running(BEAT, beat_log):
            wait_until(lambda: app.control.ping(timeout=0.2), "a worker that answers")
            wait_until(lambda: "beat: Starting" in beat_log.read_text(), "beat")
            yield
        with redis.Redis.from_url(app.conf.broker_url) as broker:
            wait_until(lambda: not broker.llen(QUEUE), "an empty queue")


def play(app: Celery, client: redis.Redis) -> tuple[list[Run], list[Expectation]]:
    """Change the schedule step by step; gives what ran meanwhile, and what had to."""
    added = time.time()
    add_entries(app)
    runs = watch(client, seconds=7)
    edited = time.time()
    edit_interval(app)
    runs += watch(client, seconds=5)
    remove_short_lived(app)
    removed = time.time()
    runs += watch(client, seconds=5)
    ended = time.time()
    return runs, [
        periodic("interval", "hello", 2, added, edited),
        periodic("interval", "changed", 1, edited, ended),
        Expectation("crontab", "cron", 1, 2),
        Expectation("rrule", "rule", 4, 4),
        periodic("short-lived", "still here", 1, added, removed),
        Expectation("short-lived", "still here", 0, 0, after=removed + IN_FLIGHT),
    ]


def add_entries(app: Celery) -> None:
    """Add four entries while beat runs."""
    now = datetime.now(timezone.utc)

    tell("add interval: every 2 s")
    entry(app, "interval", schedule(2), "hello").save()

    tell("add crontab: every minute; its last run lies an hour back, so it is overdue now")
    entry(app, "crontab", crontab(), "cron").save().reschedule(now - timedelta(hours=1))

    tell("add rrule: every 3 s, 4 times, from the next second on")
    rule = rrule("SECONDLY", interval=3, count=4, dtstart=now + timedelta(seconds=1))
    entry(app, "rrule", rule, "rule").save()

    tell("add short-lived: every 1 s")
    entry(app, "short-lived", schedule(1), "still here").save()


def edit_interval(app: Celery) -> None:
    """Load an entry, change its schedule and its arguments, and save it."""
    tell("edit interval: every 1 s, with another argument")
    interval = RedBeatSchedulerEntry.from_key("redbeat:interval", app=app)
    interval.schedule = schedule(1)
    interval.args = ["interval", "changed"]
    interval.save()


def remove_short_lived(app: Celery) -> None:
    """Load an entry and delete it."""
    tell("remove short-lived")
    RedBeatSchedulerEntry.from_key("redbeat:short-lived", app=app).delete()


def entry(app: Celery, name: str, rule: BaseSchedule, word: str) -> RedBeatSchedulerEntry:
    """An entry that is not stored yet."""
    return RedBeatSchedulerEntry(name, TASK, rule, args=[name, word], app=app)


def periodic(name: str, word: str, period: int, begin: float, end: float) -> Expectation:
    """The runs between two moments; the first and the last one may fall on either side."""
    count = int((end - begin) / period)
    return Expectation(name, word, count - 1, count + 2)


def watch(client: redis.Redis, seconds: float) -> list[Run]:
    """Show what runs for so long, and then what is left to show."""
    runs = []
    deadline = time.time() + seconds
    while (popped := client.blpop([RUNS], timeout=0.1)) or time.time() < deadline:
        if popped:
            runs.append(Run(*json.loads(popped[1])))
            show(runs[-1])
    return runs


def show(run: Run) -> None:
    """Print a run as it happens."""
    tell(f"    ran {run.entry:12} {run.word!r}", run.at)


def tell(text: str, at: float | None = None) -> None:
    """Print a line with the time in front."""
    moment = datetime.fromtimestamp(at or time.time())
    print(f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}  {text}", flush=True)


def report(runs: list[Run], expectations: list[Expectation]) -> int:
    """Print what was expected against what was seen; gives the exit status."""
    print(f"\n{'entry':24} {'argument':12} {'expected':>10} {'seen':>6}")
    results = [check(runs, each) for each in expectations]
    print("\nAll that was due ran." if all(results) else "\nNOT all ran as expected.")
    return 0 if all(results) else 1


def check(runs: list[Run], expected: Expectation) -> bool:
    """Compare one expectation with the runs, and print the row."""
    seen = sum(expected.matches(run) for run in runs)
    as_expected = expected.at_least <= seen <= expected.at_most
    verdict = "ok" if as_expected else "WRONG"
    name = f"{expected.entry} (removed)" if expected.after else expected.entry
    print(f"{name:24} {expected.word:12} {expected!s:>10} {seen:>6}  {verdict}")
    return as_expected


if __name__ == "__main__":
    sys.exit(main())
