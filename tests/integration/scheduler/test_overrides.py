"""Subclasses and patched methods of schedulers and entries are called as in 2.x."""

import json
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any
from unittest import mock

import pytest
import redis
import redis.exceptions
import redis.lock
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from support.entries import due, later, overdue, score_of, stored

UTC = timezone.utc


def test_maybe_due_is_called_once_per_run_with_the_producer(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Error trackers patch it on the class and call it positionally."""
    seen: list[tuple[str, list[str]]] = []
    original = RedBeatScheduler.maybe_due

    def tracked(*args: Any, **kwargs: Any) -> Any:
        seen.append((args[1].name, list(kwargs)))
        return original(*args, **kwargs)

    monkeypatch.setattr(RedBeatScheduler, "maybe_due", tracked)
    due(scheduler.app, "a")
    later(scheduler.app, "b", 30)
    scheduler.tick()
    assert seen == [("a", ["producer"]), ("b", ["producer"])]


def test_a_tick_returns_the_smallest_wait_that_maybe_due_gave(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the due entries and the first later one."""
    waits = {"a": 7.0, "b": 42.0, "c": 11.0}
    monkeypatch.setattr(
        RedBeatScheduler, "maybe_due", lambda self, entry, **kwargs: waits[entry.name]
    )
    due(scheduler.app, "a")
    due(scheduler.app, "b")
    later(scheduler.app, "c", 30)
    assert scheduler.tick() == 7.0


def test_an_entry_that_an_override_holds_back_stays_due(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, sent: list[str]
) -> None:
    """The next tick offers it again; the same tick does not, which would be a busy loop."""
    due(scheduler.app, "a")
    scheduler.app.redbeat_conf.batch_size = 1
    with monkeypatch.context() as patch:
        patch.setattr(RedBeatScheduler, "maybe_due", lambda self, entry, **kwargs: 5.0)
        assert scheduler.tick() == 5.0
    scheduler.tick()
    assert sent == ["tasks.a"]


@pytest.mark.parametrize("wait", [None, 0, -1])
def test_an_entry_that_an_override_skips_does_not_keep_beat_busy(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch, wait: float | None
) -> None:
    """It is offered again after a second."""
    due(scheduler.app, "a")
    monkeypatch.setattr(RedBeatScheduler, "maybe_due", lambda self, entry, **kwargs: wait)
    scheduler.tick()
    assert scheduler.outlook is not None
    assert scheduler.outlook.first_due is not None
    assert scheduler.outlook.first_due - time.time() == pytest.approx(1, abs=0.5)


def test_an_override_that_fails_before_it_reserves_does_not_keep_beat_busy(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run counts as one whose message could not be built."""

    def apply_async(self: Any, *args: Any, **kwargs: Any) -> None:
        raise ValueError("override is broken")

    due(scheduler.app, "a")
    monkeypatch.setattr(RedBeatScheduler, "apply_async", apply_async)
    scheduler.tick()
    assert stored(scheduler.app, "a").total_run_count == 1


def test_a_run_that_does_not_change_the_count_is_recorded(
    scheduler: RedBeatScheduler, sent: list[str], monkeypatch: Any
) -> None:
    """An override of `reserve` may update `last_run_at` only."""

    def reserve(self: Any, entry: RedBeatSchedulerEntry) -> RedBeatSchedulerEntry:
        return entry.next(only_update_last_run_at=True)

    monkeypatch.setattr(RedBeatScheduler, "reserve", reserve)
    entry = overdue(scheduler.app, total_run_count=5)
    scheduler.tick()
    stored = RedBeatSchedulerEntry.from_key(entry.key, app=scheduler.app)
    assert stored.total_run_count == 5
    assert stored.last_run_at is not None
    assert datetime.now(UTC) - stored.last_run_at < timedelta(minutes=1)


def test_looking_ahead_sends_nothing_though_an_override_would(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """An override that sends whatever is due by its meta is not called before the due time."""

    class Eager(RedBeatScheduler):
        def maybe_due(self, entry: RedBeatSchedulerEntry, **kwargs: Any) -> float | None:
            is_due, wait = entry.is_due()
            if is_due:
                self.apply_async(entry, **kwargs)
            return wait

    due(scheduler.app, "a")
    client.zadd("redbeat::schedule", {"redbeat:a": time.time() + 60})
    eager = Eager(scheduler.app)
    assert eager.tick() == pytest.approx(60, abs=2)
    assert not sent


def test_entries_of_a_subclass_with_extra_fields_run(
    client_app: Celery, client: redis.Redis, sent: list[str]
) -> None:
    """The extra fields of the definition are passed to the constructor."""

    class Tenants(RedBeatSchedulerEntry):
        def __init__(self, *args: Any, tenant: str = "", **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.tenant = tenant

    class Scheduler(RedBeatScheduler):
        Entry = Tenants

        def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
            assert entry.tenant == "acme"
            return super().apply_async(entry, *args, **kwargs)

    client_app.conf.redbeat_lock_key = None
    definition = json.loads(due(client_app, "a").encode_definition()) | {"tenant": "acme"}
    client.hset("redbeat:a", "definition", json.dumps(definition))
    Scheduler(client_app).tick()
    assert sent == ["tasks.a"]


def test_an_entry_that_says_it_is_not_due_is_asked_again_after_the_time_it_gives(
    client_app: Celery, client: Any, sent: list[str]
) -> None:
    """The `is_due` of a subclass may know better than the schedule."""

    class Resting(RedBeatSchedulerEntry):
        def is_due(self) -> tuple[bool, float | None]:
            return False, 40.0

    class Scheduler(RedBeatScheduler):
        Entry = Resting

    client_app.conf.redbeat_lock_key = None
    due(client_app, "a")
    assert Scheduler(client_app).tick() == 40
    assert sent == []
    assert score_of(client, "a") == pytest.approx(time.time() + 40, abs=2)


@pytest.mark.parametrize("name", ["next", "__next__", "_next_instance"])
@pytest.mark.parametrize("called", ["next", "__next__", "_next_instance"])
def test_an_override_of_next_may_call_it_by_any_of_its_names(
    client_app: Celery, name: str, called: str
) -> None:
    """They are one function, so none of them calls the override of another."""

    class Marked(RedBeatSchedulerEntry):
        def __next__(self, *args: Any, **kwargs: Any) -> RedBeatSchedulerEntry:
            advanced: RedBeatSchedulerEntry = getattr(super(), called)(*args, **kwargs)
            advanced.total_run_count += 100
            return advanced

    setattr(Marked, name, Marked.__next__)
    entry = Marked("a", "tasks.a", schedule(60), app=client_app)
    assert next(entry).total_run_count == 101
    assert getattr(entry, name)().total_run_count == 101


@pytest.mark.parametrize("overridden", ["due_at", "score"])
def test_an_entry_class_that_overrides_its_due_time_decides_when_it_runs_next(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], overridden: str
) -> None:
    """As it does in `save` and `reschedule`."""

    class Jittered(RedBeatSchedulerEntry):
        @property
        def due_at(self) -> datetime | None:
            due_at = super().due_at
            return due_at and due_at + timedelta(seconds=1000 * (overridden == "due_at"))

        @property
        def score(self) -> int:
            return super().score + 1000 * (overridden == "score")

    scheduler.Entry = Jittered
    due(scheduler.app, "a", every=5)
    scheduler.tick()
    assert sent == ["tasks.a"]
    assert client.zscore("redbeat::schedule", "redbeat:a") == pytest.approx(
        time.time() + 1005, abs=2
    )


def test_an_overridden_from_key_loads_the_entries_that_run(
    scheduler: RedBeatScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a tick and in the property `schedule`."""

    class OfTenant(RedBeatSchedulerEntry):
        @classmethod
        def from_key(cls, key: str, app: Any = None) -> RedBeatSchedulerEntry:
            entry = super().from_key(key, app=app)
            entry.options["queue"] = "tenant"
            return entry

    queues = []
    monkeypatch.setattr(
        RedBeatScheduler,
        "apply_async",
        lambda self, entry, **kwargs: queues.append(entry.options["queue"]),
    )
    scheduler.Entry = OfTenant
    due(scheduler.app, "a")
    assert scheduler.schedule["a"].options == {"queue": "tenant"}
    scheduler.tick()
    assert queues == ["tenant"]


def static_from_key(key: str, app: Any = None) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry.from_key(key, app=app)


@pytest.mark.parametrize("kind", [staticmethod, partial, None], ids=["static", "partial", "patch"])
def test_a_from_key_that_is_not_a_class_method_is_called_as_well(
    scheduler: RedBeatScheduler, sent: list[str], monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """Whatever kind of callable it is."""
    if kind is None:
        original = RedBeatSchedulerEntry.from_key
        monkeypatch.setattr(RedBeatSchedulerEntry, "from_key", mock.Mock(wraps=original))
    else:
        own: Any = type("Own", (RedBeatSchedulerEntry,), {"from_key": kind(static_from_key)})
        scheduler.Entry = own
    due(scheduler.app, "a")
    assert list(scheduler.schedule) == ["a"]
    scheduler.tick()
    assert sent == ["tasks.a"]
