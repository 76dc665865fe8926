"""Schedules and arguments of every kind pass through `save`, Redis and a tick."""

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import redis
from celery import Celery, signature
from celery.schedules import BaseSchedule, schedstate, schedule
from celery.schedules import crontab as celery_crontab

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.decoder import register_codec
from redbeat.errors import EntryError
from redbeat.schedules import crontab, rrule
from support.apps import MakeApp
from support.entries import overdue
from support.sent import Sent
from support.wire import Proxy

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
HOUR = timedelta(hours=1)


@pytest.fixture
def scheduler(app: Celery) -> RedBeatScheduler:
    app.conf.redbeat_lock_key = None
    return RedBeatScheduler(app)


def entry(app: Celery, rule: Any, name: str = "a", **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, f"tasks.{name}", rule, app=app, **fields)


def score_of(client: redis.Redis, name: str = "a") -> float:
    score = client.zscore(SCHEDULE, f"redbeat:{name}")
    assert score is not None
    return float(score)


class Backoff(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """A user-defined schedule: due so many seconds after the last run."""

    def __init__(self, seconds: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seconds = seconds

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return last_run_at + timedelta(seconds=self.seconds) - datetime.now(UTC)

    def is_due(self, last_run_at: datetime) -> schedstate:
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        return schedstate(remaining <= 0, self.seconds if remaining <= 0 else remaining)


class StoredBackoff(Backoff):
    """The same, with a codec."""


register_codec(
    "tests.backoff",
    StoredBackoff,
    lambda backoff: {"seconds": backoff.seconds},
    lambda fields: StoredBackoff(fields["seconds"]),
)


def test_a_schedule_of_the_users_own_is_stored_loaded_and_runs(
    scheduler: RedBeatScheduler, sent: list[str], app: Celery, redis_client: redis.Redis
) -> None:
    """Through its codec and its own methods."""
    saved = overdue(app, "a", StoredBackoff(3600))
    definition: Any = redis_client.hget(saved.key, "definition")
    assert json.loads(definition)["schedule"] == {"__type__": "tests.backoff", "seconds": 3600}
    scheduler.tick()
    scheduler.tick()
    assert sent == ["tasks.a"]
    assert score_of(redis_client) == pytest.approx((datetime.now(UTC) + HOUR).timestamp(), abs=3)


def test_without_its_codec_an_entry_is_refused_and_a_stored_one_is_set_aside(
    scheduler: RedBeatScheduler, sent: list[str], app: Celery, redis_client: redis.Redis
) -> None:
    """A process that does not know the codec runs nothing at a wrong time."""
    with pytest.raises(EntryError, match=r"'a'.*schedule.*Backoff.*register_codec"):
        entry(app, Backoff(3600)).save()
    definition = {"name": "a", "task": "t", "schedule": {"__type__": "tests.unknown", "seconds": 1}}
    redis_client.hset("redbeat:a", "definition", json.dumps(definition))
    redis_client.zadd(SCHEDULE, {"redbeat:a": 0})
    scheduler.tick()
    assert sent == []
    assert score_of(redis_client) == -2


ARGUMENTS = [
    UUID(int=7),
    Decimal("9.90"),
    b"\x00\xff",
    date(2024, 2, 29),
    timedelta(days=-1, microseconds=5),
    datetime(2024, 10, 27, 0, 30, tzinfo=UTC),
    signature("tasks.add", args=(1, 2), kwargs={"on": date(2024, 1, 1)}),
]


def test_arguments_of_every_type_reach_the_task_as_they_were(
    scheduler: RedBeatScheduler, sent: Sent, app: Celery
) -> None:
    """Equal, and of the same type."""
    overdue(app, "a", schedule(60), args=ARGUMENTS, kwargs={"deep": {"er": ARGUMENTS}})
    scheduler.tick()
    ((args, kwargs),) = sent.arguments
    assert list(args) == ARGUMENTS
    assert kwargs == {"deep": {"er": ARGUMENTS}}
    assert [type(arg) for arg in args] == [type(arg) for arg in ARGUMENTS]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"args": [1, {2, 3}]}, r"args: \[1\]: .*set"),
        ({"kwargs": {"user": {"id": object()}}}, r"kwargs: user\.id: .*object"),
        ({"options": {"link": object()}}, r"options: link: .*object"),
    ],
)
def test_an_argument_that_cannot_be_stored_is_named(
    app: Celery, redis_client: redis.Redis, fields: dict[str, Any], place: str
) -> None:
    """With its entry, its field and its place within the field; nothing is written."""
    with pytest.raises(EntryError, match=rf"'a'.*its {place}"):
        entry(app, schedule(60), **fields).save()
    assert redis_client.keys("*") == []


@pytest.mark.parametrize(
    "bad", [schedule(0), schedule(timedelta(seconds=-5)), celery_crontab([0.5])], ids=str
)
def test_an_impossible_schedule_is_refused_at_save(
    app: Celery, redis_client: redis.Redis, bad: Any
) -> None:
    """The error names the entry and the field."""
    with pytest.raises(EntryError, match=r"'a' cannot be stored.*its schedule"):
        entry(app, bad).save()
    assert redis_client.keys("*") == []


def test_a_finished_rule_is_no_longer_due_and_keeps_its_history(
    scheduler: RedBeatScheduler, sent: list[str], app: Celery, redis_client: redis.Redis
) -> None:
    """A score of -1 means finished."""
    start = datetime.now(UTC) - 2 * HOUR
    saved = entry(app, rrule("DAILY", dtstart=start, count=1), last_run_at=start - HOUR).save()
    for _ in range(3):
        scheduler.tick()
    assert sent == ["tasks.a"]
    assert score_of(redis_client) == -1
    assert RedBeatSchedulerEntry.from_key(saved.key, app=app).total_run_count == 1
    assert saved.key not in {each.key for each in scheduler.schedule.values()}


def test_a_disabled_entry_costs_one_load_per_slot(
    make_app_with: MakeApp, sent: list[str], proxy: Proxy, redis_client: redis.Redis
) -> None:
    """Only the tick at its slot loads it."""
    app = make_app_with(redbeat_redis_url=proxy.url(), redbeat_lock_key=None)
    app.conf.beat_max_loop_interval = 1
    scheduler = RedBeatScheduler(app)
    overdue(app, "a", schedule(3600), enabled=False)
    with proxy.counting() as first:
        scheduler.tick()
    with proxy.counting() as later:
        for _ in range(5):
            scheduler.tick()
    loads = [
        [command[0] for command in traffic.commands].count("HMGET") for traffic in (first, later)
    ]
    assert loads == [1, 0]
    assert sent == []


def test_an_entry_enabled_in_its_hash_waits_for_its_slot_and_a_saved_one_runs_at_once(
    scheduler: RedBeatScheduler, sent: list[str], app: Celery, redis_client: redis.Redis
) -> None:
    """A saved entry is due at once if its last run was long ago."""
    saved = overdue(app, "a", schedule(3600), enabled=False)
    scheduler.tick()
    slot = score_of(redis_client)
    assert slot > (datetime.now(UTC) + HOUR / 2).timestamp()
    definition: Any = redis_client.hget(saved.key, "definition")
    redis_client.hset(saved.key, "definition", definition.replace("false}", "true}"))
    assert RedBeatSchedulerEntry.from_key(saved.key, app=app).enabled
    scheduler.tick()
    assert sent == []
    assert score_of(redis_client) == slot
    RedBeatSchedulerEntry.from_key(saved.key, app=app).save()
    scheduler.tick()
    assert sent == ["tasks.a"]


def test_an_entry_that_missed_runs_while_paused_makes_up_one_when_resumed(
    scheduler: RedBeatScheduler, sent: Sent, app: Celery
) -> None:
    """One that missed none waits for its slot."""
    overdue(app, "a", schedule(600), enabled=False)
    timetable = Timetable(app)
    timetable["patient"] = {"task": "tasks.b", "schedule": 3600, "enabled": False}
    scheduler.tick()
    timetable.resume(*timetable)
    scheduler.tick()
    scheduler.tick()
    assert sent == ["tasks.a"]


@pytest.mark.parametrize("own_zone", [False, True])
def test_a_crontab_that_missed_its_starting_deadline_waits_for_its_next_slot(
    make_app_with: MakeApp,
    sent: list[str],
    redis_url: str,
    redis_client: redis.Redis,
    own_zone: bool,
) -> None:
    """It does not run, is not tried again at once, and runs at that slot."""
    app = make_app_with(
        redbeat_redis_url=redis_url, redbeat_lock_key=None, beat_cron_starting_deadline=60
    )
    now = datetime.now(UTC)
    fields = ((now - timedelta(minutes=3)).minute, "*")
    overdue(app, "a", crontab(*fields, tz="UTC") if own_zone else celery_crontab(*fields, app=app))
    scheduler = RedBeatScheduler(app)
    scheduler.tick()
    scheduler.tick()
    assert sent == []
    slot = datetime.fromtimestamp(score_of(redis_client), UTC)
    assert slot.minute == fields[0]
    assert now < slot <= now + HOUR


@pytest.mark.parametrize("enable_utc", [False, True])
@pytest.mark.parametrize("zone", [None, "America/New_York", "Asia/Kathmandu"])
def test_due_times_do_not_depend_on_the_settings_for_time(
    make_app_with: MakeApp,
    sent: list[str],
    redis_url: str,
    redis_client: redis.Redis,
    enable_utc: bool,
    zone: str | None,
) -> None:
    """Neither before a run nor after it, nor in Redis."""
    app = make_app_with(
        redbeat_redis_url=redis_url, redbeat_lock_key=None, enable_utc=enable_utc, timezone=zone
    )
    now = datetime.now(UTC)
    entry(app, schedule(3600), "later", last_run_at=now - 3 * HOUR / 4).save()
    overdue(app, "a", schedule(3600))
    RedBeatScheduler(app).tick()
    assert sent == ["tasks.a"]
    assert score_of(redis_client, "later") == pytest.approx((now + HOUR / 4).timestamp(), abs=1)
    assert score_of(redis_client) == pytest.approx((now + HOUR).timestamp(), abs=3)
    stored = RedBeatSchedulerEntry.from_key("redbeat:a", app=app)
    assert stored.last_run_at is not None
    assert abs(stored.last_run_at - now) < timedelta(seconds=3)
    assert stored.due_at is not None
    assert abs(stored.due_at - now - HOUR) < timedelta(seconds=3)
