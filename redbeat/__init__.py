"""A Celery beat scheduler that keeps the schedule in Redis.

Two ideas carry the package. An *entry* (:class:`RedBeatSchedulerEntry`) says what runs and when; it
lives in Redis, so any process may save, change or delete it at any time. The *scheduler*
(:class:`RedBeatScheduler`) is what ``celery beat`` runs: of several beats one leads, claims what is
due, publishes it, and commits the next due times; the others stand by.

Imports run one way. ``timing`` is pure: zones, calendar rules, next due times. ``schedules`` and
``decoder`` are the public schedule types and their JSON. ``store`` holds every key, command and
script. ``beat`` is what a running beat does, in small parts; ``schedulers`` joins them to Celery.
``timetable`` shows the whole schedule as a mapping, and ``tools`` as the commands of ``celery
redbeat``.
"""

from .errors import RedBeatKeyExpiryError
from .schedulers import RedBeatScheduler, RedBeatSchedulerEntry
from .timetable import Timetable

__all__ = ["RedBeatKeyExpiryError", "RedBeatScheduler", "RedBeatSchedulerEntry", "Timetable"]
