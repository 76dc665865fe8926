"""`celery.beat.BeatLazyFunc` in `beat_schedule`: arguments that are computed on each send."""

import io
import itertools
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from celery import Celery
from celery.beat import BeatLazyFunc, SchedulingError

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.errors import EntryError
from redbeat.tools import backup
from support.sent import Sent

KEY = "redbeat:lazy"
LONG_AGO = datetime(2024, 1, 1, tzinfo=timezone.utc)


def counted() -> BeatLazyFunc:
    """1, 2, 3, ..., one more each time."""
    return BeatLazyFunc(next, itertools.count(1))


def with_static(app: Celery, **fields: Any) -> Celery:
    app.conf.redbeat_lock_key = None
    app.conf.beat_schedule = {
        "lazy": {"task": "tasks.lazy", "schedule": timedelta(hours=1), **fields}
    }
    return app


def run_once(app: Celery, scheduler: RedBeatScheduler) -> None:
    RedBeatSchedulerEntry.from_key(KEY, app=app).reschedule(LONG_AGO)
    scheduler.tick()


def test_lazy_arguments_are_computed_on_each_send(client_app: Celery, sent: Sent) -> None:
    """Other arguments stay as they are."""
    app = with_static(
        client_app,
        args=(1, counted(), 2),
        kwargs={"a": "b", "now": BeatLazyFunc(max, 3, 4)},
    )
    scheduler = RedBeatScheduler(app)
    run_once(app, scheduler)
    run_once(app, scheduler)
    assert sent.arguments == [
        ([1, 1, 2], {"a": "b", "now": 4}),
        ([1, 2, 2], {"a": "b", "now": 4}),
    ]


def test_a_lazy_argument_is_stored_as_a_placeholder(
    client_app: Celery, client: redis.Redis
) -> None:
    """It can be read, saved, edited and exported without its function."""
    app = with_static(client_app, args=(1, BeatLazyFunc(max, 3, 4), 2))
    RedBeatScheduler(app)
    lazy = {"__type__": "beat_lazy_func", "function": "builtins.max"}
    stored = client.hget(KEY, "definition")
    assert json.loads(str(stored))["args"] == [1, lazy, 2]
    RedBeatSchedulerEntry.from_key(KEY, app=app).save()
    assert client.hget(KEY, "definition") == stored
    timetable = Timetable(app)
    timetable.pause("lazy")
    timetable.resume("lazy")
    assert client.hget(KEY, "definition") == stored
    text = "".join(backup.dump(timetable.items()))
    timetable.clear()
    timetable.replace(backup.plan_import(io.StringIO(text), timetable).written)
    assert client.hget(KEY, "definition") == stored


def test_a_restart_does_not_rewrite_lazy_arguments(client_app: Celery, client: redis.Redis) -> None:
    app = with_static(client_app, args=[counted()])
    RedBeatScheduler(app)
    client.hset(KEY, "set_aside", "a mark that saving would remove")
    RedBeatScheduler(app)
    assert client.hexists(KEY, "set_aside")


def test_a_beat_without_the_code_sends_nothing_and_says_what_to_do(
    client_app: Celery,
    client: redis.Redis,
    sent: Sent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = with_static(client_app, args=[counted()])
    RedBeatScheduler(app)
    app.conf.beat_schedule = {}
    # As of another application on this prefix, which leaves it alone.
    client.delete("redbeat::statics")
    scheduler = RedBeatScheduler(app, lazy=True)
    run_once(app, scheduler)
    assert sent == []
    assert "Start beat with the code that has the entry" in caplog.text
    assert RedBeatSchedulerEntry.from_key(KEY, app=app).total_run_count == 1


def test_an_argument_that_was_moved_in_redis_is_not_taken_for_another(
    client_app: Celery, sent: Sent
) -> None:
    app = with_static(client_app, args=[1, counted()])
    scheduler = RedBeatScheduler(app)
    Timetable(app).edit(["lazy"], lambda entry: entry.args.reverse())
    run_once(app, scheduler)
    assert sent == []


def test_a_manual_run_computes_lazy_arguments_too(client_app: Celery, sent: Sent) -> None:
    class Sending(RedBeatScheduler):
        """One whose sends are noted."""

        def send_task(self, *args: Any, **kwargs: Any) -> Any:
            return RedBeatScheduler.send_task(self, *args, **kwargs)

    app = with_static(client_app, kwargs={"n": counted()})
    RedBeatScheduler(app)
    app.conf.beat_scheduler = Sending
    Timetable(app).run("lazy")
    assert sent.arguments == [([], {"n": 1})]
    app.conf.beat_schedule = {}
    with pytest.raises(SchedulingError, match=r"computed by builtins\.next"):
        Timetable(app).run("lazy")


def test_a_lazy_argument_that_celery_would_not_compute_is_refused(client_app: Celery) -> None:
    entry = RedBeatSchedulerEntry(
        "lazy", "tasks.lazy", 60, args=[{"deep": counted()}], app=client_app
    )
    with pytest.raises(EntryError, match="BeatLazyFunc"):
        entry.save()


def test_sending_an_entry_whose_lazy_argument_is_not_in_the_code_logs_that(
    client_app: Celery, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    app = with_static(client_app)
    scheduler = RedBeatScheduler(app)
    RedBeatSchedulerEntry("lazy", "tasks.lazy", 60, args=[counted()], app=app).save()
    run_once(app, scheduler)
    assert sent == []
    assert "the beat_schedule of this beat does not say how" in caplog.text
