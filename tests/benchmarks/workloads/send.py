"""A bare loop of `app.send_task` on an open producer: what publishing alone costs."""

import contextlib
import time

from celery import Celery

from benchmarks.workloads.application import open_app
from benchmarks.workloads.stage import await_start, read_job, report


def send(app: Celery, producer: object, first: int, last: int) -> None:
    for number in range(first, last):
        name = f"due-{number}"
        app.send_task(f"bench.{name}", (name,), {}, producer=producer)


def main(broker: str, count: int, batched: bool) -> None:
    app = open_app(broker, broker)
    producer = app.amqp.Producer(app.connection_for_write(), auto_declare=False)
    send(app, producer, -1, 0)
    await_start()
    began = time.perf_counter()
    with producer.batch() if batched else contextlib.nullcontext():
        send(app, producer, 0, count)
    report(seconds=time.perf_counter() - began)


if __name__ == "__main__":
    main(**read_job())
