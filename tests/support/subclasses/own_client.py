"""A client of the application's own."""

from typing import Any

import redis

from redbeat import RedBeatScheduler

from .witness import note


class Scheduler(RedBeatScheduler):
    """Connects by itself, unless somebody has done so."""

    def setup_schedule(self) -> None:
        client: Any = getattr(self.app, "redbeat_redis", None)
        if client is None:
            note("no-client-yet")
            url = self.app.conf.own_redis_url
            self.app.redbeat_redis = redis.Redis.from_url(url, decode_responses=True)
        super().setup_schedule()
