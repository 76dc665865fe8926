"""The Celery application of the demonstration: one task, and the schedule in Redis."""

import json
import os
import time

import redis
from celery import Celery

from house import RUNS

REDIS = os.environ["DEMO_REDIS"]

app = Celery("tasks", broker=f"{REDIS}/1")
app.conf.update(
    redbeat_redis_url=f"{REDIS}/0",
    beat_max_loop_interval=1,
    broker_connection_retry_on_startup=True,
)


@app.task(ignore_result=True)
def say(entry: str, word: str) -> None:
    """Take down what ran and when, for the demonstration to show."""
    with redis.Redis.from_url(f"{REDIS}/2") as client:
        client.rpush(RUNS, json.dumps([time.time(), entry, word]))
