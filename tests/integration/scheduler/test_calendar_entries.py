"""The first slots of calendar entries that never ran, and of rules with an end."""

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
import redis.exceptions
import redis.lock

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from support.bare import write_bare
from support.entries import SCHEDULE, score_of, stored

UTC = timezone.utc


DAY = 86400


#: A slot some hours ago; the next one is far away.
SLOT = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)


DAILY = {"__type__": "crontab", "minute": "0", "hour": str(SLOT.hour)}


ONCE = {
    "__type__": "rrule",
    "freq": 3,
    "count": 1,
    "dtstart": int(SLOT.timestamp()),
    "dtstart_tz": 0,
}


HOURLY = '"schedule": {"__type__": "crontab", "minute": 0}'


LONG_AGO = (
    '{"__type__": "datetime", "year": 2020, "month": 1, "day": 1, "hour": 0, "minute": 0, '
    '"second": 0, "microsecond": 0}'
)


def test_a_calendar_entry_that_never_ran_waits_for_its_slot(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Also if another language wrote it without meta and with a score of 0."""
    yearly = {"__type__": "crontab", "minute": "0", "hour": "0", "month_of_year": "1"}
    write_bare(client, "c", yearly, 0)
    scheduler.tick()
    assert sent == []
    score = score_of(client, "c")
    assert score is not None
    slot = datetime.fromtimestamp(score, UTC)
    assert (slot.month, slot.hour, slot.minute, slot.second) == (1, 0, 0, 0)
    last_run_at = stored(scheduler.app, "c").last_run_at
    assert last_run_at is not None
    assert stored(scheduler.app, "c").total_run_count == 0


@pytest.mark.parametrize(
    ("rule", "then"), [(DAILY, SLOT.timestamp() + DAY), (ONCE, -1)], ids=["crontab", "rrule"]
)
def test_a_calendar_entry_that_never_ran_runs_once_at_the_slot_in_its_score(
    scheduler: RedBeatScheduler,
    client: redis.Redis,
    sent: list[str],
    rule: dict[str, Any],
    then: float,
) -> None:
    """However late beat is."""
    write_bare(client, "c", rule, SLOT.timestamp())
    scheduler.tick()
    scheduler.tick()
    assert sent == ["tasks.c"]
    assert stored(scheduler.app, "c").total_run_count == 1
    assert score_of(client, "c") == then


@pytest.mark.parametrize("score", [0, 1, 61], ids=str)
def test_a_score_that_is_not_a_slot_does_not_make_a_calendar_entry_run(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], score: int
) -> None:
    """A score of 0 asks beat to look now, although it is also the first midnight of 1970."""
    write_bare(client, "c", {"__type__": "crontab"}, score)
    scheduler.tick()
    assert sent == []


def test_a_calendar_entry_that_never_ran_is_left_alone_before_its_score(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Looking ahead writes nothing."""
    ahead = float(int(time.time()) // 60 * 60 + 120)
    write_bare(client, "c", {"__type__": "crontab"}, ahead)
    scheduler.tick()
    assert sent == []
    assert score_of(client, "c") == ahead
    assert client.hget("redbeat:c", "meta") is None


class Killed(BaseException):
    """Nothing catches it, and only what is in Redis remains."""


class Dying(RedBeatScheduler):
    """A scheduler that is killed before its first message."""

    def maybe_due(self, entry: RedBeatSchedulerEntry, **kwargs: Any) -> float:
        raise Killed


def test_the_first_slot_of_a_calendar_entry_is_not_lost_when_beat_is_killed(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str]
) -> None:
    """Its history begins before its message is sent, since the lease does not tell the slot."""
    write_bare(client, "c", DAILY, SLOT.timestamp())
    with pytest.raises(Killed):
        Dying(scheduler.app).tick()
    lease = score_of(client, "c")
    assert lease is not None
    assert lease > time.time()
    client.zadd(SCHEDULE, {"redbeat:c": lease - 60})
    scheduler.tick()
    assert sent == ["tasks.c"]


@pytest.mark.parametrize("runs", ["", ', "total_run_count": 0', ', "total_run_count": 3'])
def test_a_calendar_entry_without_a_last_run_gets_one_and_runs(
    scheduler: RedBeatScheduler, client: redis.Redis, sent: list[str], runs: str
) -> None:
    """Whatever run count another program stored with it."""
    client.hset("redbeat:a", "definition", f'{{"name": "a", "task": "t", {HOURLY}}}')
    client.hset("redbeat:a", "meta", f'{{"last_run_at": null{runs}}}')
    client.zadd(SCHEDULE, {"redbeat:a": 0})
    scheduler.tick()
    entry = RedBeatSchedulerEntry.from_key("redbeat:a", app=scheduler.app)
    assert entry.last_run_at is not None
    client.hset("redbeat:a", "meta", f'{{"last_run_at": {LONG_AGO}{runs}}}')
    client.zadd(SCHEDULE, {"redbeat:a": 0})
    scheduler.tick()
    assert sent == ["t"]
