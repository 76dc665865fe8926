"""Signals that the beat process sends, connected to as Celery's own are.

A receiver gets the scheduler as ``sender`` and what the signal lists, as keywords. It runs in the
main thread of beat, once a batch is committed: a slow one delays what is due. The last ones, of a
batch that an outage left for the end, may come from the thread that closes beat. One that raises is
logged by Celery and harms nothing.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

__all__ = [
    "entry_dispatched",
    "entry_failed",
    "entry_set_aside",
    "leadership_acquired",
    "leadership_lost",
]

#: The broker has taken the message of a run.
#:
#: It comes with ``entry``, ``due_at`` (aware, UTC), and ``delay``, the seconds from then until the
#: message was sent.
entry_dispatched = Signal(name="entry_dispatched", providing_args={"entry", "due_at", "delay"})

#: The message of a run could not be built; the run is counted.
#:
#: It comes with ``entry``, ``due_at``, ``delay``, ``exception``.
entry_failed = Signal(name="entry_failed", providing_args={"entry", "due_at", "delay", "exception"})

#: An entry cannot run and is kept out of the way.
#:
#: It comes with ``key``, ``entry`` (``None`` if it could not be built), ``reason``.
entry_set_aside = Signal(name="entry_set_aside", providing_args={"key", "entry", "reason"})

#: This beat leads from now on.
leadership_acquired = Signal(name="leadership_acquired", providing_args=set())

#: This beat does not lead any more.
leadership_lost = Signal(name="leadership_lost", providing_args=set())
