"""Messages at the pace of a busy beat: what Celery's sending alone costs in a minute."""

import time

from benchmarks.workloads.application import open_app
from benchmarks.workloads.send import send
from benchmarks.workloads.stage import await_start, read_job, report

#: Batches in a second, as many as a busy beat makes.
PULSES = 10


def main(broker: str, per_second: int, seconds: int) -> None:
    app = open_app(broker, broker)
    producer = app.amqp.Producer(app.connection_for_write(), auto_declare=False)
    send(app, producer, -1, 0)
    await_start()
    began, used_before = time.monotonic(), time.process_time()
    for pulse in range(seconds * PULSES):
        time.sleep(max(began + pulse / PULSES - time.monotonic(), 0))
        with producer.batch():
            send(app, producer, 0, per_second // PULSES)
    report(cpu=time.process_time() - used_before)


if __name__ == "__main__":
    main(**read_job())
