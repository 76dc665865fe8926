"""The application's `timezone` changed over a restart: entries that programs have stored."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedules import crontab as zoned_crontab
from redbeat.schedules import rrule
from support.apps import MakeApp
from support.wire import Proxy

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
TOKYO = ZoneInfo("Asia/Tokyo")

AppIn = Callable[..., Celery]


@pytest.fixture
def app_in(make_app_with: MakeApp, client: redis.Redis) -> AppIn:
    """Make the application with another time zone: `app_in("Asia/Tokyo")`."""

    def make(zone: Any, **settings: Any) -> Celery:
        url = "redis://injected.invalid/0"
        app = make_app_with(redbeat_redis_url=url, timezone=zone, redbeat_lock_key=None, **settings)
        app.redbeat_redis = client
        return app

    return make


def lead(app: Celery) -> None:
    RedBeatScheduler(app).tick()


def noon() -> Any:
    # Not within the next minutes, whenever the tests run.
    hour = (datetime.now(UTC) + timedelta(hours=2)).hour
    return crontab(minute=0, hour=hour)


def save(app: Celery, rule: Any, name: str = "a", **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, f"tasks.{name}", rule, app=app, **fields).save()


def score_of(client: redis.Redis, name: str = "a") -> float:
    score = client.zscore(SCHEDULE, f"redbeat:{name}")
    assert score is not None
    return float(score)


def wall_of(client: redis.Redis, zone: tzinfo, name: str = "a") -> datetime:
    return datetime.fromtimestamp(score_of(client, name), zone)


def test_an_entry_that_a_program_stored_moves_to_its_time_in_the_new_zone(
    app_in: AppIn, client: redis.Redis
) -> None:
    app, rule = app_in("UTC"), noon()
    save(app, rule)
    lead(app)
    assert wall_of(client, UTC).hour in rule.hour
    lead(app_in("Asia/Tokyo"))
    assert (wall_of(client, TOKYO).hour, wall_of(client, TOKYO).minute) == (*rule.hour, 0)
    assert score_of(client) > datetime.now(UTC).timestamp()
    lead(app_in("UTC"))
    assert wall_of(client, UTC).hour in rule.hour


def test_a_day_of_a_relative_interval_moves_too(app_in: AppIn, client: redis.Redis) -> None:
    app = app_in("UTC")
    save(app, schedule(timedelta(days=1), relative=True))
    lead(app)
    lead(app_in("Asia/Tokyo"))
    assert wall_of(client, TOKYO).hour == 0


def test_what_has_no_need_of_the_zone_stays(app_in: AppIn, client: redis.Redis) -> None:
    app = app_in("UTC")
    start = datetime.now(UTC) + timedelta(days=1)
    save(app, zoned_crontab(minute=0, hour=[*noon().hour], tz="Europe/Berlin"), "zoned")
    save(app, rrule("DAILY", dtstart=start), "rule")
    save(app, schedule(3600), "interval")
    save(app, noon(), "paused", enabled=False)
    client.hset("redbeat:aside", "definition", "{")
    client.zadd(SCHEDULE, {"redbeat:aside": 0})
    save(app, noon(), "finished")
    client.zadd(SCHEDULE, {"redbeat:finished": -1})
    lead(app)
    assert score_of(client, "aside") == -2
    before = client.zrange(SCHEDULE, 0, -1, withscores=True)
    lead(app_in("Asia/Tokyo"))
    assert client.zrange(SCHEDULE, 0, -1, withscores=True) == before


def test_a_claim_of_another_beat_stays(app_in: AppIn, client: redis.Redis) -> None:
    app = app_in("UTC")
    save(app, noon())
    lead(app)
    lease = datetime.now(UTC).timestamp() // 1 + 20.5
    client.zadd(SCHEDULE, {"redbeat:a": lease})
    lead(app_in("Asia/Tokyo"))
    assert score_of(client) == lease


def test_the_first_leader_only_notes_the_zone(app_in: AppIn, client: redis.Redis) -> None:
    """What another version of redbeat has left is taken as it is."""
    save(app_in("UTC"), noon())
    before = score_of(client)
    lead(app_in("Asia/Tokyo"))
    assert score_of(client) == before
    assert client.get("redbeat::zone") == "Asia/Tokyo"


def test_an_entry_that_never_ran_keeps_its_day_and_its_time_of_day(
    app_in: AppIn, client: redis.Redis
) -> None:
    """Another language has stored it, for a slot that is not the next one."""
    app, rule = app_in("UTC"), noon()
    save(app, rule)
    client.hdel("redbeat:a", "meta")
    awaited = wall_of(client, UTC) + timedelta(days=3)
    client.zadd(SCHEDULE, {"redbeat:a": awaited.timestamp()})
    lead(app)
    lead(app_in("Asia/Tokyo"))
    assert wall_of(client, TOKYO).replace(tzinfo=None) == awaited.replace(tzinfo=None)


@pytest.mark.parametrize("name", ["UTC", "Etc/UTC"])
def test_zones_are_compared_by_what_they_mean(
    app_in: AppIn, client: redis.Redis, name: str
) -> None:
    pytz = pytest.importorskip("pytz")
    save(app_in("UTC"), noon())
    lead(app_in("UTC"))
    noted = client.get("redbeat::zone")
    for zone in (name, UTC, timezone(timedelta(0)), ZoneInfo(name), pytz.timezone(name)):
        lead(app_in(zone))
        assert client.get("redbeat::zone") == noted
    for zone in ("Europe/Berlin", ZoneInfo("Europe/Berlin"), pytz.timezone("Europe/Berlin")):
        lead(app_in(zone))
        assert client.get("redbeat::zone") == "Europe/Berlin"


def test_an_entry_whose_subclass_scores_it_stays(app_in: AppIn, client: redis.Redis) -> None:
    class Own(RedBeatSchedulerEntry):
        """Due in the year 2040, whatever its schedule says."""

        @property
        def score(self) -> int:
            return 2_208_988_800

    class OwnScheduler(RedBeatScheduler):
        """A scheduler of such entries."""

        Entry = Own

    app = app_in("UTC")
    Own("a", "tasks.a", noon(), app=app).save()
    OwnScheduler(app).tick()
    OwnScheduler(app_in("Asia/Tokyo")).tick()
    assert score_of(client) == 2_208_988_800


def test_more_entries_than_a_page_of_one_time_all_move(app_in: AppIn, client: redis.Redis) -> None:
    app, rule = app_in("UTC"), noon()
    for number in range(10):
        save(app, rule, f"a{number}")
        save(app, schedule(86400), f"b{number}")
    client.zadd(SCHEDULE, {f"redbeat:b{number}": score_of(client, "a0") for number in range(10)})
    lead(app)
    lead(app_in("Asia/Tokyo", redbeat_batch_size=3))
    hours = {wall_of(client, TOKYO, f"a{number}").hour for number in range(10)}
    assert hours == set(rule.hour)


def test_a_change_costs_three_round_trips_per_page_and_none_two(
    make_app_with: MakeApp, proxy: Proxy
) -> None:
    """One to look, one to note it, and the page: its members, its entries, their new scores."""
    costs: list[int] = []
    for zone in ("UTC", "UTC", "Asia/Tokyo", "UTC", "UTC"):
        app = make_app_with(redbeat_redis_url=proxy.url(), timezone=zone, redbeat_lock_key=None)
        if not costs:
            for number in range(20):
                save(app, noon(), f"a{number}")
        scheduler = RedBeatScheduler(app)
        with proxy.counting() as traffic:
            scheduler.tick()
        costs.append(traffic.round_trips)
    # The first change may have to load a script, too.
    _, same, _, changed, same_again = costs
    assert same == same_again
    assert changed == same + 4
