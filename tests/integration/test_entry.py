"""Entries, on each kind of storage."""

import copy
import json
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from celery import Celery
from celery.canvas import signature
from celery.schedules import crontab, schedstate, schedule

from redbeat import RedBeatSchedulerEntry
from redbeat.errors import EntryError
from redbeat.schedules import rrule
from support.wire import Proxy

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"


def make(app: Celery, name: str = "one", every: float = 60, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, "tasks.add", schedule(every), app=app, **fields)


def score_of(client: redis.Redis, entry: RedBeatSchedulerEntry) -> float | None:
    score: Any = client.zscore(SCHEDULE, entry.key)
    return None if score is None else float(score)


def minutes_ago(minutes: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


def test_a_saved_entry_comes_back_as_it_was(client_app: Celery) -> None:
    """Every field of the definition, and the last run."""
    entry = make(client_app, args=[1], kwargs={"b": 2}, options={"queue": "q"}, enabled=False)
    assert entry.save() is entry
    stored = RedBeatSchedulerEntry.from_key(entry.key, app=client_app)
    assert vars(stored) == vars(entry)


def test_saving_writes_what_2x_writes(client_app: Celery, client: redis.Redis) -> None:
    """A hash of definition and meta, and a whole second in the sorted set."""
    ran = datetime(2026, 11, 20, 12, 30, 15, 500, tzinfo=ZoneInfo("UTC"))
    entry = make(client_app, last_run_at=ran).save()
    assert client.hgetall("redbeat:one") == {
        "definition": '{"name": "one", "task": "tasks.add", "args": null, "kwargs": {}, '
        '"options": {}, "schedule": {"__type__": "interval", "every": 60.0, "relative": false}, '
        '"enabled": true}',
        "meta": '{"last_run_at": {"__type__": "datetime", "year": 2026, "month": 11, "day": 20, '
        '"hour": 12, "minute": 30, "second": 15, "microsecond": 500, "timezone": "UTC"}}',
    }
    score = score_of(client, entry)
    assert score is not None
    assert score == int(score)


def test_an_entry_that_is_not_there_is_a_key_error(client_app: Celery) -> None:
    """Its key is in the error."""
    with pytest.raises(KeyError, match="redbeat:nix"):
        RedBeatSchedulerEntry.from_key("redbeat:nix", app=client_app)
    with pytest.raises(KeyError, match="redbeat:nix"):
        RedBeatSchedulerEntry.load_definition("redbeat:nix", app=client_app)
    assert RedBeatSchedulerEntry.load_meta("redbeat:nix", app=client_app) == {"last_run_at": None}


def test_an_entry_without_meta_never_ran(client_app: Celery, client: redis.Redis) -> None:
    """Other languages write the definition alone, and leave fields out."""
    definition = {
        "name": "raw",
        "task": "tasks.add",
        "schedule": {"__type__": "interval", "every": 60},
    }
    client.hset("redbeat:raw", "definition", json.dumps(definition))
    entry = RedBeatSchedulerEntry.from_key("redbeat:raw", app=client_app)
    assert entry.last_run_at is None
    assert entry.due_at is not None
    assert entry.due_at <= datetime.now(UTC)
    assert entry.is_due() == (True, 60)


def test_saving_again_keeps_the_history_and_the_timer(
    client_app: Celery, client: redis.Redis
) -> None:
    """Changed 45 minutes into an hour, it is due in 15."""
    make(client_app, every=3600, last_run_at=minutes_ago(45), total_run_count=7).save()
    changed = make(client_app, every=3600, args=[2]).save()
    score = score_of(client, changed)
    assert score is not None
    assert timedelta(seconds=score - datetime.now(UTC).timestamp()) == pytest.approx(
        timedelta(minutes=15), abs=timedelta(seconds=2)
    )
    assert RedBeatSchedulerEntry.from_key(changed.key, app=client_app).total_run_count == 7


def test_a_run_that_comes_between_reading_and_writing_is_not_lost(client_app: Celery) -> None:
    """The score is computed again, from the run that was recorded meanwhile."""
    entry = make(client_app, last_run_at=minutes_ago(10)).save()

    class Racing(RedBeatSchedulerEntry):
        raced = False

        def encode_meta(self) -> str:
            if not Racing.raced:
                Racing.raced = True
                entry.next()
            return super().encode_meta()

    Racing("one", "tasks.add", schedule(60), app=client_app).save()
    stored = RedBeatSchedulerEntry.from_key(entry.key, app=client_app)
    assert stored.total_run_count == 1
    assert stored.rank == 0
    assert stored.due_at is not None
    assert stored.due_at > datetime.now(UTC) + timedelta(seconds=50)


def test_deleting_leaves_nothing(client_app: Celery, client: redis.Redis) -> None:
    """Neither hash nor member."""
    entry = make(client_app).save()
    assert entry.rank == 0
    entry.delete()
    assert client.keys("*") == []
    assert entry.rank is None


def test_the_next_instance_is_stored_and_counts(client_app: Celery, client: redis.Redis) -> None:
    """`next`, `__next__` and `_next_instance` are one."""
    entry = make(client_app, last_run_at=minutes_ago(10)).save()
    advanced = next(entry)
    assert advanced.total_run_count == 1
    assert advanced.last_run_at is not None
    assert entry.last_run_at is not None
    assert advanced.last_run_at > entry.last_run_at
    assert score_of(client, entry) == advanced.score
    assert RedBeatSchedulerEntry.from_key(entry.key, app=client_app).total_run_count == 1
    quiet = advanced.next(only_update_last_run_at=True)
    assert quiet.total_run_count == 1
    given = datetime(2026, 1, 1, tzinfo=UTC)
    for name in ("next", "__next__", "_next_instance"):
        assert getattr(advanced, name)(last_run_at=given).last_run_at == given


def test_next_and_reschedule_work_on_an_entry_that_was_never_saved(
    client_app: Celery, client: redis.Redis
) -> None:
    """They store its meta and its score."""
    assert make(client_app).next().total_run_count == 1
    assert score_of(client, make(client_app)) is not None
    make(client_app, "two").reschedule()
    assert client.zcard(SCHEDULE) == 2


def test_rescheduling_counts_from_the_given_run_and_keeps_the_count(
    client_app: Celery, client: redis.Redis
) -> None:
    """The interval starts over; the history stays."""
    entry = make(client_app, every=3600, last_run_at=minutes_ago(120), total_run_count=3).save()
    entry.reschedule(minutes_ago(30))
    score = score_of(client, entry)
    assert score is not None
    assert score - datetime.now(UTC).timestamp() == pytest.approx(1800, abs=2)
    assert RedBeatSchedulerEntry.from_key(entry.key, app=client_app).total_run_count == 3


def test_an_entry_that_ran_this_instant_is_due_within_its_interval(client_app: Celery) -> None:
    """The clock is read before the remaining time is computed."""
    entry = make(client_app)
    ran = datetime.now(UTC)
    entry.last_run_at = ran
    due = entry.due_at
    assert due is not None
    assert ran < due < ran + timedelta(seconds=60)


@pytest.mark.parametrize("last_run_at", [datetime.min, datetime(2020, 1, 1)])
def test_an_overdue_entry_is_due_now(client_app: Celery, last_run_at: datetime) -> None:
    """A naive time is taken as UTC, and the earliest possible one does not overflow."""
    entry = make(client_app)
    entry.last_run_at = last_run_at
    before = datetime.now(UTC)
    due = entry.due_at
    assert due is not None
    assert before <= due <= datetime.now(UTC)
    entry.save()
    assert entry.next().due_at is not None


def test_nothing_left_to_run_is_a_negative_score(client_app: Celery, client: redis.Redis) -> None:
    """Which is never due."""
    over = rrule("DAILY", dtstart=datetime(2020, 1, 1, tzinfo=UTC), count=1, app=client_app)
    entry = RedBeatSchedulerEntry("over", "tasks.add", over, app=client_app)
    assert entry.due_at is None
    assert entry.score == -1
    assert score_of(client, entry.save()) == -1


def test_a_disabled_entry_is_not_due(client_app: Celery) -> None:
    """It is asked again in five seconds."""
    assert make(client_app, enabled=False, last_run_at=minutes_ago(9)).is_due() == (False, 5.0)


def test_names_become_text_and_keys_come_from_generate_key(client_app: Celery) -> None:
    """Subclasses override how keys are made."""

    class Tenants(RedBeatSchedulerEntry):
        @staticmethod
        def generate_key(app: Any, name: str) -> str:
            return f"tenant:{name}"

    entry = Tenants(5, "tasks.add", 60, app=client_app)
    assert (entry.name, entry.key) == ("5", "tenant:5")


def test_an_entry_can_be_copied_and_pickled(client_app: Celery) -> None:
    """Every field survives."""
    entry = make(client_app, args=[1], enabled=False, total_run_count=3)
    assert vars(copy.copy(entry)) == vars(entry)
    client_app.redbeat_redis = None
    thawed = pickle.loads(pickle.dumps(entry))
    assert (thawed.name, thawed.enabled, thawed.total_run_count) == ("one", False, 3)


def test_no_task_is_refused_at_save(client_app: Celery, client: redis.Redis) -> None:
    """The error names the entry."""
    with pytest.raises(EntryError, match=r"'one'.*task"):
        RedBeatSchedulerEntry("one", None, schedule(60), app=client_app).save()
    assert client.keys("*") == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", 5),
        ("args", 7),
        ("args", datetime(2026, 1, 1, tzinfo=UTC)),
        ("kwargs", [1]),
        ("kwargs", "x=1"),
        ("options", [1]),
        ("options", 5),
        ("last_run_at", "yesterday"),
        ("total_run_count", "many"),
    ],
)
def test_what_can_never_be_sent_is_refused_at_save_by_its_name(
    client_app: Celery, client: redis.Redis, field: str, value: Any
) -> None:
    fields: dict[str, Any] = {"task": "tasks.add", "schedule": 60, field: value}
    with pytest.raises(EntryError, match=f"'one' cannot be stored: its {field} must be .*, got"):
        RedBeatSchedulerEntry("one", app=client_app, **fields).save()
    assert not client.keys("*")


class Keywords(dict[str, Any]):
    """A mapping of an application."""


@pytest.mark.parametrize(
    "fields",
    [
        {"args": (1, 2)},
        {"args": (), "kwargs": Keywords(b=2), "options": Keywords(queue="q")},
        {"args": None, "kwargs": None, "options": None},
        {"args": 0, "kwargs": [], "options": ""},
        {"args": "ab"},
        {"args": {"a": 1}},
        {"args": b"ab"},
        {"args": signature("tasks.add"), "kwargs": signature("tasks.add")},
        {"total_run_count": None, "last_run_at": None},
        {"enabled": 1},
    ],
)
def test_what_celery_can_send_is_stored(client_app: Celery, fields: dict[str, Any]) -> None:
    """Whatever it takes for arguments and keywords, and for none of them."""
    make(client_app, **fields).save()
    assert RedBeatSchedulerEntry.from_key("redbeat:one", app=client_app).enabled


@pytest.mark.parametrize("field", ["args", "kwargs", "options"])
def test_what_json_cannot_hold_is_refused_at_save(
    client_app: Celery, client: redis.Redis, field: str
) -> None:
    """The error names the entry and the argument; it is a `TypeError` and a `ValueError`."""
    value: Any = [object()] if field == "args" else {"a": object()}
    with pytest.raises(EntryError, match=rf"'one'.*{field}") as error:
        make(client_app, **{field: value}).save()
    assert isinstance(error.value, TypeError)
    assert client.keys("*") == []


def test_saving_costs_one_round_trip_for_a_new_entry_and_two_for_a_stored_one(
    make_app_with: Any, proxy: Proxy
) -> None:
    """The second one writes it again, with the stored history."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    make(app, name="first").save()
    entry = make(app)
    for cost in (1, 2):
        with proxy.counting() as traffic:
            entry.save()
        assert traffic.round_trips == cost


@pytest.mark.parametrize(
    ("act", "cost"),
    [
        (lambda entry: entry.delete(), 1),
        (lambda entry: entry.next(), 1),
        (lambda entry: entry.reschedule(), 1),
        (lambda entry: entry.rank, 1),
        (lambda entry: RedBeatSchedulerEntry.from_key(entry.key, app=entry.app), 1),
    ],
)
def test_each_operation_costs_what_its_docstring_says(
    make_app_with: Any, proxy: Proxy, act: Any, cost: int
) -> None:
    """Counted on the wire, once the server knows the scripts."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    act(make(app).save())
    entry = make(app).save()
    with proxy.counting() as traffic:
        act(entry)
    assert traffic.round_trips == cost


def test_crontabs_are_stored_as_they_were_written(client_app: Celery, client: redis.Redis) -> None:
    """In the contract's order of keys."""
    RedBeatSchedulerEntry("c", "tasks.add", crontab(minute="*/5"), app=client_app).save()
    assert (
        '"schedule": {"__type__": "crontab", "minute": "*/5", "hour": "*", "day_of_week": "*", '
        '"day_of_month": "*", "month_of_year": "*"}'
    ) in str(client.hget("redbeat:c", "definition"))


# What due_at, score and is_due go by


@pytest.mark.parametrize("record", ["given", "reschedule", "next"])
def test_a_rule_whose_run_was_recorded_at_its_slot_waits_for_the_next_one(
    app: Celery, record: str
) -> None:
    """Also if no run was counted."""
    slot = datetime.now(UTC).replace(second=0, microsecond=0)
    rule = rrule("MINUTELY", dtstart=slot - timedelta(hours=5))
    entry = RedBeatSchedulerEntry("one", "tasks.add", rule, app=app, last_run_at=slot)
    if record == "reschedule":
        entry.reschedule(slot)
    if record == "next":
        entry = entry.next(slot, only_update_last_run_at=True)
    assert not entry.is_due()[0]
    assert entry.due_at == slot + timedelta(minutes=1)


FROZEN = datetime(2020, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("microsecond", [0, 1, 500_000])
def test_a_rule_that_starts_now_is_due_now_at_any_fraction_of_a_second(
    app: Celery, monkeypatch: pytest.MonkeyPatch, microsecond: int
) -> None:
    """Also where an application's test has frozen the time."""
    now = FROZEN.replace(microsecond=microsecond)
    monkeypatch.setattr("celery.Celery.now", lambda self: now)
    rule = rrule("DAILY", count=1, dtstart=now, app=app)
    entry = RedBeatSchedulerEntry("one", "tasks.add", rule, app=app).save()
    assert entry.score == FROZEN.timestamp()
    assert RedBeatSchedulerEntry.from_key(entry.key, app=app).is_due()[0]


def test_an_entry_is_read_by_the_bytes_of_a_client_that_decodes_nothing(app: Celery) -> None:
    """As `zrange` of an application's own client gives them."""
    make(app).save()
    assert RedBeatSchedulerEntry.from_key(b"redbeat:one", app=app).name == "one"  # type: ignore[arg-type]  # that is the test
    with pytest.raises(KeyError) as error:
        RedBeatSchedulerEntry.from_key(b"redbeat:none", app=app)  # type: ignore[arg-type]  # likewise
    assert error.value.args == (b"redbeat:none",)
    definition = RedBeatSchedulerEntry.decode_definition(b'{"name": "one"}')  # type: ignore[arg-type]  # likewise
    assert definition == {"name": "one"}
    meta = RedBeatSchedulerEntry.decode_meta(b'{"last_run_at": null}')  # type: ignore[arg-type]  # likewise
    assert meta == {"last_run_at": None}


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("celery.Celery.now", FROZEN),
        ("celery.schedules.schedule.now", FROZEN),
        ("celery.schedules.schedule.remaining_estimate", timedelta(seconds=5000)),
    ],
)
def test_the_score_that_is_stored_is_that_of_the_entry_by_whatever_clock(
    client_app: Celery,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    answer: Any,
) -> None:
    """Patched as tests of applications do it."""
    monkeypatch.setattr(target, lambda *args: answer)
    entry = make(client_app, last_run_at=FROZEN)
    # What remains counts from a clock that may go on to the next second.
    before = entry.score
    entry.save()
    stored = score_of(client, entry)
    assert stored is not None
    assert before <= stored <= entry.score


@pytest.mark.parametrize(("name", "answer"), [("due_at", FROZEN), ("score", 12345)])
def test_the_score_that_is_stored_is_that_of_a_subclass(
    client_app: Celery, client: redis.Redis, name: str, answer: Any
) -> None:
    """It may spread what is due at the same time."""
    subclass = type("Spread", (RedBeatSchedulerEntry,), {name: property(lambda self: answer)})
    entry = subclass("one", "tasks.add", schedule(60), app=client_app).save()
    assert score_of(client, entry) == entry.score


@pytest.mark.parametrize(
    "rule", [schedule(60), crontab(), rrule("DAILY", dtstart=FROZEN)], ids=repr
)
@pytest.mark.parametrize(
    ("remaining", "from_now"), [(timedelta(seconds=5000), 5000), (None, None)], ids=str
)
def test_due_at_follows_a_patched_schedule(
    app: Celery, monkeypatch: pytest.MonkeyPatch, rule: Any, remaining: Any, from_now: float | None
) -> None:
    """Patched on its class, as tests do."""
    monkeypatch.setattr(type(rule), "remaining_estimate", lambda *args: remaining)
    now = datetime.now(UTC)
    entry = RedBeatSchedulerEntry("one", "tasks.add", rule, app=app, last_run_at=now)
    due_at = entry.due_at
    if from_now is None:
        assert due_at is None
        assert entry.score == -1
    else:
        assert due_at is not None
        assert (due_at - now).total_seconds() == pytest.approx(from_now, abs=5)


@pytest.mark.parametrize("rule", [schedule(60), crontab()], ids=repr)
def test_is_due_follows_a_patched_schedule(
    app: Celery, monkeypatch: pytest.MonkeyPatch, rule: Any
) -> None:
    monkeypatch.setattr(type(rule), "is_due", lambda *args: schedstate(True, 7))
    now = datetime.now(UTC)
    entry = RedBeatSchedulerEntry("one", "tasks.add", rule, app=app, last_run_at=now)
    assert entry.is_due() == (True, 7)


def test_is_due_returns_a_schedstate(app: Celery) -> None:
    """As Celery's entries do."""
    for is_enabled in (True, False):
        state: Any = make(app, enabled=is_enabled).is_due()
        assert state == (state.is_due, state.next)
