"""A Celery beat scheduler that keeps the schedule in Redis.

Two ideas carry the package. An *entry* (:class:`RedBeatSchedulerEntry`) says what runs and when; it
lives in Redis, so any process may save, change or delete it at any time. The *scheduler*
(:class:`RedBeatScheduler`) is what ``celery beat`` runs: of several beats one leads, claims what is
due, publishes it, and commits the next due times; the others stand by.

``schedules`` and ``decoder`` are pure: rules in time, and their JSON. ``storage`` holds every key,
command and script. ``leadership`` says who may dispatch, ``dispatch`` moves one batch of due
entries from claim to commit, and ``schedulers`` joins them to Celery. ``timetable`` shows the whole
schedule as a mapping, and ``cli`` as the commands of ``celery redbeat``.
"""

from .errors import RedBeatKeyExpiryError
from .schedulers import RedBeatScheduler, RedBeatSchedulerEntry
from .timetable import Timetable

__all__ = ["RedBeatKeyExpiryError", "RedBeatScheduler", "RedBeatSchedulerEntry", "Timetable"]
