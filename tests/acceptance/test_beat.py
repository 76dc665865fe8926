"""`celery beat` and `celery worker --beat` with the schedule in Redis."""

import json
import signal
from typing import Any

import pytest
import redis

from support.messages import Message, read_messages
from support.programs import RUNS_KEY, MakeProject, Project
from support.waiting import wait_until

SCHEDULERS = ["redbeat.RedBeatScheduler", "redbeat.schedulers:RedBeatScheduler", "redbeat"]

SAVE = """
from redbeat import RedBeatSchedulerEntry
from celery.schedules import schedule
from proj import app

RedBeatSchedulerEntry({name!r}, "proj.add", schedule(1), args={args!r}, app=app).save()
"""

DELETE = """
from redbeat import RedBeatSchedulerEntry
from proj import app

RedBeatSchedulerEntry.from_key("redbeat:" + {name!r}, app=app).delete()
"""

# An object that asks the process to end, once, at the moment at which it is forgotten.
DROPPING = """
import os, signal
from redbeat import RedBeatScheduler

class Told:
    count = 0

    def __del__(self):
        Told.count += 1
        if Told.count == 1:
            os.kill(os.getpid(), signal.SIGTERM)

class Scheduler(RedBeatScheduler):
    def {moment}(self, *args, **kwargs):
        result = super().{moment}(*args, **kwargs)
        Told()
        return result
"""


def every_second(*args: Any, **options: Any) -> dict[str, Any]:
    """A static entry that is due each second."""
    return {"task": "proj.add", "schedule": 1, "args": args, "options": options}


def count_sent(broker: redis.Redis, *args: Any) -> int:
    """How many messages with these arguments wait in the queue."""
    return sum(message.args == list(args) for message in read_messages(broker))


def wait_for_sent(broker: redis.Redis, *args: Any, more: int = 1) -> None:
    """Wait until beat has sent so many more messages with these arguments."""
    enough = count_sent(broker, *args) + more
    wait_until(lambda: count_sent(broker, *args) >= enough, 20, f"{more} more runs of {args}")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_beat_stores_its_static_schedule_and_dispatches_from_redis(
    make_project: MakeProject, redis_client: redis.Redis, broker: redis.Redis, scheduler: str
) -> None:
    """However the scheduler is named, static entries get to Redis and their runs to the broker."""
    project = make_project(beat_schedule={"static": every_second(1, 2)})
    project.beat(scheduler=scheduler)
    wait_for_sent(broker, 1, 2, more=2)
    stored = redis_client.hgetall("redbeat:static")
    assert json.loads(stored["definition"])["task"] == "proj.add"
    assert json.loads(stored["meta"])["total_run_count"] >= 1
    assert redis_client.zscore("redbeat::schedule", "redbeat:static") is not None
    assert redis_client.sismember("redbeat::statics", "static")


def test_a_terminated_beat_exits_with_0_and_releases_the_lock(
    make_project: MakeProject, redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """The next beat need not wait for the lock."""
    project = make_project(beat_schedule={"static": every_second(1, 2)})
    beat = project.beat()
    wait_for_sent(broker, 1, 2)
    assert redis_client.exists("redbeat::lock")
    assert beat.terminate() == 0
    assert not redis_client.exists("redbeat::lock")


def test_a_closed_terminal_ends_beat_as_well(
    make_project: MakeProject, redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """SIGHUP, as sent when an SSH session breaks off, is not a crash."""
    project = make_project(beat_schedule={"static": every_second(1, 2)})
    beat = project.beat()
    wait_for_sent(broker, 1, 2)
    beat.signal(signal.SIGHUP)
    assert beat.wait_for_exit() == 0
    assert not redis_client.exists("redbeat::lock")


def test_a_beat_started_with_nohup_outlives_its_terminal(
    make_project: MakeProject, broker: redis.Redis
) -> None:
    """`nohup` makes it ignore the signal."""
    project = make_project(beat_schedule={"static": every_second(1, 2)})
    beat = project.beat(prefix=["nohup"])
    wait_for_sent(broker, 1, 2)
    beat.signal(signal.SIGHUP)
    wait_for_sent(broker, 1, 2, more=2)


@pytest.mark.parametrize("moment", ["setup_schedule", "tick"])
def test_a_beat_ends_though_python_drops_the_exception_of_the_signal_handler(
    make_project: MakeProject, moment: str
) -> None:
    """SIGTERM in a destructor, while beat starts and while it works: it exits with 0."""
    project = make_project(beat_schedule={"static": every_second(1, 2)})
    (project.directory / "dropping.py").write_text(DROPPING.format(moment=moment))
    beat = project.beat(scheduler="dropping.Scheduler")
    assert beat.wait_for_exit() == 0


def test_a_worker_with_an_embedded_beat_runs_the_tasks(
    make_project: MakeProject, broker: redis.Redis
) -> None:
    """`celery worker --beat` dispatches an entry and runs its task."""
    entry = {"task": "proj.record", "schedule": 1, "args": ["ran"]}
    project = make_project(beat_schedule={"static": entry})
    project.worker("--beat", "--scheduler", "redbeat.RedBeatScheduler")
    wait_until(lambda: broker.lrange(RUNS_KEY, 0, 1) == ["ran", "ran"], 40, "two runs")


def test_an_entry_added_while_beat_runs_is_dispatched(
    project: Project, broker: redis.Redis
) -> None:
    """Beat starts with an empty schedule, and picks up what another process saves."""
    beat = project.beat()
    beat.wait_for_line("Acquired lock")
    project.script(SAVE.format(name="added", args=[1, 2]))
    wait_for_sent(broker, 1, 2, more=2)


def test_an_entry_edited_while_beat_runs_is_dispatched_as_edited(
    project: Project, broker: redis.Redis
) -> None:
    """Once the new arguments have run, the old ones no longer do."""
    project.script(SAVE.format(name="edited", args=[1, 2]))
    project.beat()
    wait_for_sent(broker, 1, 2)
    project.script(SAVE.format(name="edited", args=[3, 4]))
    wait_for_sent(broker, 3, 4)
    of_old = count_sent(broker, 1, 2)
    wait_for_sent(broker, 3, 4, more=2)
    assert count_sent(broker, 1, 2) == of_old


def test_an_entry_removed_while_beat_runs_is_no_longer_dispatched(
    project: Project, redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """Other entries go on, and nothing of the removed one stays or comes back."""
    project.script(SAVE.format(name="removed", args=[1, 2]))
    project.script(SAVE.format(name="neighbour", args=[3, 4]))
    project.beat()
    wait_for_sent(broker, 1, 2)
    project.script(DELETE.format(name="removed"))
    wait_for_sent(broker, 3, 4)
    of_removed = count_sent(broker, 1, 2)
    wait_for_sent(broker, 3, 4, more=3)
    assert count_sent(broker, 1, 2) == of_removed
    assert not redis_client.exists("redbeat:removed")
    assert redis_client.zscore("redbeat::schedule", "redbeat:removed") is None


def test_one_of_two_beats_dispatches_and_the_other_waits(
    make_project: MakeProject, broker: redis.Redis
) -> None:
    """The second beat logs that it waits, sends nothing, and takes over when the first one ends."""
    project = make_project(beat_schedule={"static": every_second(1, 2)})
    first = project.beat()
    wait_for_sent(broker, 1, 2)
    second = project.beat()
    second.wait_for_line("(?i)wait")
    wait_for_sent(broker, 1, 2, more=2)
    assert "Sending due task" not in second.log
    first.terminate()
    second.wait_for_line("Sending due task static")
    sent = first.log.count("Sending due task") + second.log.count("Sending due task")
    assert count_sent(broker, 1, 2) in (sent - 1, sent)


def sent_by(project: Project, broker: redis.Redis, scheduler: str) -> Message:
    """The first message of a beat with this scheduler, read after that beat has ended."""
    broker.flushdb()
    beat = project.beat(scheduler=scheduler)
    wait_until(lambda: read_messages(broker), 20, "the first message")
    beat.terminate()
    return read_messages(broker)[0]


def test_a_message_has_the_headers_and_properties_of_celery_s_own_beat(
    make_project: MakeProject, broker: redis.Redis
) -> None:
    """And no others; `celery_beat_task` is included."""
    entry = every_second(1, 2, headers={"mine": "yes"})
    project = make_project(beat_schedule={"static": entry})
    theirs = sent_by(project, broker, "celery.beat.PersistentScheduler")
    ours = sent_by(project, broker, "redbeat.RedBeatScheduler")
    per_message = {"id", "root_id", "origin", "stamps", "stamped_headers"}
    assert ours.headers.keys() == theirs.headers.keys()
    assert ours.properties.keys() == theirs.properties.keys()
    for name in ours.headers.keys() - per_message:
        assert ours.headers[name] == theirs.headers[name], name
    assert ours.headers["mine"] == "yes"
    assert (ours.args, ours.kwargs) == (theirs.args, theirs.kwargs)
