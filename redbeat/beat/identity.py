"""The identity of a run, by which a task tells which slot it is for, and recognises a duplicate.

The id of a run follows from what Redis keeps until the run is committed: the key of the entry, and
the slot that its schedule gives after the last run. So whoever sends the run, and however often,
it has the same id. Identities are added to what Celery sends, and to nothing that can be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from celery.beat import ScheduleEntry

from ..timing.due import answers_for_itself, due_by_last_run, own_now
from ..timing.history import run_to_count_from
from ..timing.instants import as_utc

#: The namespace of task ids (RFC 9562, section 6.6).
NAMESPACE = uuid5(NAMESPACE_URL, "redbeat:run")


def run_id(key: str, slot: datetime | None, last_run_at: datetime | None, number: int = 0) -> UUID:
    """The id of a message that is sent for the run of the entry at ``key``.

    It follows from ``slot`` (aware), or where the slot cannot be told from the last run. A run is
    sent as one message, ``number`` 0; an ``apply_async`` of a subclass may send several.
    """
    moment = slot or last_run_at
    # The key comes first: whatever it holds, the end of the text tells the rest apart.
    when = as_utc(moment).isoformat() if moment else "never"
    part = f"#{number}" if number else ""
    return uuid5(NAMESPACE, _utf8(f"{key}{'@' if slot else '>'}{when}{part}"))


class Run:
    """One run of one entry, on its way.

    Args:
        key: The key of the entry's hash, from prefix and name.
        name: The name of the entry.
        slot: When it was due, aware; ``None`` if that cannot be told.
        last_run_at: The last run before this one.
    """

    def __init__(
        self, key: str, name: str, slot: datetime | None, last_run_at: datetime | None
    ) -> None:
        self._key = key
        self._slot = slot
        self._last_run_at = last_run_at
        self._headers = {"periodic_task_name": _utf8(name)}
        if slot is not None:
            self._headers["scheduled_at"] = as_utc(slot).isoformat()
        self._messages = 0

    def message(self, entry: Any) -> ScheduleEntry:
        """What to send as the next message of this run: an entry of Celery's, never stored.

        It says what ``entry`` says, and has the identity of the run in its options.
        """
        message = ScheduleEntry(
            name=entry.name,
            task=entry.task,
            last_run_at=entry.last_run_at,
            total_run_count=entry.total_run_count,
            args=entry.args,
            kwargs=entry.kwargs,
            options=self._identified(entry.options),
            app=entry.app,
        )
        message.schedule = entry.schedule
        return message

    def _identified(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """The options with the next id and the headers, except for those that they have already."""
        given = dict(options or {})
        headers = given.get("headers") or {}
        if isinstance(headers, Mapping):
            given["headers"] = {**self._headers, **headers}
        given.setdefault(
            "task_id", str(run_id(self._key, self._slot, self._last_run_at, self._messages))
        )
        self._messages += 1
        return given


def run_of(entry: Any) -> Run | None:
    """The run that a tick makes of ``entry``, before or after it has been advanced.

    ``None`` outside a tick, and for an entry that is only looked at.
    """
    claim = entry.claim
    run: Run | None
    if claim is None or claim.lease is None:
        run = entry._made_in
    else:
        run = claim.identity = claim.identity or Run(
            claim.key, entry.name, _slot_of(entry, claim.now), entry.last_run_at
        )
    return run


def _slot_of(entry: Any, ticked_at: datetime) -> datetime | None:
    """The slot for which a tick that began at ``ticked_at`` runs ``entry``, if its last run tells.

    An override may let it run before its schedule says so: then it is not for the coming slot.
    """
    schedule = entry.schedule
    last_run_at = run_to_count_from(schedule, entry.last_run_at, entry.total_run_count)
    slot = None if last_run_at is None else due_by_last_run(schedule, last_run_at)
    # By the clock that has just said that it is due.
    now = entry.now() if answers_for_itself(schedule) else own_now(schedule, ticked_at)
    return slot if slot is not None and slot <= now else None


def _utf8(text: str) -> str:
    """``text`` with escapes for what is not UTF-8, which is a lone surrogate in it."""
    return text.encode("utf-8", "backslashreplace").decode()
