"""Entries to test with: due, overdue, due later; and what became of them in Redis."""

from datetime import datetime, timedelta, timezone
from typing import Any

from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
HOUR = 3600


def due(app: Celery, name: str, every: float = HOUR, **fields: Any) -> RedBeatSchedulerEntry:
    """Save an entry that should have run a minute ago; its name is its argument, too."""
    ran = datetime.now(UTC) - timedelta(seconds=every + 60)
    return _save(app, name, schedule(every), ran, fields)


def overdue(app: Celery, name: str = "a", rule: Any = HOUR, **fields: Any) -> RedBeatSchedulerEntry:
    """Save an entry that should have run many times since it last did, 400 days ago."""
    ran = datetime.now(UTC) - timedelta(days=400)
    return _save(app, name, rule, ran, fields)


def later(app: Celery, name: str, seconds: float) -> RedBeatSchedulerEntry:
    """Save an entry that is due in so many seconds."""
    return _save(app, name, schedule(seconds), datetime.now(UTC), {})


def _save(
    app: Celery, name: str, rule: Any, ran: datetime, fields: dict[str, Any]
) -> RedBeatSchedulerEntry:
    known: dict[str, Any] = {"args": [name], "last_run_at": ran} | fields
    return RedBeatSchedulerEntry(name, f"tasks.{name}", rule, app=app, **known).save()


def stored(app: Celery, name: str) -> RedBeatSchedulerEntry:
    """Load an entry by its name."""
    return RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)


def score_of(client: Any, name: str) -> float | None:
    """Read the score of an entry: when it is due, in seconds since the epoch."""
    score: float | None = client.zscore(SCHEDULE, f"redbeat:{name}")
    return score
