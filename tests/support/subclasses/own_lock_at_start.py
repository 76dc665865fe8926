"""A lock of the application's own, assigned where beat starts; redbeat's own hook runs first."""

from typing import Any

from celery.signals import beat_init

from redbeat import RedBeatScheduler
from redbeat.schedulers import LUA_EXTEND_TO_SCRIPT, get_redis

from .witness import note


class Scheduler(RedBeatScheduler):
    """Is given its lock."""


@beat_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def take_lock(sender: Any, **_: Any) -> None:
    """Wait for the lock, then hand it to the scheduler."""
    scheduler = sender.scheduler
    client = get_redis(scheduler.app)
    lock = client.lock("proj-beat", timeout=4, sleep=0.5)
    # Else each tick adds to the time to live, which never ends then.
    lock.lua_extend = client.register_script(LUA_EXTEND_TO_SCRIPT)
    lock.acquire()
    note("locked")
    scheduler.lock = lock
