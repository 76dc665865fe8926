"""The identity of a run, by which a task can recognise a duplicate.

A run is one slot of one entry. Its task id follows from the prefix, the name and the slot, so a run
that is sent twice has the same id both times. Headers tell the task which entry and slot it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

#: The namespace of task ids (RFC 9562, section 6.6).
NAMESPACE = uuid5(NAMESPACE_URL, "redbeat:run")


def task_id(prefix: str, name: str, slot: datetime) -> UUID:
    """The id of the run of an entry at ``slot`` (aware, UTC)."""
    return uuid5(NAMESPACE, f"{prefix}{name}@{slot.isoformat()}")


def identified(
    options: Mapping[str, Any] | None, prefix: str, name: str, slot: datetime
) -> dict[str, Any]:
    """The options of an entry for its run at ``slot`` (aware, UTC), with the identity of that run.

    Adds ``task_id`` and the headers ``periodic_task_name`` and ``scheduled_at`` (ISO 8601, UTC).
    What the options already say is kept.
    """
    given = dict(options or {})
    headers = {"periodic_task_name": name, "scheduled_at": slot.isoformat()}
    headers |= given.get("headers") or {}
    return {"task_id": str(task_id(prefix, name, slot)), **given, "headers": headers}
