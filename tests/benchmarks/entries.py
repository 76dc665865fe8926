"""Entries written straight into Redis, a million of them within seconds."""

import json
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import redis

CHUNK = 10_000
HOUR = 3600
NAME = "NAME"

FILL = f"""
local first, last, due_at, prefix, definition, meta = unpack(ARGV)
for i = tonumber(first), tonumber(last) do
  local name = prefix .. i
  local key = 'redbeat:' .. name
  redis.call('HSET', key, 'definition', string.gsub(definition, '{NAME}', name), 'meta', meta)
  redis.call('ZADD', 'redbeat::schedule', due_at, key)
end
"""

HOURLY = {"__type__": "interval", "every": float(HOUR), "relative": False}
EVERY_SECOND = {"__type__": "interval", "every": 1.0, "relative": False}
MINUTELY_CRONTAB = {
    "__type__": "crontab",
    "minute": "*",
    "hour": "*",
    "day_of_week": "*",
    "day_of_month": "*",
    "month_of_year": "*",
}


@dataclass(frozen=True)
class Kind:
    """Entries that differ in their names only.

    Attributes:
        prefix: Their names are this and a number.
        schedule: As it is stored.
        last_run_at: Seconds since the epoch.
        due_at: Seconds since the epoch: the score.
    """

    prefix: str
    schedule: dict[str, Any]
    last_run_at: float
    due_at: float


def overdue(schedule: dict[str, Any], prefix: str = "due-") -> Kind:
    """Entries that last ran two hours ago and are due since one."""
    now = time.time()
    return Kind(prefix, schedule, now - 2 * HOUR, now - HOUR)


def far_off() -> Kind:
    """Entries that are due in a year."""
    now = time.time()
    return Kind("stored-", HOURLY, now, now + 365 * 24 * HOUR)


def fill(client: redis.Redis, kind: Kind, count: int, first: int = 0) -> None:
    """Store `count` entries of this kind, numbered from `first`; others stay as they are."""
    script = client.register_script(FILL)
    definition, meta = _definition(kind), json.dumps({"last_run_at": _stored(kind.last_run_at)})
    end = first + count
    for start in range(first, end, CHUNK):
        last = min(start + CHUNK, end) - 1
        script(args=[start, last, repr(kind.due_at), kind.prefix, definition, meta])


def _definition(kind: Kind) -> str:
    return json.dumps(
        {
            "name": NAME,
            "task": f"bench.{NAME}",
            "args": [NAME],
            "kwargs": {},
            "options": {},
            "schedule": kind.schedule,
            "enabled": True,
        }
    )


def _stored(timestamp: float) -> dict[str, Any]:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=timestamp)
    fields = ("year", "month", "day", "hour", "minute", "second", "microsecond")
    return {
        "__type__": "datetime",
        **{field: getattr(moment, field) for field in fields},
        "timezone": "UTC",
    }
