"""The names that people import because 2.x has them."""

import importlib
from datetime import MINYEAR, datetime, timezone

import pytest
import redis
import redis.sentinel
from celery.utils.log import get_logger

from redbeat import schedulers
from redbeat.schedules import rrule

NAMES = {
    "redbeat": ["RedBeatKeyExpiryError", "RedBeatScheduler", "RedBeatSchedulerEntry"],
    "redbeat.schedulers": [
        "ADD_ENTRY_ERROR",
        "LUA_EXTEND_TO_SCRIPT",
        "REDBEAT_REDIS_KEY",
        "REDBEAT_SENTINEL_KEY",
        "RedBeatConfig",
        "RedBeatJSONDecoder",
        "RedBeatJSONEncoder",
        "RedBeatScheduler",
        "RedBeatSchedulerEntry",
        "RetryingConnection",
        "acquire_distributed_beat_lock",
        "ensure_conf",
        "get_redis",
        "json",
        "logger",
        "to_timestamp",
    ],
    "redbeat.decoder": [
        "RedBeatJSONDecoder",
        "RedBeatJSONEncoder",
        "from_timestamp",
        "get_utcoffset_minutes",
        "to_timestamp",
    ],
    "redbeat.checks": [
        "DEFAULT_KEY_EXPIRY_CHECK",
        "KEY_EXPIRY_CHECK_MODES",
        "RedBeatKeyExpiryError",
        "check_key_expiry",
    ],
}


@pytest.mark.parametrize("module", NAMES)
def test_the_names_of_2x_can_be_imported(module: str) -> None:
    imported = importlib.import_module(module)

    assert [name for name in NAMES[module] if not hasattr(imported, name)] == []


def test_the_names_of_2x_mean_what_they_say() -> None:
    assert schedulers.json.loads("[1]") == [1]
    assert schedulers.Redis is redis.Redis
    assert schedulers.Sentinel is redis.sentinel.Sentinel
    assert schedulers.MINYEAR == MINYEAR
    assert schedulers.DEFAULT_MAX_INTERVAL == 300
    assert schedulers.get_logger is get_logger


def test_frequencies_are_numbered_as_in_dateutil() -> None:
    assert list(rrule.FREQ_MAP.items()) == [
        ("YEARLY", 0),
        ("MONTHLY", 1),
        ("WEEKLY", 2),
        ("DAILY", 3),
        ("HOURLY", 4),
        ("MINUTELY", 5),
        ("SECONDLY", 6),
    ]


def test_the_format_of_a_rule_shows_it_as_repr_does() -> None:
    rule = rrule("DAILY", datetime(2030, 1, 1, tzinfo=timezone.utc), interval=2, byhour=9)

    shown = rrule.RRULE_REPR.format(rule)
    assert shown == repr(rule)
    assert shown.startswith("<rrule: freq: 3, dtstart: 2030-01-01 00:00:00+00:00, interval: 2,")
    assert "byhour: 9" in shown


def test_a_format_of_a_subclass_is_used() -> None:
    class Short(rrule):
        RRULE_REPR = "<every {0.interval}>"

    assert repr(Short("DAILY", interval=3)) == "<every 3>"
