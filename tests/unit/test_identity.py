"""The identity of a run: the same for the same slot, whoever sends it."""

import copy
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import BaseSchedule, schedstate, schedule, solar

from redbeat.beat.identity import Run, run_id
from redbeat.schedules import crontab, once, rrule
from redbeat.timing.due import due_by_last_run
from redbeat.timing.history import last_run_of_interval

UTC = timezone.utc
SLOT = datetime(2030, 12, 24, 18, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = datetime(2031, 1, 1, tzinfo=UTC)


# The id


def test_an_id_tells_entry_slot_and_message_apart() -> None:
    keys = ("redbeat:a", "redbeat:a#1", "redbeat:a@2030-12-24T18:00:00+00:00", "other:a")
    moments = [(SLOT, None), (SLOT + HOUR, None), (None, SLOT), (None, None)]
    ids = {run_id(key, *moment, number) for key, moment, number in product(keys, moments, (0, 1))}
    assert len(ids) == len(keys) * len(moments) * 2
    assert {each.version for each in ids} == {5}
    assert run_id("redbeat:a", SLOT, NOW) in ids


def test_an_id_is_the_same_in_any_time_zone_and_release() -> None:
    known = UUID("c7a6ac27-ce67-596f-add5-35516774e463")
    assert run_id("redbeat:a", SLOT, None) == known
    assert run_id("redbeat:a", SLOT.astimezone(ZoneInfo("Asia/Tokyo")), None) == known


def test_a_name_that_is_not_utf_8_has_an_id() -> None:
    ids = {run_id(f"redbeat:{name}", SLOT, None) for name in ("caf\udce9", "caf\udcea", "café")}
    assert len(ids) == 3


# What is sent


def entry_with(options: Any = None) -> ScheduleEntry:
    return ScheduleEntry(
        "a", "tasks.a", NOW, 3, schedule(60), args=(1,), kwargs={"b": 2}, options=options
    )


def message_of(options: Any = None, slot: datetime | None = SLOT, name: str = "a") -> ScheduleEntry:
    return Run("redbeat:a", name, slot, NOW).message(entry_with(options))


def test_a_message_is_the_entry_with_the_id_and_the_slot_of_the_run() -> None:
    message, entry = message_of({"queue": "slow"}), entry_with()
    assert dict(message) == dict(entry) | {
        "options": {
            "queue": "slow",
            "task_id": str(run_id("redbeat:a", SLOT, NOW)),
            "headers": {
                "periodic_task_name": "a",
                "scheduled_at": "2030-12-24T18:00:00+00:00",
            },
        }
    }


def test_a_message_cannot_be_stored() -> None:
    assert not hasattr(message_of(), "save")


def test_what_the_options_say_is_kept_and_they_are_not_changed() -> None:
    given = {"task_id": "mine", "headers": {"scheduled_at": "mine", "x": {"y": 1}}}
    before = copy.deepcopy(given)
    options = message_of(given).options
    assert options["task_id"] == "mine"
    assert options["headers"] == {
        "periodic_task_name": "a",
        "scheduled_at": "mine",
        "x": {"y": 1},
    }
    options["headers"]["celery_beat_task"] = True
    assert given == before


def test_headers_that_celery_could_not_use_are_left_to_it() -> None:
    assert message_of({"headers": "mine"}).options["headers"] == "mine"


def test_a_run_whose_slot_cannot_be_told_has_an_id_and_a_name() -> None:
    options = message_of(slot=None).options
    assert options["headers"] == {"periodic_task_name": "a"}
    assert options["task_id"] == str(run_id("redbeat:a", None, NOW))


def test_a_name_that_is_not_utf_8_can_be_sent_as_a_header() -> None:
    assert message_of(name="caf\udce9").options["headers"]["periodic_task_name"] == "caf\\udce9"


def test_several_messages_of_one_run_have_different_ids_in_the_same_order_each_time() -> None:
    entry = entry_with()

    def ids() -> list[str]:
        run = Run("redbeat:a", "a", SLOT, NOW)
        return [run.message(entry).options["task_id"] for _ in range(3)]

    assert ids() == ids()
    assert len(set(ids())) == 3


# The slot


class OnHolidays(schedule):  # type: ignore[misc]  # Celery has no types
    """Knows better than its class when it is due, and asks its own clock."""

    def is_due(self, last_run_at: datetime) -> schedstate:
        return schedstate(True, 60)


class Wayward(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """Asks another clock than its own."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return last_run_at + HOUR - datetime.now(UTC)

    def is_due(self, last_run_at: datetime) -> schedstate:
        return schedstate(True, 60)


class Fussy(schedule):  # type: ignore[misc]  # Celery has no types
    """Wants its own clock and no other."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        assert "now" not in vars(self)
        return timedelta(0)


def bound(rule: Any) -> Any:
    rule.app = Celery("proj", set_as_current=False)
    return rule


@pytest.mark.parametrize(
    ("rule", "due"),
    [
        (schedule(3600), SLOT + HOUR),
        (OnHolidays(3600), SLOT + HOUR),
        (crontab(minute=30), SLOT + HOUR / 2),
        (crontab(hour=3, minute=0, tz="Asia/Tokyo"), SLOT),
        (rrule("HOURLY", dtstart=SLOT - HOUR / 4), SLOT + HOUR * 3 / 4),
        (once(SLOT + HOUR), SLOT + HOUR),
        (once(SLOT - HOUR), None),
        (Wayward(), None),
        (Fussy(3600), None),
    ],
)
def test_the_slot_follows_from_the_last_run(rule: Any, due: datetime | None) -> None:
    last_run_at = SLOT - timedelta(microseconds=1) if due == SLOT else SLOT
    assert due_by_last_run(bound(rule), last_run_at) == due


def test_a_slot_of_the_sun_is_the_same_at_each_look() -> None:
    noons = {due_by_last_run(bound(solar("solar_noon", 52.5, 13.4)), SLOT) for _ in range(20)}
    (noon,) = noons
    assert noon is not None
    assert SLOT < noon < SLOT + 24 * HOUR


def test_asking_for_a_slot_leaves_the_clock_of_a_schedule_as_it_is() -> None:
    rule = bound(OnHolidays(3600, nowfun=lambda: NOW))
    due_by_last_run(rule, SLOT)
    assert rule.now() == NOW


@pytest.mark.parametrize("moment", [datetime.min, datetime.max], ids=["min", "max"])
@pytest.mark.parametrize("rule", [schedule(60), crontab(), OnHolidays(60), Wayward()])
def test_a_last_run_at_the_ends_of_time_raises_nothing(rule: Any, moment: datetime) -> None:
    due_by_last_run(bound(rule), moment)


@pytest.mark.parametrize(
    ("hour", "slots"),
    [
        (2, ["2030-10-26T00:00", "2030-10-27T00:00", "2030-10-28T01:00"]),
        ("*", ["2030-10-26T22:00", "2030-10-26T23:00", "2030-10-27T00:00", "2030-10-27T01:00"]),
    ],
)
def test_a_repeated_hour_has_slots_of_its_own(hour: Any, slots: list[str]) -> None:
    """At the end of daylight-saving time in Berlin, on 27 October 2030."""
    rule = bound(crontab(hour=hour, minute=0, tz="Europe/Berlin"))
    last_run_at, found = datetime.fromisoformat(slots[0]).replace(tzinfo=UTC) - HOUR, []
    for _ in slots:
        due = due_by_last_run(rule, last_run_at)
        assert due is not None
        found.append(due.strftime("%Y-%m-%dT%H:%M"))
        last_run_at = due
    assert found == slots


# An interval that never ran


@pytest.mark.parametrize("score", [NOW.timestamp() - 7000, NOW.timestamp() - 0.25, 0, 1])
@pytest.mark.parametrize("every", [0.5, 60, 3600, 10**8])
def test_an_interval_that_never_ran_has_its_first_slot_at_its_score(
    score: float, every: float
) -> None:
    rule = bound(schedule(every))
    before = last_run_of_interval(rule, score, NOW)
    assert before is not None
    slot = datetime.fromtimestamp(score, UTC) if score else NOW
    assert due_by_last_run(rule, before) == slot


@pytest.mark.parametrize("every", [60, 3600, 86400, 10**6])
def test_a_relative_interval_that_never_ran_is_due_at_once(every: int) -> None:
    rule = bound(schedule(every, relative=True))
    before = last_run_of_interval(rule, NOW.timestamp() - 1, NOW)
    assert before is not None
    due = due_by_last_run(rule, before)
    assert due is not None
    assert due <= NOW


@pytest.mark.parametrize(
    "rule",
    [crontab(), rrule("HOURLY"), OnHolidays(60), schedule(timedelta(days=999_999))],
)
def test_no_other_schedule_gets_a_last_run_from_its_score(rule: Any) -> None:
    assert last_run_of_interval(bound(rule), 1, NOW) is None
