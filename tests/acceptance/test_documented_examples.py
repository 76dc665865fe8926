"""Every JSON example of the documentation, typed into `redis-cli`, fires at its time.

What is due at once is seen to run. What is due later is seen to get the due time that the page
says, which is worked out here by other means than ours, and to run at that time. The clock cannot
be moved, so the entry's last run is put back, by the commands that the page gives for that, or the
date of the example.
"""

import base64
import json
import pickle
import re
import time
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import redis
from celery import signature
from dateutil import rrule as recurrence
from kombu.serialization import registry

from redbeat.decoder import CODECS
from support.documents import ROOT, pages, read_blocks, type_into_redis_cli
from support.programs import MakeProject, Project
from support.servers import RedisServer
from support.waiting import wait_until

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
PAGE = ROOT / "docs" / "how-to" / "other-languages.md"

BLOCKS = [
    block.text for page in pages() for block in read_blocks(page) if block.language == "redis"
]
DEFINITION = re.compile(r"^HSET redbeat:(\S+) definition '(.*)'$", re.M)


def named_in(block: str) -> str:
    """The name of the entry that a block defines; empty if it defines none."""
    found = DEFINITION.search(block)
    return found[1] if found else ""


#: The block that defines each entry first; later ones change it.
EXAMPLES = {named_in(block): block for block in reversed(BLOCKS) if named_in(block)}


def block_with(text: str) -> str:
    """The one block that contains this text."""
    (found,) = [block for block in BLOCKS if text in block]
    return found


RUN_NOW = block_with("HSET redbeat:berlin meta")


def instants(walls: recurrence.rrule | recurrence.rruleset, zone: str = "UTC") -> Any:
    """The first instant after a given one at which a clock in the zone shows one of these times."""

    def first_after(now: datetime) -> float:
        shown = walls.xafter((now - timedelta(days=2)).replace(tzinfo=None))
        times = (wall.replace(tzinfo=ZoneInfo(zone)).timestamp() for wall in shown)
        return next(moment for moment in times if moment > now.timestamp())

    return first_after


def rule(freq: Any, *start: Any, **parts: Any) -> recurrence.rrule:
    return recurrence.rrule(freq, dtstart=datetime(*(start or (2024, 1, 1))), **parts)


def sets(*rules: recurrence.rrule, without: recurrence.rrule, dates: Iterable[datetime]) -> Any:
    found = recurrence.rruleset()
    for each in rules:
        found.rrule(each)
    found.exrule(without)
    for moment in dates:
        found.rdate(moment)
    return found


def sunset(now: datetime) -> float:
    ephem = pytest.importorskip("ephem")
    place = ephem.Observer()
    place.lat, place.lon, place.date = "52.5", "13.4", now
    moment: datetime = place.next_setting(ephem.Sun()).datetime()
    return moment.replace(tzinfo=UTC).timestamp()


YEARLY, MONTHLY, WEEKLY, DAILY, HOURLY, MINUTELY = range(6)
AT_NINE = {"byhour": 9, "byminute": 0, "bysecond": 0}
BERLIN = "Europe/Berlin"

AT_ONCE = {"heartbeat", "report", "import", "values", "signature"}

LATER: dict[str, Callable[[datetime], float]] = {
    "backup": lambda now: datetime(2040, 1, 1, tzinfo=UTC).timestamp(),
    "party": lambda now: datetime(2040, 1, 1, tzinfo=ZoneInfo(BERLIN)).timestamp(),
    "every-minute": instants(rule(MINUTELY, 2026, 1, 1)),
    "working-days": instants(rule(DAILY, byweekday=range(5), byhour=9, byminute=[0, 30])),
    "berlin": instants(rule(DAILY, **AT_NINE), BERLIN),
    "offset": instants(rule(DAILY, byhour=9, byminute=45)),
    "other-day": instants(rule(DAILY, 2024, 1, 1, 8, 30, interval=2)),
    "rush-hour": instants(rule(WEEKLY, byweekday=[0, 2, 4], byhour=[7, 17], byminute=[0, 20, 40])),
    "last-friday": instants(rule(MONTHLY, byweekday=recurrence.FR(-1), byhour=17)),
    "month-ends": instants(rule(MONTHLY, byweekday=range(5), bysetpos=[1, -1])),
    "quarters": instants(rule(MONTHLY, 2024, 3, 31, interval=3, bymonthday=-1)),
    "hundredth-day": instants(rule(DAILY, byyearday=[100, -1])),
    "week-20": instants(rule(YEARLY, byweekno=20, byweekday=0)),
    "easter": instants(rule(YEARLY, byeaster=[0, 1])),
    "counted": instants(rule(HOURLY, interval=3)),
    "until": instants(rule(MINUTELY, interval=90)),
    "new-york": instants(rule(DAILY, 2024, 1, 1, 9), "America/New_York"),
    "but-christmas": instants(
        sets(
            rule(DAILY, 2024, 1, 1, 9, byweekday=range(5)),
            rule(MONTHLY, 2024, 1, 1, 9, bymonthday=1, byhour=12),
            without=rule(YEARLY, 2024, 1, 1, 9, bymonth=12, bymonthday=25),
            dates=[datetime(2024, 1, 6, 11)],
        ),
        BERLIN,
    ),
    "both": instants(rule(DAILY, 2024, 1, 1, 9), "America/New_York"),
    "street-lights": sunset,
}

#: What differs between celestial mechanics with and without the height of the sun's disc.
TOLERANCE = {"street-lights": 600.0}


def task_of(name: str) -> str:
    found = DEFINITION.search(EXAMPLES[name])
    assert found
    return str(json.loads(found[2])["task"])


def tags_in(text: str) -> set[str]:
    return set(re.findall(r'"__type__": "(\w+)"', text))


def sent(broker: redis.Redis) -> list[dict[str, Any]]:
    """The messages in the queue, the oldest first, undecoded."""
    return [json.loads(text) for text in reversed(broker.lrange("celery", 0, -1))]


def count_runs(broker: redis.Redis, name: str) -> int:
    return sum(message["headers"]["task"] == task_of(name) for message in sent(broker))


def wait_for_runs(broker: redis.Redis, names: Iterable[str]) -> None:
    names = set(names)

    def missing() -> set[str]:
        return {name for name in names if not count_runs(broker, name)}

    try:
        wait_until(lambda: not missing(), 30)
    except TimeoutError:
        pytest.fail(f"these did not run: {missing()}")


def arguments_of(broker: redis.Redis, name: str) -> tuple[Any, Any]:
    """What the task of a run is called with, decoded as a worker does."""
    message = next(each for each in sent(broker) if each["headers"]["task"] == task_of(name))
    body = base64.b64decode(message["body"])
    if message["content-type"] == "application/x-python-serialize":
        args, kwargs, _ = pickle.loads(body)
        return args, kwargs
    decode: Any = registry.loads
    args, kwargs, _ = decode(body, message["content-type"], message["content-encoding"])
    return args, kwargs


def assert_waits_for(client: redis.Redis, name: str, since: datetime) -> None:
    """The entry's score is the first slot after some moment since then."""
    tolerance = TOLERANCE.get(name, 1e-5)

    def is_its_slot() -> bool:
        score = client.zscore(SCHEDULE, f"redbeat:{name}") or 0
        slots = [LATER[name](since), LATER[name](datetime.now(UTC))]
        return any(score == pytest.approx(slot, abs=tolerance) for slot in slots)

    wait_until(is_its_slot, 20, f"the due time of {name}")


def put_back(name: str) -> str:
    """The commands of the page that make an entry due now."""
    if name == "party":
        return EXAMPLES[name].replace('"year": 2040', '"year": 2024')
    if name == "backup":
        return EXAMPLES[name].replace("2208988800", "1704067200")
    return RUN_NOW.replace("redbeat:berlin", f"redbeat:{name}")


def test_every_example_is_known_here_and_every_type_has_one() -> None:
    """Every block of JSON in the documentation is tried."""
    assert EXAMPLES.keys() == AT_ONCE | LATER.keys()
    blocks = [block for page in pages() for block in read_blocks(page)]
    shown = [block for block in blocks if "__type__" in block.text and block.language != "redis"]
    # Programs, and what a command prints, are tried by test_pages.
    assert {block.language for block in shown} <= {"python", "console"}
    assert {codec.tag for codec in CODECS} == tags_in("".join(BLOCKS))


def test_every_example_runs_at_once_or_gets_the_due_time_that_the_page_says(
    project: Project, redis_server: RedisServer, redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """Written without `meta` and with score 0, what follows a calendar waits for its slot."""
    since = datetime.now(UTC)
    for block in EXAMPLES.values():
        type_into_redis_cli(redis_server, block)
    project.beat()
    wait_for_runs(broker, AT_ONCE)
    for name in LATER:
        assert_waits_for(redis_client, name, since)
    ran = {name for name in EXAMPLES if count_runs(broker, name)}
    assert ran - {"every-minute"} == AT_ONCE


def test_every_example_runs_when_its_time_has_come_and_then_waits_for_the_next(
    project: Project, redis_server: RedisServer, redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """Once each, although the time came long ago."""
    since = datetime.now(UTC)
    for name in LATER:
        type_into_redis_cli(redis_server, EXAMPLES[name])
        type_into_redis_cli(redis_server, put_back(name))
    project.beat()
    wait_for_runs(broker, LATER)
    wait_until(lambda: redis_client.zscore(SCHEDULE, "redbeat:party") == -1, 10, "its end")
    for name in LATER.keys() - {"party", "backup"}:
        assert_waits_for(redis_client, name, since)
    assert {name for name in LATER if count_runs(broker, name) > 1} <= {"every-minute"}


def test_an_example_of_every_minute_runs_at_the_full_minute(
    project: Project, redis_server: RedisServer, broker: redis.Redis
) -> None:
    """On the real clock, not before and not much later."""
    type_into_redis_cli(redis_server, EXAMPLES["every-minute"])
    project.beat().wait_for_line("Acquired lock")
    minute = int(time.time() // 60)
    wait_until(lambda: count_runs(broker, "every-minute"), 65, "the full minute")
    assert 0 <= time.time() - (minute + 1) * 60 < 2


def test_the_values_of_the_example_reach_the_task(
    project: Project, redis_server: RedisServer, broker: redis.Redis
) -> None:
    """As the objects that they represent."""
    type_into_redis_cli(redis_server, EXAMPLES["values"])
    type_into_redis_cli(redis_server, EXAMPLES["signature"])
    project.beat()
    wait_for_runs(broker, ["values", "signature"])
    (night, noon, leap_day), kwargs = arguments_of(broker, "values")
    assert night == datetime(2024, 10, 27, 1, 30, tzinfo=UTC)
    assert noon == datetime(2024, 6, 30, 22, tzinfo=UTC)
    assert leap_day in (date(2024, 2, 29), datetime(2024, 2, 29))
    id_ = UUID("12345678123456781234567812345678")
    assert kwargs == {"id": id_, "price": Decimal("9.90"), "key": b"\x00\xff"}
    (later, wait), _ = arguments_of(broker, "signature")
    assert later == signature("tasks.add", args=(1, 2))
    assert wait == timedelta(seconds=90)


def test_the_examples_change_pause_resume_and_delete_an_entry(
    project: Project, redis_server: RedisServer, redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """Each takes effect while beat runs."""

    def has_run_with(word: str) -> bool:
        texts = [base64.b64decode(message["body"]) for message in sent(broker)]
        return any(f'"{word}"'.encode() in text for text in texts)

    def score() -> float:
        return redis_client.zscore(SCHEDULE, "redbeat:heartbeat") or 0

    type_into_redis_cli(redis_server, EXAMPLES["heartbeat"])
    project.beat()
    wait_for_runs(broker, ["heartbeat"])
    type_into_redis_cli(redis_server, block_with('["louder"]'))
    wait_until(lambda: has_run_with("louder"), 10, "a run as changed")
    type_into_redis_cli(redis_server, block_with('"enabled": false'))
    paused_at = time.time()
    wait_until(lambda: score() > paused_at + 2, 10, "the first skipped run")
    runs = count_runs(broker, "heartbeat")
    wait_until(lambda: score() > paused_at + 5, 20, "more skipped runs")
    assert count_runs(broker, "heartbeat") == runs
    type_into_redis_cli(redis_server, block_with('["again"]'))
    wait_until(lambda: has_run_with("again"), 10, "a run as resumed")
    shown = type_into_redis_cli(redis_server, block_with("HGETALL"))
    assert "tasks.heartbeat" in shown
    assert "redbeat:heartbeat" in shown
    type_into_redis_cli(redis_server, block_with("ZREM"))
    runs = count_runs(broker, "heartbeat")
    time_after_a_run = time.time() + 3
    wait_until(lambda: time.time() > time_after_a_run, 10, "the time of a run and a half")
    assert count_runs(broker, "heartbeat") - runs <= 1
    assert not redis_client.exists("redbeat:heartbeat")
    assert redis_client.zscore(SCHEDULE, "redbeat:heartbeat") is None


def test_an_entry_that_was_set_aside_says_why_and_comes_back_when_it_is_written_again(
    project: Project, redis_server: RedisServer, redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """By the definition alone, without a new score."""
    broken = EXAMPLES["heartbeat"].replace('"every": 30', '"every": 0')
    type_into_redis_cli(redis_server, broken)
    project.beat()
    wait_until(lambda: redis_client.zscore(SCHEDULE, "redbeat:heartbeat") == -2, 20, "it set aside")
    reason = type_into_redis_cli(redis_server, block_with("set_aside"))
    assert "every must be a number of seconds above 0" in reason
    type_into_redis_cli(redis_server, EXAMPLES["heartbeat"].splitlines()[0])
    wait_for_runs(broker, ["heartbeat"])


KNOWN_TO_2_X = {"interval", "crontab", "rrule", "weekday", "datetime"}


def is_known_to_2_x(name: str) -> bool:
    found = DEFINITION.search(EXAMPLES[name])
    assert found
    schedule = json.loads(found[2])["schedule"]
    zones = [schedule.get(field, 0) for field in ("tz", "dtstart_tz", "until_tz")]
    return (
        tags_in(EXAMPLES[name]) <= KNOWN_TO_2_X
        and "tz" not in schedule
        and ("relative" in schedule or schedule["__type__"] != "interval")
        and all(isinstance(zone, int) for zone in zones)
    )


def test_the_examples_that_use_only_what_2_x_knows_run_under_2_x(
    make_project: MakeProject,
    redis_server: RedisServer,
    broker: redis.Redis,
    peer: str,
) -> None:
    """All the others say on the page that they do not."""
    names = {name for name in EXAMPLES if is_known_to_2_x(name)}
    assert EXAMPLES.keys() - names == {
        *("heartbeat", "backup", "values", "signature"),
        *("berlin", "offset", "new-york", "but-christmas", "party", "street-lights"),
    }
    for name in names:
        type_into_redis_cli(redis_server, EXAMPLES[name])
        # There, an interval that never ran is due one interval after it was first seen.
        type_into_redis_cli(redis_server, RUN_NOW.replace("redbeat:berlin", f"redbeat:{name}"))
    make_project().beat(python=peer)
    wait_for_runs(broker, names)
