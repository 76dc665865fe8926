"""A lock of the application's own, where `redbeat_lock_key` is None."""

from typing import Any

from celery.signals import beat_init

from redbeat import RedBeatScheduler
from redbeat.schedulers import get_redis

from .witness import note


class Scheduler(RedBeatScheduler):
    """Extends its lock itself, and leaves it in `close`."""

    own_lock: Any = None

    def tick(self, *args: Any, **kwargs: Any) -> float:
        note("tick")
        self.own_lock.extend(self.own_lock.timeout, replace_ttl=True)
        wait: float = super().tick(*args, **kwargs)
        return wait

    def close(self) -> None:
        if self.own_lock is not None:
            self.own_lock.release()
            self.own_lock = None
        super().close()


@beat_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def take_lock(sender: Any, **_: Any) -> None:
    """Wait for the lock."""
    scheduler = sender.scheduler
    lock = get_redis(scheduler.app).lock("proj-beat", timeout=4, sleep=0.5)
    lock.acquire()
    note("locked")
    scheduler.own_lock = lock
