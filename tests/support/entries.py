"""Entries to test with: due, overdue, due later; and what became of them in Redis."""

from datetime import datetime, timedelta, timezone
from typing import Any

from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"


def due(app: Celery, name: str, every: float = 60, **fields: Any) -> RedBeatSchedulerEntry:
    """Save an entry that should have run a minute ago."""
    ran = datetime.now(UTC) - timedelta(seconds=every + 60)
    entry = RedBeatSchedulerEntry(
        name, f"tasks.{name}", schedule(every), app=app, last_run_at=ran, **fields
    )
    return entry.save()


def overdue(app: Celery, name: str = "a", **fields: Any) -> RedBeatSchedulerEntry:
    """Save an hourly entry that ran five times, and missed its latest run an hour ago."""
    two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
    known: dict[str, Any] = {"last_run_at": two_hours_ago, "total_run_count": 5} | fields
    return RedBeatSchedulerEntry(name, "tasks.a", schedule(3600), app=app, **known).save()


def later(app: Celery, name: str, seconds: float) -> RedBeatSchedulerEntry:
    """Save an entry that is due in so many seconds."""
    return RedBeatSchedulerEntry(
        name, f"tasks.{name}", schedule(seconds), app=app, last_run_at=datetime.now(UTC)
    ).save()


def stored(app: Celery, name: str) -> RedBeatSchedulerEntry:
    """Load an entry by its name."""
    return RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)


def score_of(client: Any, name: str) -> float | None:
    """Read the score of an entry: when it is due, in seconds since the epoch."""
    score: float | None = client.zscore(SCHEDULE, f"redbeat:{name}")
    return score
