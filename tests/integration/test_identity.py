"""Runs that bear an identity, as the setting `redbeat_identify_runs` asks for."""

import copy
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any

import pytest
import redis
from celery import Celery
from celery.beat import BeatLazyFunc, ScheduleEntry
from celery.schedules import BaseSchedule, crontab, schedstate, schedule, solar
from celery.signals import before_task_publish

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.decoder import register_codec
from redbeat.schedules import once, rrule
from support.bare import write_bare
from support.entries import SCHEDULE, due, overdue, stored
from support.messages import Message, read_messages
from support.wire import Proxy

UTC = timezone.utc
HOUR = timedelta(hours=1)
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)
INTERVAL = {"__type__": "interval", "every": 3600.0, "relative": False}
RELATIVE = INTERVAL | {"relative": True}
CRONTAB = {"__type__": "crontab", "minute": "*"}
#: A full minute, some years ago.
SCORE = 1_700_000_040
#: More whole seconds than any lease lasts.
LEASE = 1000


class OnRequest(schedule):  # type: ignore[misc]  # Celery has no types
    """Is due by rules of its own."""

    def is_due(self, last_run_at: datetime) -> schedstate:
        return schedstate(True, 60)


class Wayward(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """Asks a clock of its own at each look."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return last_run_at + HOUR - datetime.now(UTC)

    def is_due(self, last_run_at: datetime) -> schedstate:
        return schedstate(True, 60)


def ahead() -> datetime:
    """A clock that is half an hour ahead of the machine's."""
    return datetime.now(UTC) + HOUR / 2


class Early(schedule):  # type: ignore[misc]  # Celery has no types
    """Goes by the clock that is ahead."""

    def __init__(self) -> None:
        super().__init__(3600, nowfun=ahead)


register_codec("early", Early, lambda rule: {}, lambda fields: Early())
register_codec("on-request", OnRequest, lambda rule: {}, lambda fields: OnRequest(3600))
register_codec("wayward", Wayward, lambda rule: {}, lambda fields: Wayward())


@pytest.fixture
def identifying(app: Celery, redis_url: str) -> Celery:
    """An application whose runs have identities, and whose queue is where the test sees it."""
    app.conf.update(broker_url=redis_url, redbeat_lock_key=None, redbeat_identify_runs=True)
    return app


MakeScheduler = Callable[..., RedBeatScheduler]


@pytest.fixture
def make_scheduler(identifying: Celery) -> Iterator[MakeScheduler]:
    """Make a scheduler of a class: `make_scheduler(Tenants)`."""
    made: list[RedBeatScheduler] = []

    def make(cls: type[RedBeatScheduler] = RedBeatScheduler) -> RedBeatScheduler:
        made.append(cls(identifying))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def scheduler(make_scheduler: MakeScheduler) -> RedBeatScheduler:
    """A scheduler as it is."""
    return make_scheduler()


def send(scheduler: RedBeatScheduler, client: redis.Redis) -> list[Message]:
    """Tick, and take what was sent out of the queue."""
    scheduler.tick()
    messages = read_messages(client)
    client.delete("celery")
    return messages


def send_and_die(
    scheduler: RedBeatScheduler, client: redis.Redis, name: str = "a"
) -> list[Message]:
    """Send as a beat that is killed before its commit, and let the lease run out.

    So there is left what Redis held when the message went out; a lease has a fraction of its own.
    """
    key = f"redbeat:{name}"
    seen: dict[str, Any] = {}

    def look(**kwargs: Any) -> None:
        seen.update(fields=client.hgetall(key), score=client.zscore(SCHEDULE, key))

    before_task_publish.connect(look)
    try:
        messages = send(scheduler, client)
    finally:
        before_task_publish.disconnect(look)
    client.delete(key)
    client.hset(key, mapping=seen["fields"])
    client.zadd(SCHEDULE, {key: seen["score"] - LEASE})
    return messages


def identities(messages: list[Message]) -> list[tuple[str, str | None]]:
    """The id and the slot of each message."""
    return [(each.headers["id"], each.headers.get("scheduled_at")) for each in messages]


def slot_of(message: Message) -> datetime:
    """The slot that a message names."""
    return datetime.fromisoformat(message.headers["scheduled_at"])


# The slot


def test_a_run_names_its_entry_and_its_slot(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    entry = due(scheduler.app, "a")
    assert entry.last_run_at is not None
    (message,) = send(scheduler, redis_client)
    assert message.headers["periodic_task_name"] == "a"
    assert message.headers["scheduled_at"].endswith("+00:00")
    assert slot_of(message) == entry.last_run_at + HOUR


@pytest.mark.parametrize("rule", [schedule(60), crontab(), rrule("MINUTELY", LONG_AGO)])
def test_a_run_after_an_outage_names_the_slot_that_was_missed_and_the_next_one_a_new_slot(
    scheduler: RedBeatScheduler, redis_client: redis.Redis, rule: Any
) -> None:
    """However late it is sent."""
    ran = datetime.now(UTC).replace(second=0, microsecond=0) - 10 * HOUR
    RedBeatSchedulerEntry("a", "t", rule, app=scheduler.app, last_run_at=ran).save()
    entry = stored(scheduler.app, "a")
    slot = entry.next_due(datetime.now(UTC))
    (first,) = send(scheduler, redis_client)
    assert slot_of(first) == slot
    stored(scheduler.app, "a").reschedule(datetime.now(UTC) - HOUR)
    (second,) = send(scheduler, redis_client)
    assert slot_of(second) > slot_of(first) + HOUR
    assert first.headers["id"] != second.headers["id"]


def test_an_entry_that_was_paused_runs_for_the_slot_that_it_had(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    entry = due(scheduler.app, "a")
    timetable = Timetable(scheduler.app)
    timetable.pause("a")
    assert send(scheduler, redis_client) == []
    timetable.resume("a")
    (message,) = send(scheduler, redis_client)
    assert entry.last_run_at is not None
    assert slot_of(message) == entry.last_run_at + HOUR


@pytest.mark.parametrize("lead", [0, 60])
def test_the_first_run_of_an_entry_without_a_history_has_its_slot_from_its_score(
    scheduler: RedBeatScheduler, redis_client: redis.Redis, lead: int
) -> None:
    """As another language writes it; zero means now."""
    began = datetime.now(UTC)
    score = int(began.timestamp()) - lead if lead else 0
    write_bare(redis_client, "a", INTERVAL, score)
    (message,) = send(scheduler, redis_client)
    if score:
        assert slot_of(message).timestamp() == score
    else:
        assert began <= slot_of(message) <= datetime.now(UTC)
    assert stored(scheduler.app, "a").total_run_count == 1


def test_an_interval_without_a_history_keeps_none_from_a_tick_without_identities(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    """What a beat notes before a run is noted for the identity only."""
    scheduler.app.redbeat_conf.identify_runs = False
    write_bare(redis_client, "a", INTERVAL, 0)
    send_and_die(scheduler, redis_client)
    assert redis_client.hget("redbeat:a", "meta") is None


# Duplicates


@pytest.mark.parametrize(
    "rule",
    [
        schedule(3600),
        schedule(3600, relative=True),
        crontab(),
        rrule("HOURLY", LONG_AGO),
        once(LONG_AGO),
        solar("solar_noon", 52.5, 13.4),
        OnRequest(3600),
    ],
    ids=["interval", "relative", "crontab", "rrule", "once", "solar", "own is_due"],
)
def test_a_run_that_is_sent_twice_has_the_same_identity(
    scheduler: RedBeatScheduler, redis_client: redis.Redis, make_scheduler: MakeScheduler, rule: Any
) -> None:
    """By a beat that is killed before its commit, and by the one that takes over."""
    overdue(scheduler.app, "a", rule)
    first = send_and_die(scheduler, redis_client)
    second = send(make_scheduler(), redis_client)
    assert len(first) == 1
    assert first[0].headers["scheduled_at"]
    assert identities(first) == identities(second)


@pytest.mark.parametrize(
    ("rule", "score"),
    [
        *product([INTERVAL, RELATIVE], [0, SCORE, SCORE + 0.25, SCORE + 0.75]),
        (CRONTAB, SCORE),
        (CRONTAB, SCORE + 0.25),
    ],
)
def test_a_first_run_that_is_sent_twice_has_the_same_identity(
    scheduler: RedBeatScheduler,
    redis_client: redis.Redis,
    make_scheduler: MakeScheduler,
    rule: dict[str, Any],
    score: float,
) -> None:
    """A claim replaces the score, which is all that says when an entry without meta is due.

    A score with a fraction is the lease of a beat that was killed before.
    """
    write_bare(redis_client, "a", rule, score)
    first = send_and_die(scheduler, redis_client)
    second = send(make_scheduler(), redis_client)
    assert len(first) == 1
    assert first[0].headers["scheduled_at"]
    assert identities(first) == identities(second)


@pytest.mark.parametrize("has_run", [True, False])
def test_a_run_whose_slot_cannot_be_told_has_the_same_id_and_no_slot(
    scheduler: RedBeatScheduler,
    redis_client: redis.Redis,
    make_scheduler: MakeScheduler,
    has_run: bool,
) -> None:
    """A schedule that asks a clock of its own gives another instant at each look."""
    if has_run:
        overdue(scheduler.app, "a", Wayward())
    else:
        write_bare(redis_client, "a", {"__type__": "on-request"}, 0)
    first = send_and_die(scheduler, redis_client)
    second = send(make_scheduler(), redis_client)
    assert len(first) == 1
    assert first[0].headers.get("scheduled_at") is None
    assert first[0].headers["periodic_task_name"] == "a"
    assert identities(first) == identities(second)


def test_a_run_before_its_slot_does_not_take_the_identity_of_the_slot(
    make_scheduler: MakeScheduler, redis_client: redis.Redis
) -> None:
    """The override of an entry may let it run early; the run of the slot is another one."""

    class Eager(RedBeatSchedulerEntry):
        def is_due(self) -> tuple[bool, float | None]:
            return True, 60.0

    class Scheduler(RedBeatScheduler):
        Entry = Eager

    scheduler = make_scheduler(Scheduler)
    yearly = crontab(minute=0, hour=0, day_of_month=1, month_of_year=1)
    RedBeatSchedulerEntry("a", "t", yearly, app=scheduler.app).save()
    sent = []
    for _ in range(2):
        redis_client.zadd(SCHEDULE, {"redbeat:a": 1})
        sent += send(scheduler, redis_client)
    assert len({each.headers["id"] for each in sent}) == 2
    assert not any("scheduled_at" in each.headers for each in sent)


@pytest.mark.parametrize("rule", [schedule(3600), Early()], ids=["clock", "class"])
def test_a_schedule_with_a_clock_that_is_ahead_has_its_slots_by_that_clock(
    make_scheduler: MakeScheduler, redis_client: redis.Redis, rule: Any
) -> None:
    """Its runs are not early by what it goes by."""

    class Ahead(RedBeatSchedulerEntry):
        @classmethod
        def from_key(cls, key: str, app: Any = None) -> Any:
            entry = super().from_key(key, app=app)
            entry.schedule.nowfun = ahead
            return entry

    class Scheduler(RedBeatScheduler):
        Entry = Ahead

    scheduler = make_scheduler(Scheduler)
    ran = datetime.now(UTC) - 3 * HOUR / 4
    RedBeatSchedulerEntry("a", "t", rule, app=scheduler.app, last_run_at=ran).save()
    redis_client.zadd(SCHEDULE, {"redbeat:a": 1})
    (message,) = send(scheduler, redis_client)
    assert slot_of(message) == ran + HOUR


def test_two_entries_have_two_ids_though_other_languages_wrote_them_the_same_name(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    for name in ("a", "b"):
        write_bare(redis_client, name, INTERVAL, SCORE)
        definition = json.dumps({"name": "same", "task": "t", "schedule": INTERVAL})
        redis_client.hset(f"redbeat:{name}", "definition", definition)
    sent = send(scheduler, redis_client)
    assert len({each.headers["id"] for each in sent}) == 2


def test_an_entry_is_sent_though_its_name_is_not_utf_8(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    definition = json.dumps({"task": "t", "schedule": INTERVAL})
    redis_client.hset(b"redbeat:caf\xe9", "definition", definition)
    redis_client.zadd(SCHEDULE, {b"redbeat:caf\xe9": 1})
    (message,) = send(scheduler, redis_client)
    assert message.headers["periodic_task_name"] == r"caf\udce9"


def test_identities_cost_a_round_trip_only_for_intervals_without_a_history(
    make_app_with: Any, redis_client: redis.Redis, proxy: Proxy
) -> None:
    settings = {"redbeat_redis_url": proxy.url(), "redbeat_lock_key": None}
    counts = []
    for identifies, has_history in [(False, True), (True, True), (True, False)]:
        app = make_app_with(**settings, redbeat_identify_runs=identifies)
        scheduler = RedBeatScheduler(app)
        scheduler.tick()
        for name in ("a", "b"):
            redis_client.delete(f"redbeat:{name}")
            if has_history:
                overdue(app, name)
            else:
                write_bare(redis_client, name, INTERVAL, 0)
        with proxy.counting() as traffic:
            scheduler.tick()
        counts.append(traffic.round_trips)
        scheduler.close()
    plain, with_history, without = counts
    assert (with_history, without) == (plain, plain + 1)


# What is stored, and what is given


OPTIONS: dict[str, Any] = {"queue": "celery", "headers": {"x": 1}}


def test_what_the_options_say_is_kept(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    headers = {"x": 1, "scheduled_at": "mine"}
    due(scheduler.app, "a", options={"task_id": "mine", "headers": headers})
    (message,) = send(scheduler, redis_client)
    assert message.headers["id"] == "mine"
    assert message.headers["x"] == 1
    assert message.headers["scheduled_at"] == "mine"
    assert message.headers["periodic_task_name"] == "a"


def test_nothing_of_an_identity_is_stored_though_overrides_store_what_they_get(
    make_scheduler: MakeScheduler, identifying: Celery
) -> None:
    """An id that was stored would be that of all runs to come."""
    ids: list[str] = []

    def take_down(headers: dict[str, Any], **kwargs: Any) -> None:
        ids.append(headers["id"])

    class Keeping(RedBeatSchedulerEntry):
        def next(self, *args: Any, **kwargs: Any) -> Any:
            return super().next(*args, **kwargs).save()

        __next__ = next

    class Scheduler(RedBeatScheduler):
        Entry = Keeping

        def reserve(self, entry: Any) -> Any:
            return super().reserve(entry.save()).save()

        def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
            result = super().apply_async(entry.save(), *args, **kwargs)
            entry.claim.advanced.save()
            return result

    identifying.conf.broker_url = "memory://"
    scheduler = make_scheduler(Scheduler)
    due(identifying, "a", options=OPTIONS)
    before_task_publish.connect(take_down)
    for hours in (3, 2):
        entry = stored(identifying, "a")
        assert entry.options == OPTIONS
        entry.reschedule(datetime.now(UTC) - hours * HOUR)
        scheduler.tick()
    before_task_publish.disconnect(take_down)
    assert len(set(ids)) == 2
    assert stored(identifying, "a").options == OPTIONS


def test_the_options_of_entries_that_an_override_shows_are_not_changed(
    make_scheduler: MakeScheduler, redis_client: redis.Redis
) -> None:
    """They may be those of the application's own objects."""
    options = copy.deepcopy(OPTIONS)

    class Scheduler(RedBeatScheduler):
        @property
        def schedule(self) -> dict[str, Any]:
            entry = stored(self.app, "a")
            entry.options = options
            return {"a": entry}

        @schedule.setter
        def schedule(self, schedule: Any) -> None:
            """Celery's base class assigns one."""

    scheduler = make_scheduler(Scheduler)
    entry = due(scheduler.app, "a")
    (message,) = send(scheduler, redis_client)
    assert options == OPTIONS
    assert message.headers["x"] == 1
    assert entry.last_run_at is not None
    assert slot_of(message) == entry.last_run_at + HOUR


def test_lazy_arguments_are_computed(
    identifying: Celery, make_scheduler: MakeScheduler, redis_client: redis.Redis
) -> None:
    args = (1, BeatLazyFunc(max, 2, 3))
    identifying.conf.beat_schedule = {"a": {"task": "t", "schedule": HOUR, "args": args}}
    scheduler = make_scheduler()
    stored(identifying, "a").reschedule(datetime.now(UTC) - 2 * HOUR)
    (message,) = send(scheduler, redis_client)
    assert message.args == [1, 3]
    assert message.headers["scheduled_at"]


# Overrides


def test_an_override_that_sends_a_run_several_times_gives_each_message_its_own_id(
    make_scheduler: MakeScheduler, redis_client: redis.Redis
) -> None:
    """One for each tenant; sent again, each has its id from before."""

    class Tenants(RedBeatScheduler):
        def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
            for tenant in ("acme", "umbrella"):
                entry.kwargs = {"tenant": tenant}
                result = super().apply_async(entry, *args, **kwargs)
            return result

    overdue(make_scheduler().app, "a")
    first = send_and_die(make_scheduler(Tenants), redis_client)
    second = send(make_scheduler(Tenants), redis_client)
    assert [each.kwargs["tenant"] for each in first] == ["acme", "umbrella"]
    assert len(set(identities(first))) == 2
    assert len({each.headers["scheduled_at"] for each in first}) == 1
    assert identities(first) == identities(second)


@pytest.mark.parametrize("sends_advanced", [True, False])
def test_an_override_that_reserves_by_itself_sends_the_identity_of_the_run(
    make_scheduler: MakeScheduler, redis_client: redis.Redis, sends_advanced: bool
) -> None:
    class Reserving(RedBeatScheduler):
        def apply_async(
            self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
        ) -> Any:
            advanced = self.reserve(entry)
            sent = advanced if sends_advanced else entry
            return super().apply_async(sent, producer, advance=False, **kwargs)

    overdue(make_scheduler().app, "a")
    first = send_and_die(make_scheduler(Reserving), redis_client)
    second = send(make_scheduler(), redis_client)
    assert first[0].headers["scheduled_at"]
    assert identities(first) == identities(second)


def test_a_tracker_that_patches_the_class_gets_the_scheduler_and_the_entry(
    scheduler: RedBeatScheduler, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = RedBeatScheduler.apply_async, []

    def traced(*args: Any, **kwargs: Any) -> Any:
        _, entry = args
        headers = entry.options.pop("headers", {})
        entry.options["headers"] = headers | {"trace": "t"}
        seen.append(entry.name)
        return original(*args, **kwargs)

    monkeypatch.setattr(RedBeatScheduler, "apply_async", traced)
    due(scheduler.app, "a")
    (message,) = send(scheduler, redis_client)
    assert seen == ["a"]
    assert message.headers["trace"] == "t"
    assert message.headers["scheduled_at"]


def test_an_entry_class_with_a_constructor_of_its_own_works(
    make_scheduler: MakeScheduler, redis_client: redis.Redis
) -> None:
    class Tenants(RedBeatSchedulerEntry):
        def __init__(self, *, tenant: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.tenant = tenant

        @property
        def kwargs(self) -> dict[str, Any]:
            return {"tenant": self.tenant}

        @kwargs.setter
        def kwargs(self, value: Any) -> None:
            """It follows from the tenant."""

    class Scheduler(RedBeatScheduler):
        Entry = Tenants  # type: ignore[assignment]  # its arguments are its own

        def reserve(self, entry: Any) -> Any:
            fields = {"tenant": entry.tenant, "app": self.app, "schedule": entry.schedule}
            super().reserve(entry)
            return Tenants(name=entry.name, task=entry.task, **fields)

    scheduler = make_scheduler(Scheduler)
    definition = {"task": "t", "schedule": INTERVAL, "tenant": "acme"}
    redis_client.hset("redbeat:a", "definition", json.dumps(definition))
    redis_client.zadd(SCHEDULE, {"redbeat:a": 1})
    (message,) = send(scheduler, redis_client)
    assert message.kwargs == {"tenant": "acme"}
    assert message.headers["scheduled_at"] == "1970-01-01T00:00:01+00:00"


# Without one


def test_runs_by_hand_have_ids_of_their_own_and_no_slot(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    """Also those of entries that are not ours."""
    entry = due(scheduler.app, "a")
    timetable = Timetable(scheduler.app)
    for _ in range(2):
        timetable.run("a")
        scheduler.apply_async(entry, advance=False)
        scheduler.apply_async(
            ScheduleEntry("a", "t", schedule=schedule(60), app=scheduler.app), advance=False
        )
    by_hand = read_messages(redis_client)
    redis_client.delete("celery")
    sent = [*by_hand, *send(scheduler, redis_client)]
    assert len({each.headers["id"] for each in sent}) == 7
    assert not any("scheduled_at" in each.headers for each in by_hand)


def test_without_the_setting_a_message_is_as_celery_makes_it(
    scheduler: RedBeatScheduler, redis_client: redis.Redis
) -> None:
    scheduler.app.redbeat_conf.identify_runs = False
    due(scheduler.app, "a")
    first = send_and_die(scheduler, redis_client)
    second = send(scheduler, redis_client)
    assert not {"scheduled_at", "periodic_task_name"} & first[0].headers.keys()
    assert first[0].headers["id"] != second[0].headers["id"]
