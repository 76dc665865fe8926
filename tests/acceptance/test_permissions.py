"""Real beats and commands of a user with few rights: those that 2.x needs, or all but one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatSchedulerEntry, Timetable
from support.apps import MakeApp
from support.commands import Completed, error_of, good, run_in
from support.messages import read_messages
from support.permissions import EVERYTHING, SUFFICIENT, guard
from support.programs import MakeProject, Program, Project
from support.servers import StartRedis
from support.waiting import wait_until

#: What is used where it is allowed, though celery-redbeat 2.x does not need it: each with what a
#: warning says that is lost, and nothing where nothing is.
OPTIONAL = {
    "config": "Allow CONFIG GET",
    "eval -evalsha -script": "does not run scripts",
    "exists": "",
    "hdel": "",
    "hexists": "",
    "hgetall": "may not run HGETALL ",
    "info": "may not run INFO ",
    "publish": "may not run PUBLISH ",
    "subscribe": "may not run SUBSCRIBE ",
    "unsubscribe": "",
    "zcard": "",
    "zcount": "",
}

STATIC = {"static": {"task": "proj.add", "schedule": 1, "args": ["static", 2]}}


@dataclass
class Guest:
    """A project whose user has few rights, and an application with the same user."""

    project: Project
    app: Celery
    broker: redis.Redis

    def beat(self) -> Program:
        """Start a beat."""
        return self.project.beat()

    def save(self, name: str, timing: object, **fields: Any) -> RedBeatSchedulerEntry:
        """Store an entry whose messages tell its name."""
        return RedBeatSchedulerEntry(
            name, "proj.add", timing, args=[name, 1], app=self.app, **fields
        ).save()

    def runs(self, name: str) -> int:
        """How many messages of an entry the broker has."""
        return [message.args[0] for message in read_messages(self.broker)].count(name)

    def wait_for_run(self, name: str, timeout: float = 15) -> None:
        """Wait until the entry is sent once more."""
        before = self.runs(name)
        wait_until(lambda: self.runs(name) > before, timeout, f"a run of {name}")


@pytest.fixture
def make_guest(
    make_project: MakeProject,
    make_app_with: MakeApp,
    start_redis: StartRedis,
    broker: redis.Redis,
) -> Callable[[str], Guest]:
    """Make a guest with such rights on a server of its own: `make_guest(rules)`."""

    def make(rules: str) -> Guest:
        url = guard(start_redis(), rules).guest_url
        settings = {
            "redbeat_redis_url": url,
            "redbeat_poll_interval": 0.5,
            "redbeat_failover_timeout": 2,
            "result_expires": None,
        }
        project = make_project(beat_schedule=STATIC, **settings)
        return Guest(project, make_app_with(**settings), broker)

    return make


@pytest.fixture
def guest(make_guest: Callable[[str], Guest]) -> Guest:
    """One who may do what celery-redbeat 2.x needs, and nothing else."""
    return make_guest(SUFFICIENT)


def next_minute() -> crontab:
    return crontab(minute="*")


def test_a_program_stores_edits_and_deletes_entries(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    """With one warning: beat notices the changes later."""
    saved = guest.save("a", schedule(60))
    saved.save()
    assert RedBeatSchedulerEntry.from_key(saved.key, app=guest.app).task == "proj.add"
    saved.reschedule()
    assert saved.rank == 0
    timetable = Timetable(guest.app)
    timetable.pause("a")
    assert not timetable["a"].enabled
    assert timetable.add("b", {"task": "proj.add", "schedule": 60})
    assert len(timetable) == 2
    assert sorted(timetable) == ["a", "b"]
    assert timetable.counts() == {"waiting": 2, "overdue": 0, "finished": 0, "set aside": 0}
    del timetable["b"]
    with pytest.raises(KeyError):
        del timetable["b"]
    assert timetable.discard([timetable.listing("a")]) == ["a"]
    assert len(timetable) == 0
    saved.save().delete()
    assert saved.rank is None
    (told,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "PUBLISH" in told
    assert "redbeat_poll_interval" in told


def test_beat_sends_notices_edits_and_starts_again(guest: Guest) -> None:
    """Static, stored and calendar entries; each missing command is named once."""
    long_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    guest.save("calendar", next_minute(), last_run_at=long_ago)
    beat = guest.beat()
    guest.wait_for_run("static")
    wait_until(lambda: guest.runs("calendar"), 10, "the calendar entry")
    guest.save("later", schedule(1))
    guest.wait_for_run("later")
    RedBeatSchedulerEntry.from_key("redbeat:later", app=guest.app).delete()
    for _ in range(3):
        guest.wait_for_run("static")
    for command in ("PUBLISH", "SUBSCRIBE", "HGETALL", "INFO"):
        assert beat.log.count(f"may not run {command} ") == 1
    assert beat.terminate() == 0
    count = RedBeatSchedulerEntry.from_key("redbeat:static", app=guest.app).total_run_count
    assert count == guest.runs("static")
    again = guest.beat()
    guest.wait_for_run("static")
    assert again.terminate() == 0
    for log in (beat.log, again.log):
        assert "Traceback" not in log
        assert "ERROR" not in log


def test_two_beats_replace_each_other(guest: Guest) -> None:
    leader = guest.beat()
    guest.wait_for_run("static")
    standby = guest.beat()
    standby.wait_for_line("Waiting for the lock")
    leader.kill()
    standby.wait_for_line("This beat leads: the lock .* taken over from")
    guest.wait_for_run("static")


def test_an_entry_that_is_set_aside_runs_once_it_is_repaired(guest: Guest) -> None:
    """Its reason cannot be removed, but is empty."""
    entry = guest.save("broken", schedule(1))
    client = guest.app.redbeat_redis
    client.hset(entry.key, "definition", "{")
    beat = guest.beat()
    beat.wait_for_line("Set aside redbeat:broken")
    shown = good(run_in(guest.project, "show", "broken"))
    assert "set aside" in shown
    client.hset(entry.key, "definition", entry.encode_definition())
    guest.wait_for_run("broken")
    client.hset(entry.key, "definition", "{")
    wait_until(lambda: client.zscore("redbeat::schedule", entry.key) == -2, 15, "the score")
    entry.save()
    guest.wait_for_run("broken")
    assert Timetable(guest.app).listing("broken").reason == ""


def test_every_command_does_its_work(guest: Guest) -> None:
    """Those that report on beats say what they cannot know."""

    def redbeat(*arguments: str) -> Completed:
        return run_in(guest.project, *arguments)

    beat = guest.beat()
    guest.wait_for_run("static")
    good(redbeat("add", "a", "proj.add", "--every", "1h", "--args", "[1, 2]"))
    good(redbeat("add", "a", "proj.add", "--every", "2h", "--args", "[1, 2]", "--replace"))
    assert "every 2 h" in good(redbeat("list", "--match", "a"))
    good(redbeat("show", "a"))
    good(redbeat("upcoming", "--limit", "3"))
    good(redbeat("pause", "a"))
    good(redbeat("resume", "a"))
    good(redbeat("run", "a"))
    exported = good(redbeat("export"))
    good(redbeat("delete", "a", "--yes"))
    imported = run_in(guest.project, "import", "-", input=exported)
    assert good(imported).startswith("1 added")
    good(redbeat("prune", "--yes"))
    told = redbeat("status", "--json")
    assert json.loads(good(told))["entries"]["total"] == 2
    assert "HGETALL" in told.stderr
    assert "Traceback" not in told.stderr
    checked = redbeat("check")
    assert "All is well" in good(checked)
    assert "HGETALL" in checked.stderr
    assert beat.terminate() == 0


@pytest.mark.parametrize("command", OPTIONAL)
def test_beat_sends_without_any_one_optional_command(
    make_guest: Callable[[str], Guest], command: str
) -> None:
    """And an entry that is stored meanwhile is sent as well."""
    guest = make_guest(f"{EVERYTHING} -{command}")
    beat = guest.beat()
    guest.wait_for_run("static")
    guest.save("later", schedule(1))
    guest.wait_for_run("later")
    Timetable(guest.app).pause("later")
    assert beat.terminate() == 0
    assert "Traceback" not in beat.log
    assert "ERROR" not in beat.log
    warning = OPTIONAL[command]
    if warning and command != "publish":
        assert beat.log.count(warning) == 1
    good(run_in(guest.project, "list"))
    assert len(Timetable(guest.app)) == 2


def test_a_command_names_what_it_may_not_run(make_guest: Callable[[str], Guest]) -> None:
    """In one line: it cannot do its work without that."""
    guest = make_guest(f"{EVERYTHING} -zrangebyscore")
    line = error_of(run_in(guest.project, "list"), 3)
    assert "zrangebyscore" in line.lower()


def test_check_cannot_tell_whether_beats_without_a_leader_are_alive(
    make_guest: Callable[[str], Guest],
) -> None:
    guest = make_guest(SUFFICIENT)
    guest.project.configure(**guest.project.settings, redbeat_lock_key=None)
    line = error_of(run_in(guest.project, "check"), 1)
    assert "HGETALL" in line
    assert "unknown" in line
