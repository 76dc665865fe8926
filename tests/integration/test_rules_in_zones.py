"""The time zone of a rule in Redis: every JSON object has each key once, and no zone is lost."""

import io
import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from celery import Celery
from celery.schedules import schedule as interval

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable
from redbeat.decoder import RedBeatJSONDecoder, RedBeatJSONEncoder
from redbeat.errors import EntryError
from redbeat.schedules import rrule
from redbeat.timing.due import next_due
from redbeat.tools import backup

UTC = timezone.utc
NEW_YORK = ZoneInfo("America/New_York")
BERLIN = ZoneInfo("Europe/Berlin")
PARIS = ZoneInfo("Europe/Paris")
SUMMER = datetime(2040, 7, 1, tzinfo=UTC)
KEY = "redbeat:nine"


def nine(zone: Any = NEW_YORK, **parts: Any) -> Any:
    return rrule("DAILY", dtstart=datetime(2024, 1, 1, 9, tzinfo=zone), **parts)


RULES: list[Callable[[], Any]] = [
    nine,
    lambda: nine(until=datetime(2045, 1, 1, tzinfo=BERLIN)),
    lambda: nine(until=datetime(2045, 1, 1, tzinfo=UTC)),
    lambda: nine(count=100_000),
]


def entry(app: Celery, rule: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry("nine", "tasks.nine", rule, app=app)


def definition_in(client: redis.Redis) -> str:
    return str(client.hget(KEY, "definition"))


def with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), names
    return dict(pairs)


def require_rule(client_app: Celery, rule: Any) -> None:
    """The stored rule is this one, and keeps its wall clock."""
    stored = RedBeatSchedulerEntry.from_key(KEY, app=client_app).schedule
    assert json.dumps(stored, cls=RedBeatJSONEncoder) == json.dumps(rule, cls=RedBeatJSONEncoder)
    due = next_due(stored, SUMMER, SUMMER)
    assert due is not None
    assert due.hour == 13


@pytest.mark.parametrize("make", RULES)
def test_a_program_that_loads_and_rewrites_a_definition_loses_no_zone(
    client_app: Celery, client: redis.Redis, make: Callable[[], Any]
) -> None:
    """And no JSON object has a key twice."""
    entry(client_app, make()).save()
    require_rule(client_app, make())
    fields = json.loads(definition_in(client), object_pairs_hook=with_unique_keys)
    client.hset(KEY, "definition", json.dumps({**fields, "args": [1]}))
    require_rule(client_app, make())
    RedBeatSchedulerEntry.from_key(KEY, app=client_app).save()
    require_rule(client_app, make())
    assert RedBeatSchedulerEntry.load_definition(KEY, app=client_app)["args"] == [1]
    zone = RedBeatSchedulerEntry.load_definition(KEY, app=client_app)["schedule"].dtstart.tzinfo
    assert zone == NEW_YORK


@pytest.mark.parametrize("make", RULES)
def test_the_json_of_a_rule_alone_has_each_key_once(make: Callable[[], Any]) -> None:
    text = json.dumps(make(), cls=RedBeatJSONEncoder)
    fields = json.loads(text, object_pairs_hook=with_unique_keys)
    again = json.loads(json.dumps(fields), cls=RedBeatJSONDecoder)
    assert (again.dtstart, again.until) == (make().dtstart, make().until)
    assert again.dtstart.tzinfo == NEW_YORK
    assert again.until is None or again.until.tzinfo == make().until.tzinfo


@pytest.mark.parametrize("make", RULES)
def test_a_definition_has_what_2_x_reads_and_no_more(
    client_app: Celery, client: redis.Redis, make: Callable[[], Any]
) -> None:
    entry(client_app, make()).save()
    schedule = json.loads(definition_in(client))["schedule"]
    known = {"__type__", "freq", "interval", "wkst", "count", "bysetpos", "bymonth", "bymonthday"}
    known |= {"byyearday", "byeaster", "byweekno", "byweekday", "byhour", "byminute", "bysecond"}
    assert set(schedule) <= known | {"dtstart", "dtstart_tz", "until", "until_tz"}
    assert schedule["dtstart_tz"] == -300
    assert "until" not in schedule or not isinstance(schedule["until_tz"], str)


@pytest.mark.parametrize("until", [None, datetime(2045, 1, 1, tzinfo=UTC)])
def test_a_zone_stays_when_2_x_has_saved_the_entry_anew(
    client_app: Celery, client: redis.Redis, until: Any
) -> None:
    """It writes offsets only, and leaves the other fields of the hash alone."""
    entry(client_app, nine(until=until)).save()
    fields = json.loads(definition_in(client))
    fields["schedule"].pop("until_tz", None)
    if until:
        fields["schedule"]["until_tz"] = 0.0
    client.hset(KEY, "definition", json.dumps(fields))
    require_rule(client_app, nine(until=until))


def test_a_rule_that_others_wrote_in_place_of_one_does_not_get_its_zone(
    client_app: Celery, client: redis.Redis
) -> None:
    entry(client_app, nine(until=datetime(2045, 1, 1, tzinfo=UTC))).save()
    fields = json.loads(definition_in(client))
    fields["schedule"]["dtstart"] += 60
    client.hset(KEY, "definition", json.dumps(fields))
    stored = RedBeatSchedulerEntry.from_key(KEY, app=client_app)
    assert stored.schedule.dtstart.tzinfo.utcoffset(None).total_seconds() == -300 * 60
    fields["schedule"] = {"__type__": "interval", "every": 60}
    client.hset(KEY, "definition", json.dumps(fields))
    assert RedBeatSchedulerEntry.from_key(KEY, app=client_app).schedule == interval(60)
    assert entry(client_app, 60).save()
    assert not client.hget(KEY, "zones")


def test_what_was_written_with_twins_is_still_read(client_app: Celery, client: redis.Redis) -> None:
    start = int(datetime(2024, 1, 1, 9, tzinfo=NEW_YORK).timestamp())
    end = int(datetime(2045, 1, 1, tzinfo=BERLIN).timestamp())
    schedule = (
        f'{{"__type__": "rrule", "freq": 3, "dtstart": {start}, "dtstart_tz": "America/New_York", '
        f'"dtstart_tz": -300.0, "until": {end}, "until_tz": "Europe/Berlin", "until_tz": 60.0}}'
    )
    client.hset(KEY, "definition", f'{{"name": "nine", "task": "t", "schedule": {schedule}}}')
    stored = RedBeatSchedulerEntry.from_key(KEY, app=client_app).save()
    require_rule(client_app, stored.schedule)
    assert stored.schedule.until.tzinfo == BERLIN
    json.loads(definition_in(client), object_pairs_hook=with_unique_keys)


def test_zones_that_cannot_be_read_are_an_error_that_says_so(
    client_app: Celery, client: redis.Redis
) -> None:
    entry(client_app, nine(until=datetime(2045, 1, 1, tzinfo=UTC))).save()
    start = int(nine().dtstart.timestamp())
    for zones in ("{", "[1]", '{"dtstart": 1}', f'{{"dtstart": [{start}, -300, "Mars/Base"]}}'):
        client.hset(KEY, "zones", zones)
        with pytest.raises(EntryError, match="its zones cannot be read"):
            RedBeatSchedulerEntry.from_key(KEY, app=client_app)


@pytest.mark.parametrize("make", RULES)
def test_a_timetable_and_a_backup_keep_the_zone(
    client_app: Celery, make: Callable[[], Any]
) -> None:
    entry(client_app, make()).save()
    timetable = Timetable(client_app)
    timetable.pause("nine")
    require_rule(client_app, make())
    text = "".join(backup.dump(timetable.items()))
    json.loads(text, object_pairs_hook=with_unique_keys)
    plan = backup.plan_import(io.StringIO(text), timetable)
    assert (plan.unchanged, plan.written) == (1, [])
    timetable.clear()
    timetable.replace(backup.plan_import(io.StringIO(text), timetable).written)
    require_rule(client_app, make())


def test_a_static_rule_moves_to_another_zone_of_the_same_offset(client_app: Celery) -> None:
    until = datetime(2045, 1, 1, tzinfo=UTC)
    for zone in (BERLIN, PARIS):
        client_app.conf.beat_schedule = {
            "nine": {"task": "tasks.nine", "schedule": nine(zone, until=until)}
        }
        RedBeatScheduler(client_app, lazy=True).setup_schedule()
        stored = RedBeatSchedulerEntry.from_key(KEY, app=client_app)
        assert stored.schedule.dtstart.tzinfo == zone
