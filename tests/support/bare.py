"""Entries as other languages write them: a definition and a score, and nothing of their runs."""

import json
from typing import Any

import redis


def write_bare(
    client: redis.Redis, name: str, schedule: dict[str, Any], score: float, **fields: Any
) -> None:
    """Insert an entry without meta; `fields` are further ones of its definition."""
    definition = {"name": name, "task": f"tasks.{name}", "schedule": schedule, **fields}
    client.hset(f"redbeat:{name}", "definition", json.dumps(definition))
    client.zadd("redbeat::schedule", {f"redbeat:{name}": score})
