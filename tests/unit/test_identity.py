"""The identity of a run: the same for the same slot, whoever sends it."""

from datetime import datetime, timedelta, timezone
from uuid import UUID

from redbeat.beat.identity import identified, task_id

UTC = timezone.utc
SLOT = datetime(2030, 12, 24, 18, tzinfo=UTC)


def test_an_id_tells_prefix_name_and_slot_apart() -> None:
    ids = {
        task_id(prefix, name, SLOT + timedelta(seconds=seconds))
        for prefix in ("redbeat:", "other:")
        for name in ("a", "b")
        for seconds in (0, 1)
    }
    assert len(ids) == 8
    assert {each.version for each in ids} == {5}
    assert task_id("redbeat:", "a", SLOT) in ids


def test_the_headers_name_the_entry_and_its_slot() -> None:
    options = identified({"queue": "slow"}, "redbeat:", "a", SLOT)
    assert options["queue"] == "slow"
    assert UUID(options["task_id"]) == task_id("redbeat:", "a", SLOT)
    assert options["headers"] == {
        "periodic_task_name": "a",
        "scheduled_at": "2030-12-24T18:00:00+00:00",
    }


def test_what_the_options_say_is_kept_and_they_are_not_changed() -> None:
    given = {"task_id": "mine", "headers": {"scheduled_at": "mine", "x": 1}}
    options = identified(given, "redbeat:", "a", SLOT)
    assert options["task_id"] == "mine"
    assert options["headers"] == {"periodic_task_name": "a", "scheduled_at": "mine", "x": 1}
    assert given == {"task_id": "mine", "headers": {"scheduled_at": "mine", "x": 1}}
    assert identified(None, "redbeat:", "a", SLOT)["task_id"]
