"""When signals are sent, and with which facts."""

import time
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest
import redis
import redis.exceptions
import redis.lock

from redbeat import RedBeatScheduler, signals
from redbeat.schedulers import (
    acquire_distributed_beat_lock,
)
from support.bare import write_bare
from support.entries import SCHEDULE, due, stored

UTC = timezone.utc


def test_signals_report_what_happened_to_each_entry(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    signalled: list[tuple[str, dict[str, Any]]],
) -> None:
    """With the entry, when it was due, and how late it was."""

    def send_task(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "tasks.bad":
            raise ValueError("does not serialise")

    monkeypatch.setattr(RedBeatScheduler, "send_task", send_task)
    due(scheduler.app, "good")
    due(scheduler.app, "bad")
    client.hset("redbeat:worse", "definition", "{not json")
    client.zadd(SCHEDULE, {"redbeat:worse": 1})
    scheduler.tick()
    facts = dict(signalled)
    good = facts["entry_dispatched"]
    assert good["entry"].name == "good"
    assert good["delay"] == pytest.approx(60, abs=2)
    assert datetime.now(UTC) - good["due_at"] == pytest.approx(
        timedelta(seconds=60), abs=timedelta(seconds=2)
    )
    assert facts["entry_failed"]["entry"].name == "bad"
    assert "does not serialise" in str(facts["entry_failed"]["exception"])
    assert facts["entry_set_aside"]["key"] == "redbeat:worse"
    assert facts["entry_set_aside"]["reason"]
    assert signalled[0][0] == "leadership_acquired"


def test_the_signal_of_an_entry_with_a_score_of_zero_reports_no_delay(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    sent: list[str],
    signalled: list[tuple[str, dict[str, Any]]],
) -> None:
    """A score of 0 means now, not 1970."""
    write_bare(client, "c", {"__type__": "interval", "every": 60}, 0)
    scheduler.tick()
    facts = dict(signalled)["entry_dispatched"]
    assert facts["delay"] == pytest.approx(0, abs=5)
    assert facts["due_at"].timestamp() == pytest.approx(time.time(), abs=5)


def test_a_receiver_that_raises_does_no_harm(
    scheduler: RedBeatScheduler, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The error is logged."""

    def receive(**facts: Any) -> None:
        raise RuntimeError("receiver is broken")

    signals.entry_dispatched.connect(receive)
    try:
        due(scheduler.app, "a")
        scheduler.tick()
    finally:
        signals.entry_dispatched.disconnect(receive)
    assert sent == ["tasks.a"]
    assert "receiver is broken" in caplog.text
    assert stored(scheduler.app, "a").total_run_count == 1


def test_signals_report_a_lead_gained_and_lost(
    locked: RedBeatScheduler, client: redis.Redis, signalled: list[tuple[str, dict[str, Any]]]
) -> None:
    """Acquired, lost, acquired again, and given up at the end."""
    acquire_distributed_beat_lock(mock.Mock(scheduler=locked))
    locked.tick()
    client.set("redbeat::lock", "another")
    locked.tick()
    client.delete("redbeat::lock")
    locked.tick()
    locked.close()
    locked.close()
    assert [name for name, _ in signalled] == ["leadership_acquired", "leadership_lost"] * 2
