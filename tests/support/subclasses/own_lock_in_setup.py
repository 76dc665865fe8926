"""A lock of the application's own, taken before the schedule is stored; redbeat's hook is off."""

from celery.signals import beat_init

from redbeat import RedBeatScheduler
from redbeat.schedulers import acquire_distributed_beat_lock, get_redis

from .witness import note


class Scheduler(RedBeatScheduler):
    """Writes no schedule before it has the lock."""

    def setup_schedule(self) -> None:
        self.lock = get_redis(self.app).lock("proj-beat", timeout=self.lock_timeout, sleep=0.5)
        self.lock.acquire()
        note("locked")
        super().setup_schedule()


beat_init.disconnect(acquire_distributed_beat_lock)
