"""Which clock and zone a schedule follows: those of the entry's application, or its own."""

import copy
import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatSchedulerEntry, Timetable
from redbeat.schedules import crontab as zoned_crontab
from redbeat.schedules import once, rrule
from redbeat.timing.due import next_due
from redbeat.tools.arguments import read_cron, read_rrule
from support.apps import MakeApp

UTC = timezone.utc
TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
KEY = "redbeat:noon"


def in_web_view(act: Callable[[], Any]) -> Any:
    """Return the result of `act` in a thread that did not make the application."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(act())
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@pytest.fixture
def tokyo(make_app_with: MakeApp, redis_url: str) -> Celery:
    return make_app_with(redbeat_redis_url=redis_url, timezone="Asia/Tokyo")


@pytest.fixture
def berlin(make_app_with: MakeApp, redis_url: str) -> Celery:
    return make_app_with(redbeat_redis_url=redis_url, timezone="Europe/Berlin")


def stored_due(client: redis.Redis, key: str = KEY) -> datetime:
    score = client.zscore("redbeat::schedule", key)
    assert score is not None
    return datetime.fromtimestamp(float(score), UTC)


def entry(app: Celery, rule: Any = 3600) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry("noon", "tasks.noon", rule, app=app)


def noon() -> Any:
    return crontab(minute=0, hour=12)


def used_noon() -> Any:
    """A crontab that was used before, so that Celery has cached the default app's zone in it."""
    used = noon()
    used.remaining_estimate(datetime.now(UTC))
    assert used.tz != TOKYO
    return used


def rule_of_noon(**given: Any) -> Any:
    return rrule("DAILY", byhour=12, byminute=0, bysecond=0, **given)


NOONS: list[Callable[[], Any]] = [
    noon,
    used_noon,
    lambda: zoned_crontab(minute=0, hour=12),
    rule_of_noon,
    lambda: rule_of_noon(dtstart=datetime(2026, 1, 1)),
    lambda: rrule.from_string("RRULE:FREQ=DAILY;BYHOUR=12;BYMINUTE=0;BYSECOND=0"),
    lambda: rrule.from_string("DTSTART:20260101T120000\nRRULE:FREQ=DAILY"),
    lambda: rrule.from_string("DTSTART:20260101T120000\nRRULE:FREQ=DAILY\nEXDATE:20260102T120000"),
    lambda: rrule.from_string("DTSTART:20260101T120000\nRRULE:FREQ=DAILY\nRDATE:20260102T120000"),
]


@pytest.mark.parametrize("make", NOONS)
def test_an_assigned_schedule_follows_the_app_of_its_entry(
    tokyo: Celery, redis_client: redis.Redis, make: Callable[[], Any]
) -> None:
    """Noon in Tokyo is 03:00Z, also in a thread with another current application."""

    def assign() -> None:
        entry(tokyo).save()
        stored = RedBeatSchedulerEntry.from_key(KEY, app=tokyo)
        stored.schedule = make()
        stored.save()

    in_web_view(assign)
    assert stored_due(redis_client).time().isoformat() == "03:00:00"
    (run,) = in_web_view(lambda: list(Timetable(tokyo).upcoming(limit=1)))
    assert run.due_at == stored_due(redis_client)


@pytest.mark.parametrize("make", NOONS)
def test_a_schedule_given_to_the_constructor_follows_the_app_of_the_entry(
    tokyo: Celery, redis_client: redis.Redis, make: Callable[[], Any]
) -> None:
    in_web_view(lambda: entry(tokyo, make()).save())
    assert stored_due(redis_client).time().isoformat() == "03:00:00"


@pytest.mark.parametrize("make", NOONS)
def test_a_schedule_of_another_app_follows_the_app_of_its_entry(
    tokyo: Celery, berlin: Celery, redis_client: redis.Redis, make: Callable[[], Any]
) -> None:
    """As in Celery's `maybe_schedule`, the app that it had before does not count."""
    taken = entry(berlin, make())
    assert taken.due_at
    in_web_view(lambda: entry(tokyo, taken.schedule).save())
    assert stored_due(redis_client).time().isoformat() == "03:00:00"
    other = entry(tokyo)
    other.update(entry(berlin, make()))
    in_web_view(other.save)
    assert stored_due(redis_client).time().isoformat() == "03:00:00"


def test_an_edited_and_a_copied_entry_follow_their_app(
    tokyo: Celery, redis_client: redis.Redis
) -> None:
    entry(tokyo).save()

    def edit() -> None:
        Timetable(tokyo).edit(["noon"], lambda each: setattr(each, "schedule", used_noon()))

    in_web_view(edit)
    assert stored_due(redis_client).hour == 3
    original = entry(tokyo)
    original.schedule = used_noon()
    twin = copy.copy(original)
    twin.name = "twin"
    in_web_view(twin.save)
    assert stored_due(redis_client, "redbeat:twin").hour == 3


def test_a_schedule_written_in_floating_text_follows_the_app_that_reads_it(
    tokyo: Celery, redis_client: redis.Redis
) -> None:
    text = "DTSTART:20260101T120000\nRRULE:FREQ=DAILY\nEXDATE:20260102T120000"
    definition = {
        "name": "noon",
        "task": "tasks.noon",
        "schedule": {"__type__": "rruleset", "text": text},
    }
    redis_client.hset(KEY, "definition", json.dumps(definition))
    stored = in_web_view(lambda: RedBeatSchedulerEntry.from_key(KEY, app=tokyo))
    due = in_web_view(lambda: stored.due_at)
    assert due.astimezone(UTC).hour == 3
    excluded = datetime(2026, 1, 2, tzinfo=UTC)
    found = next_due(stored.schedule, excluded, excluded)
    assert found == datetime(2026, 1, 3, 3, tzinfo=UTC)


def test_a_relative_interval_ends_with_the_day_of_its_app(
    tokyo: Celery, redis_client: redis.Redis
) -> None:
    def save() -> None:
        day = entry(tokyo)
        day.schedule = schedule(timedelta(days=1), relative=True)
        day.save()

    in_web_view(save)
    assert stored_due(redis_client).time().isoformat() == "15:00:00"


@pytest.mark.parametrize("every", [90, 90.0, timedelta(seconds=90)])
def test_seconds_and_a_timedelta_that_are_assigned_become_an_interval(
    tokyo: Celery, every: Any
) -> None:
    changed = entry(tokyo)
    changed.schedule = every
    assert changed.schedule == schedule(90)
    changed.save()
    assert RedBeatSchedulerEntry.from_key(KEY, app=tokyo).schedule == schedule(90)


def test_an_object_that_is_not_a_schedule_is_refused_at_save(tokyo: Celery) -> None:
    changed = entry(tokyo)
    changed.schedule = "every minute"
    with pytest.raises(ValueError, match="its schedule must be one of Celery's"):
        changed.save()


def test_the_fields_of_an_entry_are_those_of_celery(tokyo: Celery) -> None:
    """Celery and subclasses copy entries by `vars` and by iterating."""
    rule = noon()
    made = entry(tokyo, rule)
    assert vars(made)["schedule"] is rule
    assert dict(made)["schedule"] is rule
    assert next(made).schedule is rule


class Noted(RedBeatSchedulerEntry):
    """A subclass with an extra field, as applications have them."""

    def __init__(self, *args: Any, note: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.note = note


def test_entries_of_a_subclass_are_copied_and_advanced_with_their_schedules(tokyo: Celery) -> None:
    made = Noted("noon", "tasks.noon", used_noon(), app=tokyo, note="x")
    for other in (copy.copy(made), next(made)):
        assert (other.note, other.schedule.tz) == ("x", TOKYO)


@pytest.mark.parametrize(
    "read",
    [
        lambda: read_cron("0 12 * * *", None),
        lambda: read_rrule("FREQ=DAILY;BYHOUR=12;BYMINUTE=0;BYSECOND=0", None),
        lambda: read_rrule(r"DTSTART:20260101T120000\nRRULE:FREQ=DAILY", None),
    ],
)
def test_a_time_without_a_zone_follows_the_app(
    tokyo: Celery, redis_client: redis.Redis, read: Callable[[], Any]
) -> None:
    timetable = Timetable(tokyo)
    fields = {"task": "tasks.noon", "schedule": in_web_view(read)}
    timetable["noon"] = in_web_view(lambda: timetable.build("noon", fields))
    assert stored_due(redis_client).hour == 3


# Zones of its own


class Tokyo(crontab):  # type: ignore[misc]  # Celery has no types
    """A subclass that sets the zone as a class attribute."""

    tz = TOKYO


class Branch(crontab):  # type: ignore[misc]  # Celery has no types
    """A subclass whose zone is a property."""

    city = "Tokyo"

    @property
    def tz(self) -> Any:
        return ZoneInfo(f"Asia/{self.city}")


class Given(crontab):  # type: ignore[misc]  # Celery has no types
    """A subclass whose constructor takes a zone."""

    def __init__(self, *args: Any, tz: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tz = tz


def with_zone(rule: Any, zone: Any) -> Any:
    rule.tz = zone
    return rule


OWN_ZONES: list[Callable[[], Any]] = [
    lambda: with_zone(noon(), TOKYO),
    lambda: with_zone(zoned_crontab(minute=0, hour=12), TOKYO),
    lambda: with_zone(zoned_crontab(minute=0, hour=12, tz="UTC"), TOKYO),
    lambda: Tokyo(minute=0, hour=12),
    lambda: Branch(minute=0, hour=12),
    lambda: Given(minute=0, hour=12, tz=TOKYO),
]


@pytest.mark.parametrize("make", OWN_ZONES)
def test_a_crontab_keeps_its_own_zone(
    berlin: Celery, redis_client: redis.Redis, make: Callable[[], Any]
) -> None:
    """It is stored as our crontab with that zone."""
    in_web_view(lambda: entry(berlin, make()).save())
    assert stored_due(redis_client).hour == 3
    definition = json.loads(str(redis_client.hget(KEY, "definition")))
    assert definition["schedule"]["tz"] == "Asia/Tokyo"
    again = RedBeatSchedulerEntry.from_key(KEY, app=berlin)
    assert again.schedule == zoned_crontab(minute=0, hour=12, tz="Asia/Tokyo")
    assert again.save().due_at == stored_due(redis_client)


def test_a_zone_of_pytz_or_a_fixed_offset_is_kept_too(
    berlin: Celery, redis_client: redis.Redis
) -> None:
    pytz = pytest.importorskip("pytz")
    for zone, stored in ((pytz.timezone("Asia/Tokyo"), "Asia/Tokyo"), (UTC, 0)):
        entry(berlin, with_zone(noon(), zone)).save()
        definition = json.loads(str(redis_client.hget(KEY, "definition")))
        assert definition["schedule"]["tz"] == stored


def test_the_zone_of_the_app_is_not_stored(berlin: Celery, redis_client: redis.Redis) -> None:
    """Otherwise 2.x could not read the schedule, and it would not move with the application."""
    made = entry(berlin, noon())
    assert made.due_at
    assert made.schedule.tz == BERLIN
    made.save()
    definition = json.loads(str(redis_client.hget(KEY, "definition")))
    assert "tz" not in definition["schedule"]


def test_a_relative_interval_keeps_its_own_zone(berlin: Celery, redis_client: redis.Redis) -> None:
    day = with_zone(schedule(timedelta(days=1), relative=True), TOKYO)
    entry(berlin, day).save()
    assert stored_due(redis_client).time().isoformat() == "15:00:00"
    again = RedBeatSchedulerEntry.from_key(KEY, app=berlin)
    again.save()
    assert stored_due(redis_client).time().isoformat() == "15:00:00"


def test_schedules_of_django_celery_beat_are_stored_as_ours(
    berlin: Celery, redis_client: redis.Redis
) -> None:
    clockeds = pytest.importorskip("django_celery_beat.clockedschedule")
    crontabs = pytest.importorskip("django_celery_beat.tzcrontab")
    moment = datetime(2040, 1, 1, 12, tzinfo=TOKYO)
    zoned = crontabs.TzAwareCrontab(minute=0, hour=12, tz=TOKYO, app=berlin)
    cases = [
        (clockeds.clocked(moment), once(moment), moment),
        (zoned, zoned_crontab(minute=0, hour=12, tz=TOKYO), None),
    ]
    for theirs, ours, due_at in cases:
        entry(berlin, theirs).save()
        again = RedBeatSchedulerEntry.from_key(KEY, app=berlin)
        assert again.schedule == ours
        assert stored_due(redis_client) == again.due_at
        assert due_at is None or due_at == again.due_at
        changed = entry(berlin)
        changed.schedule = theirs
        assert changed.schedule == ours
