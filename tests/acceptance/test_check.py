"""`celery redbeat check` beside real beats: it names whatever keeps an entry from running."""

import json
from datetime import datetime, timedelta, timezone

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry, Timetable
from redbeat.beat.holder import new_token
from support.commands import error_of, good, run_in
from support.messages import read_messages
from support.programs import MakeProject, Project
from support.waiting import wait_until

SCHEDULE = "redbeat::schedule"
FAILING = "redbeat::failing"

STATIC = {"static": {"task": "proj.add", "schedule": 1, "args": [1, 2]}}


def store(app: Celery, name: str, **fields: object) -> RedBeatSchedulerEntry:
    """An entry that is due each second, by default with an argument too few for its task."""
    known = {"task": "proj.add", "schedule": schedule(1), "args": [1]} | fields
    return RedBeatSchedulerEntry(name, app=app, **known).save()


@pytest.fixture
def _led(redis_client: redis.Redis) -> None:
    """A leader that is alive."""
    redis_client.set("redbeat::lock", new_token(600, 120), px=600_000)


def test_check_names_an_entry_that_fails_on_every_run_until_it_is_corrected(
    app: Celery, project: Project, redis_client: redis.Redis
) -> None:
    """Also after beat has restarted and the entry has not run again, but not while it is paused."""
    store(app, "lacking")
    store(app, "good", args=[1, 2])
    beat = project.beat()
    wait_until(lambda: redis_client.zscore(FAILING, "redbeat:lacking"), 20, "the failed run")
    assert error_of(run_in(project, "check"), 1) == "Error: the last run failed: lacking"
    assert "lacking" in good(run_in(project, "status"))
    assert json.loads(good(run_in(project, "status", "--json")))["failing"] == ["lacking"]
    good(run_in(project, "check", "--ignore", "failing"))
    assert beat.terminate() == 0
    Timetable(app).pause("lacking")
    again = project.beat()
    again.wait_for_line("Sending due task good")
    good(run_in(project, "check"))
    Timetable(app).resume("lacking")
    assert "lacking" in error_of(run_in(project, "check"), 1)
    store(app, "lacking", args=[1, 2])
    wait_until(lambda: not redis_client.zcard(FAILING), 20, "a run that did not fail")
    good(run_in(project, "check"))


def test_a_deleted_entry_no_longer_counts_as_failing(
    app: Celery, project: Project, redis_client: redis.Redis
) -> None:
    """And the next leader forgets it."""
    entry = store(app, "lacking")
    beat = project.beat()
    wait_until(lambda: redis_client.zscore(FAILING, entry.key), 20, "the failed run")
    entry.delete()
    good(run_in(project, "check"))
    assert beat.terminate() == 0
    project.beat().wait_for_line("This beat leads")
    wait_until(lambda: not redis_client.exists(FAILING), 20, "the note to go")


@pytest.mark.usefixtures("_led")
def test_a_run_by_a_beat_that_did_not_know_of_the_failure_counts(
    app: Celery, project: Project, redis_client: redis.Redis
) -> None:
    """Beats that share the work do not know of each other's failures."""
    ran_at = datetime.now(timezone.utc)
    store(app, "a", args=[1, 2], schedule=schedule(3600), last_run_at=ran_at, total_run_count=1)
    redis_client.zadd(FAILING, {"redbeat:a": ran_at.timestamp() + 1})
    assert "a" in error_of(run_in(project, "check"), 1)
    redis_client.zadd(FAILING, {"redbeat:a": ran_at.timestamp() - 1})
    good(run_in(project, "check"))


def test_check_names_the_first_entries_that_are_set_aside(
    app: Celery, project: Project, redis_client: redis.Redis
) -> None:
    """It also says how many more there are; paused ones do not count."""
    for number in range(5):
        key = store(app, f"bad-{number}").key
        redis_client.hset(key, "definition", "{")
    beat = project.beat()
    wait_until(
        lambda: redis_client.zcount(SCHEDULE, -2, -2) == 5, 20, "the entries to be set aside"
    )
    line = error_of(run_in(project, "check"), 1)
    assert line == "Error: set aside because they cannot run: bad-0, bad-1, bad-2 and 2 more"
    good(run_in(project, "check", "--ignore", "set-aside"))
    assert beat.terminate() == 0
    definition = store(app, "paused", enabled=False).encode_definition()
    for number in range(5):
        redis_client.hset(f"redbeat:bad-{number}", "definition", definition)
    good(run_in(project, "check", "--ignore", "leader"))


@pytest.mark.usefixtures("_led")
def test_check_names_entries_that_beat_will_not_be_able_to_read(
    app: Celery, project: Project, redis_client: redis.Redis
) -> None:
    """Even before they are due."""
    key = store(app, "unread", schedule=schedule(3600), last_run_at=datetime.now(timezone.utc)).key
    good(run_in(project, "check"))
    redis_client.hset(key, "definition", '{"schedule": {"__type__": "unheard of"}}')
    assert error_of(run_in(project, "check"), 1) == "Error: cannot be read: unread"
    good(run_in(project, "check", "--ignore", "broken"))


@pytest.mark.usefixtures("_led")
def test_check_says_everything_that_is_wrong_in_one_line(
    app: Celery, project: Project, redis_client: redis.Redis
) -> None:
    """Except what is ignored."""
    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    store(app, "late", last_run_at=hour_ago)
    store(app, "off", schedule=schedule(3600))
    redis_client.zadd(SCHEDULE, {"redbeat:off": -2, "redbeat:late": hour_ago.timestamp()})
    line = error_of(run_in(project, "check"), 1)
    assert "late is overdue" in line
    assert "; set aside because they cannot run: off" in line
    line = error_of(run_in(project, "check", "--ignore", "overdue"), 1)
    assert "late" not in line
    good(run_in(project, "check", "--ignore", "overdue", "--ignore", "set-aside"))


def test_an_application_on_the_prefix_of_another_is_told_that_it_does_not_run(
    make_project: MakeProject, broker: redis.Redis
) -> None:
    """By the log of its beat, by `status` and by `check`; for the other one all is well."""
    mine = make_project(beat_schedule=STATIC)
    yours = make_project("yours", main="yours: ü@home", beat_schedule=STATIC)
    leader = mine.beat()
    wait_until(lambda: read_messages(broker), 20, "a run")
    standby = yours.beat()
    line = standby.wait_for_line("WARNING.*is held by the application")
    assert "'proj'" in line
    assert "'yours: ü@home'" in line
    assert "redbeat_key_prefix" in line
    line = error_of(run_in(yours, "check"), 1)
    assert "'proj'" in line
    assert "redbeat_key_prefix" in line
    good(run_in(yours, "check", "--ignore", "application"))
    assert "of another application, 'proj'" in good(run_in(yours, "status"))
    shown = json.loads(good(run_in(yours, "status", "--json")))
    assert (shown["leader"]["application"], shown["application"]) == ("proj", "yours: ü@home")
    assert "another application" not in good(run_in(mine, "status"))
    good(run_in(mine, "check"))
    assert leader.terminate() == 0
    standby.wait_for_line("This beat leads")
    assert "'yours: ü@home'" in error_of(run_in(mine, "check"), 1)


@pytest.mark.parametrize("main", ["proj", None, "__main__"])
def test_beats_that_may_belong_to_one_application_do_not_warn(
    make_project: MakeProject, broker: redis.Redis, main: str | None
) -> None:
    """With the same name, or a name that says nothing."""
    leader = make_project(beat_schedule=STATIC)
    other = make_project("other", main=main, beat_schedule=STATIC)
    leader.beat()
    wait_until(lambda: read_messages(broker), 20, "a run")
    standby = other.beat()
    standby.wait_for_line("Waiting for the lock")
    good(run_in(other, "check"))
    assert standby.terminate() == 0
    assert "WARNING" not in standby.log
