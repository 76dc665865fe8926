"""Other programs edit an entry while beat dispatches it."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedules import once
from redbeat.store.storage import Storage
from support.entries import SCHEDULE, due, overdue, score_of, stored

UTC = timezone.utc


def sending(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Any], Any]) -> list[str]:
    """Record the names of entries that are sent, and call `meanwhile` at that moment."""
    sent: list[str] = []

    def send(self: RedBeatScheduler, entry: RedBeatSchedulerEntry, **kwargs: Any) -> None:
        self.reserve(entry)
        sent.append(entry.name)
        meanwhile(entry)

    monkeypatch.setattr(RedBeatScheduler, "apply_async", send)
    return sent


@pytest.mark.parametrize("every", [60, 100_000], ids=["due", "due later"])
def test_an_entry_deleted_during_a_claim_stays_deleted_and_nothing_is_logged(
    client_app: Celery,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    sent: list[str],
    monkeypatch: pytest.MonkeyPatch,
    every: float,
) -> None:
    """Its hash and its place in the schedule went together, so nothing has to be restored."""
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {"a": {"task": "tasks.a", "schedule": every}}
    scheduler = RedBeatScheduler(client_app)
    scheduler.max_interval = 2 * every
    entry = stored(client_app, "a")
    entry.reschedule(datetime.now(UTC) - timedelta(seconds=90))
    claim_due = Storage.claim_due

    def deleting(self: Storage, *args: Any) -> Any:
        found = claim_due(self, *args)
        entry.delete()
        return found

    monkeypatch.setattr(Storage, "claim_due", deleting)
    scheduler.tick()
    assert sent == []
    assert score_of(client, "a") is None
    assert "Failed to load" not in caplog.text


def test_a_deleted_entry_stays_deleted_while_beat_dispatches_it(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    """Neither its hash nor its member comes back."""
    entry = due(scheduler.app, "a")
    monkeypatch.setattr(RedBeatScheduler, "send_task", lambda *args, **kwargs: entry.delete())
    scheduler.tick()
    assert client.keys("redbeat:*") == []


def test_an_entry_saved_while_beat_dispatches_it_keeps_its_new_time(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    """The current run is counted all the same."""
    due(scheduler.app, "a")

    def save_anew(self: Any, *args: Any, **kwargs: Any) -> None:
        RedBeatSchedulerEntry(
            "a", "tasks.other", crontab(0, 0, month_of_year=1), app=self.app
        ).save()
        client.zadd(SCHEDULE, {"redbeat:a": 4_000_000_000})

    monkeypatch.setattr(RedBeatScheduler, "send_task", save_anew)
    scheduler.tick()
    entry = stored(scheduler.app, "a")
    assert entry.task == "tasks.other"
    assert entry.total_run_count == 1
    assert score_of(client, "a") == 4_000_000_000


def test_an_entry_rescheduled_while_it_is_dispatched_keeps_its_new_time(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: Any
) -> None:
    base = datetime.now(UTC) - timedelta(minutes=50)
    sending(monkeypatch, lambda entry: overdue(scheduler.app).reschedule(base))
    entry = overdue(scheduler.app)
    scheduler.tick()
    stored = RedBeatSchedulerEntry.from_key(entry.key, app=scheduler.app)
    assert stored.last_run_at == base
    score: Any = client.zscore(SCHEDULE, entry.key)
    assert abs(score - (base + timedelta(hours=1)).timestamp()) < 2


def test_an_entry_deleted_and_recreated_while_it_is_dispatched_has_no_history(
    scheduler: RedBeatScheduler, monkeypatch: Any
) -> None:
    def remake(entry: RedBeatSchedulerEntry) -> None:
        entry.delete()
        RedBeatSchedulerEntry("a", "tasks.new", schedule(60), app=scheduler.app).save()

    sending(monkeypatch, remake)
    entry = overdue(scheduler.app)
    scheduler.tick()
    assert RedBeatSchedulerEntry.from_key(entry.key, app=scheduler.app).total_run_count == 0


def test_a_one_off_without_meta_that_is_saved_while_it_runs_does_not_run_again(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: Any
) -> None:
    at = once(datetime.now(UTC) - timedelta(minutes=1))

    def save(entry: RedBeatSchedulerEntry) -> None:
        RedBeatSchedulerEntry("a", "tasks.a", at, app=scheduler.app).save()

    sent = sending(monkeypatch, save)
    save(mock.Mock())
    client.hdel("redbeat:a", "meta")
    for _ in range(3):
        scheduler.tick()
    assert sent[:1] == ["a"]
    assert RedBeatSchedulerEntry.from_key("redbeat:a", app=scheduler.app).total_run_count >= 1


@pytest.mark.parametrize("fails", [False, True], ids=["run", "set aside"])
def test_a_key_that_changes_its_type_while_it_is_dispatched_affects_no_other_entry(
    scheduler: RedBeatScheduler, client: redis.Redis, monkeypatch: Any, fails: bool
) -> None:
    """The other runs are recorded, and the next tick goes on."""

    def replace(entry: RedBeatSchedulerEntry) -> None:
        if entry.name == "odd":
            client.delete(entry.key)
            client.set(entry.key, "cache")
            if fails and entry.claim:
                entry.claim.set_aside(ValueError("no"))

    sent = sending(monkeypatch, replace)
    for name in ("good", "odd"):
        overdue(scheduler.app, name, total_run_count=5)
    scheduler.tick()
    assert sorted(sent) == ["good", "odd"]
    assert RedBeatSchedulerEntry.from_key("redbeat:good", scheduler.app).total_run_count == 6
    assert client.get("redbeat:odd") == "cache"
    overdue(scheduler.app, "later")
    scheduler.tick()
    assert sorted(sent) == ["good", "later", "odd"]
