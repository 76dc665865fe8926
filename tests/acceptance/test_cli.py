"""`celery -A proj redbeat`, through the real `celery` program."""

import json
import os
import resource
import stat
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry, Timetable
from redbeat.beat.holder import new_token
from redbeat.schedules import once
from support.commands import Run, command, error_of, good, run_in
from support.messages import read_messages
from support.programs import MakeProject, Project
from support.terminals import run_on_a_terminal
from support.waiting import wait_until

UTC = timezone.utc
SCHEDULE = "redbeat::schedule"
STATIC = {"static": {"task": "proj.add", "schedule": 3600, "args": [1, 2]}}
ODD_NAME = "größe: two\nlines"


@pytest.fixture
def redbeat(project: Project) -> Run:
    """Run a command; returns what it printed and its exit code."""
    return lambda *arguments, **options: run_in(project, *arguments, **options)


@pytest.fixture
def timetable(app: Celery) -> Timetable:
    """The same schedule, from Python."""
    return Timetable(app)


def store(app: Celery, name: str, every: float = 3600, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry(name, "proj.add", schedule(every), app=app, **fields).save()


def store_some(app: Celery) -> None:
    """One entry in each of the usual states."""
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    store(app, "waiting", args=[1, 2])
    store(app, "paused", every=7200, enabled=False)
    store(app, "overdue", every=60, last_run_at=hour_ago, total_run_count=3)
    RedBeatSchedulerEntry(
        "finished", "proj.other", once(hour_ago), app=app, last_run_at=hour_ago, total_run_count=1
    ).save()


def test_list_prints_one_entry_per_line_the_next_due_first(app: Celery, redbeat: Run) -> None:
    store_some(app)
    records = [line.split("\t") for line in good(redbeat("list")).splitlines()]
    assert [(record[0], record[-1]) for record in records] == [
        ("overdue", "overdue"),
        ("waiting", "waiting"),
        ("paused", "paused"),
        ("finished", "finished"),
    ]
    assert records[0][1:3] == ["proj.add", "every 1 min"]
    assert "in 60 minutes" in records[1][4] or "in 1 hour" in records[1][4]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--state", "paused"], ["paused"]),
        (["--state", "finished"], ["finished"]),
        (["--task", "*.other"], ["finished"]),
        (["--match", "*i*g"], ["waiting"]),
        (["--limit", "2"], ["overdue", "waiting"]),
    ],
)
def test_list_can_be_narrowed(
    app: Celery, redbeat: Run, options: list[str], names: list[str]
) -> None:
    store_some(app)
    records = json.loads(good(redbeat("list", "--json", *options)))
    assert [record["name"] for record in records] == names


def test_list_of_nothing_is_an_empty_array(redbeat: Run) -> None:
    assert json.loads(good(redbeat("list", "--json"))) == []


def test_list_draws_columns_and_colours_only_on_a_terminal(app: Celery, project: Project) -> None:
    store_some(app)
    screen = on_a_terminal(project, "list")
    assert "\x1b[" in screen
    assert "─" in screen
    assert "Next run" in screen
    assert "\x1b[" not in good(run_in(project, "list"))


def test_a_table_fits_a_narrow_terminal(
    app: Celery, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long names are cut, and times are relative: no row is broken."""
    monkeypatch.setenv("COLUMNS", "80")
    store_some(app)
    store(app, "a name that is much too long for its column " * 3)
    lines = click.unstyle(on_a_terminal(project, "list")).splitlines()
    assert len(lines) == 2 + 5
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1] for line in lines[2:]].count("waiting") == 2
    assert any("in 60 minutes" in line or "in 1 hour" in line for line in lines)


def on_a_terminal(project: Project, *arguments: str) -> str:
    """What a command prints on a terminal."""
    return run_on_a_terminal(command(*arguments), project.directory).text


def test_show_prints_everything_about_an_entry(app: Celery, redbeat: Run) -> None:
    store_some(app)
    text = good(redbeat("show", "waiting"))
    for expected in ("proj.add", "[1, 2]", "every 1 h", "waiting", "redbeat:waiting"):
        assert expected in text
    assert json.loads(good(redbeat("show", "overdue", "--json")))["total_run_count"] == 3


def test_show_says_why_an_entry_is_set_aside(redbeat: Run, redis_client: redis.Redis) -> None:
    note = json.dumps({"reason": "ValueError: no such zone", "definition": ""})
    redis_client.hset("redbeat:aside", mapping={"definition": "{", "set_aside": note})
    redis_client.zadd(SCHEDULE, {"redbeat:aside": -2})
    assert "no such zone" in good(redbeat("show", "aside"))


@pytest.mark.parametrize("name", ["show", "pause", "resume", "run", "delete"])
def test_an_unknown_name_suggests_near_ones(app: Celery, redbeat: Run, name: str) -> None:
    store(app, "cleanup")
    line = error_of(redbeat(name, "clenup"), 1)
    assert line == "Error: There is no entry 'clenup'. Did you mean 'cleanup'?"


def test_upcoming_lists_runs_in_order(app: Celery, redbeat: Run) -> None:
    now = datetime.now(UTC)
    store(app, "often", every=600, last_run_at=now)
    store(app, "seldom", every=1500, last_run_at=now)
    runs = json.loads(good(redbeat("upcoming", "--limit", "4", "--json")))
    assert [each["name"] for each in runs] == ["often", "often", "seldom", "often"]
    assert len(good(redbeat("upcoming", "--until", "25m")).splitlines()) == 3


def test_upcoming_counts_the_runs_at_the_full_hour(app: Celery, redbeat: Run) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    for number in range(5):
        RedBeatSchedulerEntry(f"e{number}", "proj.add", once(hour), app=app).save()
    lines = good(redbeat("upcoming", "--histogram", "--until", "1h")).splitlines()
    assert [line.split("\t")[1].strip() for line in lines] == ["5"]
    counted = json.loads(good(redbeat("upcoming", "--histogram", "--until", "1h", "--json")))
    assert counted == [{"minute": hour.isoformat(), "runs": 5}]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--every", "1h30m"], {"__type__": "interval", "every": 5400.0, "relative": False}),
        (
            ["--cron", "*/5 9-17 * * mon-fri", "--tz", "Europe/Berlin"],
            {
                "__type__": "crontab",
                "minute": "*/5",
                "hour": "9-17",
                "day_of_week": "mon-fri",
                "day_of_month": "*",
                "month_of_year": "*",
                "tz": "Europe/Berlin",
            },
        ),
        (["--rrule", "FREQ=DAILY;BYHOUR=9"], {"__type__": "rrule", "freq": 3, "byhour": [9]}),
        (["--at", "2040-12-24T18:00", "--tz", "America/New_York"], {"__type__": "once"}),
    ],
)
def test_add_stores_an_entry(
    redbeat: Run, redis_client: redis.Redis, options: list[str], expected: dict[str, Any]
) -> None:
    good(redbeat("add", "new", "proj.add", *options, "--args", "[1, 2]", "--kwargs", '{"x": 1}'))
    stored = json.loads(str(redis_client.hget("redbeat:new", "definition")))
    assert (stored["task"], stored["args"], stored["kwargs"]) == ("proj.add", [1, 2], {"x": 1})
    assert {key: stored["schedule"][key] for key in expected} == expected
    assert redis_client.zscore(SCHEDULE, "redbeat:new")


def test_a_time_is_read_in_its_zone(redbeat: Run, timetable: Timetable) -> None:
    good(redbeat("add", "new", "t", "--at", "2040-12-24T18:00", "--tz", "America/New_York"))
    assert timetable["new"].schedule.at.astimezone(UTC) == datetime(2040, 12, 24, 23, tzinfo=UTC)


def test_add_replaces_an_entry_only_on_request(app: Celery, redbeat: Run) -> None:
    store(app, "one")
    assert "--replace" in error_of(redbeat("add", "one", "proj.add", "--every", "5m"), 1)
    good(redbeat("add", "one", "proj.add", "--every", "5m", "--replace", "--paused"))
    shown = json.loads(good(redbeat("show", "one", "--json")))
    assert (shown["schedule"]["every"], shown["state"]) == (300, "paused")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "--every, --cron, --rrule and --at"),
        (["--every", "5m", "--at", "5m"], "--every, --cron, --rrule and --at"),
        (["--every", "often"], "'often' is not a duration. Use a value such as"),
        (["--every", "0s"], "not a duration"),
        (["--every", "5m", "--tz", "UTC"], "omit --tz"),
        (["--cron", "* * * *"], "4 fields instead of five"),
        (["--cron", "* 25 * * *"], "the hour '25' is not valid"),
        (["--cron", "* * * * funday"], "the day of week 'funday' is not valid"),
        (["--cron", "* * * * *", "--tz", "Mars/Base"], "Mars/Base"),
        (["--rrule", "FREQ=OFTEN"], "OFTEN"),
        (["--at", "tomorrow"], "'tomorrow' is not a time. Use a value such as"),
        (["--at", "2024-02-29T12:00+05:00"], "2024-02-29 12:00:00+05:00 is in the past ("),
        (["--every", "5m", "--args", "[1,"], "line 1 column 4"),
        (["--every", "5m", "--args", "{}"], "{} was not an array"),
        (["--every", "5m", "--kwargs", "[]"], "[] was not an object"),
        (["--every", "5m", "--kwargs", '{"x": NaN}'], "JSON has no NaN"),
        (["--every", "5m", "--args", "[" * 5000 + "]" * 5000], "nested too deeply"),
    ],
)
def test_add_says_what_is_wrong_with_its_arguments(
    redbeat: Run, timetable: Timetable, options: list[str], expected: str
) -> None:
    completed = redbeat("add", "new", "proj.add", *options)
    assert expected in " ".join(completed.stderr.split())
    error_of(completed, 2)
    assert not timetable


def test_add_says_how_long_ago_a_time_was_in_its_zone(redbeat: Run, timetable: Timetable) -> None:
    """It would run at once, which is not what such a time is meant for."""
    zone = ZoneInfo("Asia/Tokyo")
    passed = (datetime.now(zone) - timedelta(minutes=90)).strftime("%Y-%m-%dT%H:%M:%S")
    completed = redbeat("add", "new", "proj.add", "--at", passed, "--tz", zone.key, "--paused")
    printed = " ".join(error_of(completed, 2).split())
    assert f"{passed.replace('T', ' ')}+09:00 is in the past (2 hours ago)" in printed
    assert "10m" in printed
    assert not timetable
    good(redbeat("add", "new", "proj.add", "--at", "1ms"))


def test_add_refuses_an_empty_name(redbeat: Run, timetable: Timetable) -> None:
    """As a shell script passes it whose variable is not set."""
    assert "NAME" in error_of(redbeat("add", "", "proj.add", "--every", "5m"), 2)
    assert not timetable


def test_pause_and_resume(app: Celery, redbeat: Run, timetable: Timetable) -> None:
    for name in ("one", "two"):
        store(app, name)
    assert good(redbeat("pause", "one", "two")) == "Paused one\nPaused two\n"
    assert {listing.name for listing in timetable.paused()} == {"one", "two"}
    assert good(redbeat("resume", "one")) == "Resumed one\n"
    assert {listing.name for listing in timetable.paused()} == {"two"}


def test_run_sends_the_task_and_leaves_the_timetable(
    app: Celery, redbeat: Run, broker: redis.Redis, redis_client: redis.Redis
) -> None:
    entry = store(app, "one", args=[3, 4])
    before = redis_client.hgetall(entry.key), redis_client.zscore(SCHEDULE, entry.key)
    assert good(redbeat("run", "one")).startswith("Sent one as ")
    assert [message.args for message in read_messages(broker)] == [[3, 4]]
    assert (redis_client.hgetall(entry.key), redis_client.zscore(SCHEDULE, entry.key)) == before


def test_run_reports_an_unavailable_broker_in_one_line(
    app: Celery, make_project: MakeProject, unused_port: int
) -> None:
    store(app, "one")
    away = f"redis://127.0.0.1:{unused_port}/0"
    project = make_project(broker_url=away, task_publish_retry=False)
    assert "The message could not be sent" in error_of(run_in(project, "run", "one"), 1)


def test_the_same_command_given_twice_adds_an_entry_once(redbeat: Run) -> None:
    add = ("add", "backup", "proj.add", "--every", "1h")
    good(redbeat(*add))
    assert "Entry 'backup' already exists; use --replace" in error_of(redbeat(*add), 1)
    good(redbeat(*add, "--replace"))


def test_delete_asks_first(app: Celery, redbeat: Run, timetable: Timetable) -> None:
    store(app, "one")
    assert redbeat("delete", "one", input="n\n").returncode == 1
    assert "one" in timetable
    good(redbeat("delete", "one", input="y\n"))
    assert "one" not in timetable


@pytest.mark.parametrize("command", ["run", "pause"])
def test_a_place_without_a_definition_is_not_an_entry(
    redbeat: Run, redis_client: redis.Redis, command: str
) -> None:
    """Its own name is not suggested either."""
    redis_client.zadd(SCHEDULE, {"redbeat:ghost": time.time() + 3600})
    assert (
        "has lost its definition; only its place in the schedule is left. Use `delete`"
        in error_of(redbeat(command, "ghost"), 1)
    )


def test_an_empty_name_is_called_empty(redbeat: Run) -> None:
    assert "The name is empty" in error_of(redbeat("show", ""), 1)


def test_add_says_whether_it_replaced_an_entry(app: Celery, redbeat: Run) -> None:
    store(app, "a")
    arguments = ("proj.add", "--every", "5m", "--replace")
    assert good(redbeat("add", "a", *arguments)).startswith("Replaced a: every 5 min")
    assert good(redbeat("add", "b", *arguments)).startswith("Added b: every 5 min")


@pytest.fixture
def with_statics(make_project: MakeProject) -> Project:
    """A project whose beat has stored one static entry and has ended."""
    project = make_project(beat_schedule=STATIC)
    beat = project.beat()
    beat.wait_for_line("This beat leads")
    wait_until(lambda: run_in(project, "show", "static").returncode == 0, 20, "the entry")
    assert beat.terminate() == 0
    return project


@pytest.mark.parametrize("is_known_to_code", [True, False])
def test_deleting_an_entry_of_beat_schedule_says_that_it_comes_back(
    with_statics: Project, is_known_to_code: bool
) -> None:
    """As known from the code or from Redis: the command may run with another configuration."""
    if not is_known_to_code:
        with_statics.configure(**with_statics.settings | {"beat_schedule": {}})
    good(run_in(with_statics, "add", "other", "proj.add", "--every", "1h"))
    printed = good(run_in(with_statics, "delete", "static", "other", "--yes")).splitlines()
    assert printed[0].startswith("Removed static. It is in beat_schedule: beat stores it again")
    assert printed[1] == "Removed other"
    with_statics.configure(**with_statics.settings | {"beat_schedule": STATIC})
    with_statics.beat().wait_for_line("This beat leads")
    wait_until(lambda: run_in(with_statics, "show", "static").returncode == 0, 20, "the entry")


@pytest.mark.parametrize("options", [[], ["--replace"]])
def test_adding_an_entry_of_beat_schedule_says_that_it_is_overwritten(
    with_statics: Project, options: list[str]
) -> None:
    if not options:
        good(run_in(with_statics, "delete", "static", "--yes"))
    printed = good(run_in(with_statics, "add", "static", "proj.add", "--every", "2h", *options))
    assert "beat_schedule" in printed
    assert "next starts" in printed
    printed = good(run_in(with_statics, "add", "other", "proj.add", "--every", "2h", *options))
    assert "beat_schedule" not in printed


def test_an_import_says_which_changes_beat_will_undo(with_statics: Project) -> None:
    exported = good(run_in(with_statics, "export"))
    assert "beat_schedule" not in good(run_in(with_statics, "import", "-", input=exported))
    changed = exported.replace("3600", "1800")
    printed = good(run_in(with_statics, "import", "-", input=changed))
    assert printed.startswith("In beat_schedule: static. Beat restores them when it next starts")
    printed = good(run_in(with_statics, "import", "-", "--prune", input="{}"))
    assert printed.startswith("In beat_schedule: static. Beat restores them when it next starts")


def test_replacing_a_paused_entry_leaves_it_paused(
    app: Celery, redbeat: Run, timetable: Timetable
) -> None:
    """Unless the command says otherwise."""
    store(app, "a", enabled=False)
    printed = good(redbeat("add", "a", "proj.add", "--every", "2h", "--replace"))
    assert "Replaced a" in printed
    assert "still paused" in printed
    assert "resume" in printed
    assert not timetable["a"].enabled
    assert "next run" in good(
        redbeat("add", "a", "proj.add", "--every", "2h", "--replace", "--active")
    )
    assert timetable["a"].enabled
    printed = good(redbeat("add", "a", "proj.add", "--every", "2h", "--replace", "--paused"))
    assert printed.rstrip().endswith("every 2 h, paused")
    assert not timetable["a"].enabled


def test_replacing_an_entry_that_cannot_be_read_does_not_pause_it(
    app: Celery, redbeat: Run, timetable: Timetable, redis_client: redis.Redis
) -> None:
    redis_client.hset(store(app, "a").key, "definition", "{")
    assert "next run" in good(redbeat("add", "a", "proj.add", "--every", "2h", "--replace"))
    assert timetable["a"].enabled


def test_a_time_without_an_offset_is_in_the_zone_of_the_application(
    make_project: MakeProject,
) -> None:
    """Both in `add` and in `upcoming`."""
    project = make_project(timezone="Asia/Tokyo")
    good(run_in(project, "add", "a", "proj.add", "--at", "2040-12-24T18:00"))
    due_at = "2040-12-24T09:00:00+00:00"
    for until, found in {"2040-12-24T17:59": [], "2040-12-24T18:00": [due_at]}.items():
        printed = json.loads(good(run_in(project, "upcoming", "--until", until, "--json")))
        assert [each["due_at"] for each in printed if each["name"] == "a"] == found


def test_a_histogram_cannot_be_limited(redbeat: Run) -> None:
    assert "omit --limit" in error_of(redbeat("upcoming", "--histogram", "--limit", "5"), 2)


def test_status_does_not_call_entries_to_be_run_at_once_late(
    app: Celery, redbeat: Run, redis_client: redis.Redis
) -> None:
    """Other programs write a score of zero for that."""
    store(app, "a")
    redis_client.zadd(SCHEDULE, {"redbeat:a": 0})
    assert "Overdue:    only entries to be run at once" in good(redbeat("status"))


def test_delete_removes_what_is_left_of_an_entry(
    app: Celery, redbeat: Run, redis_client: redis.Redis
) -> None:
    """Its hash without a place in the schedule, or its place without a hash."""
    store(app, "homeless")
    redis_client.zrem(SCHEDULE, "redbeat:homeless")
    redis_client.zadd(SCHEDULE, {"redbeat:gone": 4e9})
    good(redbeat("delete", "homeless", "gone", "--yes"))
    assert not redis_client.keys("*")


@pytest.mark.parametrize("name", [ODD_NAME, "with space", "x" * 10_000])
def test_odd_names_are_listed_shown_and_deleted_like_any_other(
    app: Celery, redbeat: Run, timetable: Timetable, name: str
) -> None:
    store(app, name)
    (line,) = good(redbeat("list")).splitlines()
    assert line.startswith(name.replace("\n", "\\n"))
    assert json.loads(good(redbeat("show", name, "--json")))["name"] == name
    good(redbeat("delete", name, "--yes"))
    assert not timetable


def test_prune_removes_the_finished(app: Celery, redbeat: Run, timetable: Timetable) -> None:
    store_some(app)
    assert good(redbeat("prune", "--dry-run")) == "finished\tfinished\n"
    assert len(timetable) == 4
    assert good(redbeat("prune", "--yes")) == "Removed 1 entry\n"
    assert set(timetable) == {"waiting", "paused", "overdue"}


GOOD = '{"name": "good", "task": "t", "schedule": 3}\n'


def bad_line(**fields: Any) -> str:
    return json.dumps({"name": "bad", "task": "t", "schedule": 3} | fields)


def names_in(exported: str) -> list[str]:
    return [json.loads(line)["name"] for line in exported.splitlines()]


@pytest.fixture
def backup_path(app: Celery, redbeat: Run, tmp_path: Path) -> Path:
    """An export of entries of several kinds."""
    store_some(app)
    good(redbeat("add", ODD_NAME, "t", "--cron", "0 9 * * *", "--tz", "Europe/Berlin"))
    path = tmp_path / "backup.jsonl"
    path.write_text(good(redbeat("export")))
    return path


def test_an_export_comes_back_as_it_was(
    redbeat: Run, backup_path: Path, redis_client: redis.Redis
) -> None:
    """Including runs and due times, on an empty Redis; and its order is stable."""
    hashes = {key: redis_client.hgetall(key) for key in redis_client.keys("redbeat:[^:]*")}
    scores = scores_of(redis_client)
    redis_client.flushdb()
    assert "5 added" in good(redbeat("import", str(backup_path)))
    assert {key: redis_client.hgetall(key) for key in hashes} == hashes
    again = scores_of(redis_client)
    # What is overdue is due at the time of its import.
    assert again.pop("redbeat:overdue") >= scores.pop("redbeat:overdue")
    assert again == scores
    assert good(redbeat("export")) == backup_path.read_text()


def scores_of(client: redis.Redis) -> dict[str, float]:
    members: Any = client.zrange(SCHEDULE, 0, -1, withscores=True)
    return dict(members)


def test_an_import_reads_what_comes_through_a_pipe(
    redbeat: Run, backup_path: Path, redis_client: redis.Redis
) -> None:
    """Its length is not known in advance."""
    redis_client.flushdb()
    assert "5 added" in good(redbeat("import", "-", input=backup_path.read_text()))
    with backup_path.open() as file:
        assert "5 unchanged" in good(redbeat("import", "-", stdin=file))
    assert good(redbeat("export")) == backup_path.read_text()


def test_an_import_of_a_file_that_is_not_utf8_is_refused(
    redbeat: Run, timetable: Timetable, tmp_path: Path
) -> None:
    """Wherever the bad byte is: the entries before it are not stored."""
    file = tmp_path / "schedule.jsonl"
    file.write_bytes(GOOD.encode() * 5000 + b'{"name": "\xff"}')
    assert "is not UTF-8" in error_of(redbeat("import", str(file)), 1)
    assert not timetable


def test_an_export_that_fails_leaves_the_file_as_it_was(
    app: Celery, redbeat: Run, tmp_path: Path
) -> None:
    """A disk that fills up during an export must not cost the last good backup."""
    file = tmp_path / "backups" / "schedule.jsonl"
    file.parent.mkdir()
    file.write_text("the last good one")
    file.chmod(0o640)
    for number in range(5):
        store(app, f"e{number}", args=["x" * FILE_SIZE])
    error = error_of(redbeat("export", "-o", str(file), preexec_fn=limit_files), 1)
    assert str(file) in error
    assert file.read_text() == "the last good one"
    good(redbeat("export", "-o", str(file)))
    assert len(names_in(file.read_text())) == 5
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(file.parent.iterdir()) == [file]


def test_only_its_user_can_read_an_export(app: Celery, redbeat: Run, tmp_path: Path) -> None:
    """Arguments may be secret. An existing file keeps its mode, so that others may read it."""
    store(app, "one")
    file = tmp_path / "schedule.jsonl"
    good(redbeat("export", "-o", str(file), umask=0))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o664)
    good(redbeat("export", "-o", str(file), umask=0))
    assert stat.S_IMODE(file.stat().st_mode) == 0o664


#: Bytes; what else a program writes, as the measured coverage, stays below.
FILE_SIZE = 2_000_000


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))


def test_an_export_can_be_written_to_a_device(app: Celery, redbeat: Run) -> None:
    """It is not replaced."""
    store(app, "one")
    assert names_in(good(redbeat("export", "-o", "/dev/stdout"))) == ["one"]


def test_an_import_shows_the_difference_first(
    app: Celery, redbeat: Run, backup_path: Path, timetable: Timetable
) -> None:
    store(app, "later")
    store(app, "waiting", every=60, args=[1, 2])
    del timetable["paused"]
    printed = good(redbeat("import", str(backup_path), "--dry-run", "--prune"))
    assert "+ paused" in printed
    assert "- later" in printed
    assert "~ waiting\n    schedule:" in printed
    assert "1 added, 1 changed, 1 removed, 3 unchanged" in printed
    assert "later" in timetable
    good(redbeat("import", str(backup_path), "--prune"))
    assert sorted(timetable) == sorted(["waiting", "paused", "overdue", "finished", ODD_NAME])
    assert timetable["waiting"].schedule.seconds == 3600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "The file is empty"),
        ("{", "Line 1, column 2"),
        ("[]", "Line 1: expected an object with the name and fields of an entry, got []"),
        (GOOD + '{"name": "bad", "task": "t"', "Line 2, column 28"),
        (GOOD + '{"name": "bad", "task": "t"}', "Line 2: Entry 'bad'"),
        (GOOD + '{"task": "t", "schedule": 3}', "Line 2: expected an object with the name"),
        (
            GOOD + '{"name": "", "task": "t", "schedule": 3}',
            "Line 2: the name of the entry is empty",
        ),
        (GOOD + GOOD, "Line 2: 'good' is in the file twice"),
        (GOOD + bad_line(schedule={"__type__": "crontab", "hour": "25"}), "25"),
        (GOOD + bad_line(colour=1), "colour"),
        (GOOD + bad_line(args=7), "Line 2: Entry 'bad' cannot be stored: its args"),
        (
            GOOD + bad_line(last_run_at="yesterday"),
            "its last_run_at must be a datetime or None, got 'yesterday'",
        ),
        (
            GOOD + bad_line(enabled="no"),
            "Line 2: Entry 'bad': enabled must be true or false, got 'no'",
        ),
        (GOOD + '{"name": "bad", "task": "t", "task": "u"}', "'task' is in an object twice"),
        # The old form.
        ('{"good": {"task": "t", "schedule": 3}, "bad": {"task": "t"}}', "bad"),
        ('{"good": {"task": "t", "schedule": 3}, "bad": 3}', "Entry 'bad'"),
        (
            '{"bad": {"task": "t", "schedule": 3}, "bad": {}}',
            "'bad' is in an object twice",
        ),
    ],
)
def test_an_import_with_one_bad_entry_changes_nothing(
    redbeat: Run, timetable: Timetable, text: str, expected: str
) -> None:
    assert expected in error_of(redbeat("import", "-", input=text), 1)
    assert not timetable


def test_an_import_restores_an_entry_that_lost_its_place(
    redbeat: Run, backup_path: Path, redis_client: redis.Redis
) -> None:
    redis_client.zrem(SCHEDULE, "redbeat:waiting")
    assert "1 added" in good(redbeat("import", str(backup_path)))
    assert redis_client.zscore(SCHEDULE, "redbeat:waiting")


def test_an_export_names_what_it_cannot_read(
    app: Celery, redbeat: Run, redis_client: redis.Redis
) -> None:
    store(app, "good")
    redis_client.hset("redbeat:torn", "definition", "{")
    redis_client.zadd(SCHEDULE, {"redbeat:torn": 4e9})
    completed = redbeat("export")
    assert "torn" in error_of(completed, 1)
    assert names_in(completed.stdout) == ["good"]


def test_an_entry_that_cannot_be_written_hides_no_other(
    app: Celery, redbeat: Run, redis_client: redis.Redis
) -> None:
    """It counts as broken: JSON nested so deeply can be read, but not written."""
    store(app, "good")
    nested = "[" * 700 + "]" * 700
    definition = f'{{"name": "deep", "task": "proj.add", "schedule": 60, "args": {nested}}}'
    redis_client.hset("redbeat:deep", "definition", definition)
    redis_client.zadd(SCHEDULE, {"redbeat:deep": 4.1e9})
    listed = json.loads(good(redbeat("list", "--json")))
    assert [(each["name"], each["state"]) for each in listed] == [
        ("good", "waiting"),
        ("deep", "broken"),
    ]
    assert "nested too deeply" in listed[1]["reason"]
    assert json.loads(good(redbeat("show", "deep", "--json"))) == listed[1]
    assert "nested too deeply" in good(redbeat("show", "deep"))
    completed = redbeat("export")
    assert "Left out deep: " in error_of(completed, 1)
    assert names_in(completed.stdout) == ["good"]
    mended = '{"name": "deep", "task": "proj.add", "schedule": 60}'
    assert "1 changed" in good(redbeat("import", "-", input=mended))


def test_names_that_are_not_utf8_and_nan_are_listed_and_backed_up(
    app: Celery, redbeat: Run, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """Python writes NaN, and Redis takes any bytes, but what we print is valid JSON."""
    store(app, "nan", kwargs={"x": float("nan")})
    definition = store(app, "sound").encode_definition()
    redis_client.hset(b"redbeat:\xff", "definition", definition)
    redis_client.zadd(SCHEDULE, {b"redbeat:\xff": 4e9})
    records = json.loads(good(redbeat("list", "--json")), parse_constant=refuse_constant)
    assert {record["name"]: record["kwargs"] for record in records} == {
        "nan": {"x": "NaN"},
        "sound": {},
        "\udcff": {},
    }
    file = tmp_path / "schedule.jsonl"
    good(redbeat("export", "--output", str(file)))
    redis_client.flushdb()
    assert good(redbeat("import", str(file))).startswith("3 added")
    assert redis_client.exists(b"redbeat:\xff")


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_a_paused_entry_has_no_next_run(app: Celery, redbeat: Run) -> None:
    store(app, "paused", enabled=False)
    assert good(redbeat("list")).split("\t")[4] == "-"
    assert "Next run:   -\n" in good(redbeat("show", "paused"))


def test_status_and_check_of_a_running_beat(app: Celery, project: Project, redbeat: Run) -> None:
    """The leader is named, and its counts are shown."""
    store(app, "tick", every=1, args=[1, 2])
    beat = project.beat()
    beat.wait_for_line("Acquired lock")
    wait_until(lambda: has_reported_runs(redbeat), 20, "a report of runs")
    text = good(redbeat("status"))
    assert f"(pid {beat.pid})" in text
    assert "failures, worst delay" in text
    assert "All is well" in good(redbeat("check"))
    assert beat.terminate() == 0
    assert "failures, worst delay" not in good(redbeat("status"))


def has_reported_runs(redbeat: Run) -> bool:
    beats = json.loads(good(redbeat("status", "--json")))["beats"]
    return any(printed["runs"] > 0 for printed in beats.values())


def test_watching_survives_an_outage_and_ends_with_ctrl_c(
    make_project: MakeProject, unused_port: int
) -> None:
    """An outage is what people watch for."""
    project = make_project(redbeat_redis_url=f"redis://127.0.0.1:{unused_port}/0")
    watching = project.redbeat("status", "--watch", "--interval", "50ms")
    wait_until(lambda: watching.log.count("is unavailable") > 1, 20, "a second look")
    assert watching.interrupt() == 0
    assert "Aborted" not in watching.log


def test_status_shows_no_password(make_project: MakeProject, redis_server: Any) -> None:
    url = redis_server.url().replace("redis://", "redis://user:sesame@")
    project = make_project(redbeat_redis_url=url)
    completed = run_in(project, "status")
    assert "sesame" not in completed.stdout + completed.stderr
    assert completed.returncode == 3


def test_check_says_what_is_wrong(app: Celery, redbeat: Run, redis_client: redis.Redis) -> None:
    assert error_of(redbeat("check"), 1) == "Error: no beat leads"
    redis_client.set("redbeat::lock", new_token(600, 120), px=300_000)
    assert "has sent no heartbeat for" in error_of(redbeat("check"), 1)
    redis_client.set("redbeat::lock", new_token(600, 120), px=600_000)
    assert "All is well; worst delay in 5 minutes: unknown" in good(redbeat("check"))
    store(app, "late")
    redis_client.zadd(SCHEDULE, {"redbeat:late": time.time() - 3 * 3600})
    assert error_of(redbeat("check"), 1).startswith("Error: late is overdue by 3 h")
    good(redbeat("check", "--max-delay", "4h"))


def test_check_without_a_lock_needs_a_report_of_any_beat(
    app: Celery, make_project: MakeProject
) -> None:
    project = make_project(redbeat_lock_key=None)
    assert "no beat has reported in the last" in error_of(run_in(project, "check"), 1)
    project.beat().wait_for_line("beat: Starting")
    wait_until(lambda: run_in(project, "check").returncode == 0, 20, "a healthy beat")


def test_an_unreachable_redis_is_exit_code_3(make_project: MakeProject, unused_port: int) -> None:
    """In one line, and at once, although the application would wait for Redis for ever."""
    project = make_project(
        redbeat_redis_url=f"redis://127.0.0.1:{unused_port}/0",
        redbeat_redis_options={"retry_period": -1},
    )
    line = error_of(run_in(project, "list"), 3)
    assert f"127.0.0.1:{unused_port}" in line


def test_a_bad_setting_is_exit_code_2(make_project: MakeProject) -> None:
    project = make_project(redbeat_batch_size="many")
    assert "redbeat_batch_size" in error_of(run_in(project, "list"), 2)


def test_beat_and_every_command_report_an_option_that_redis_py_does_not_know(
    make_project: MakeProject,
) -> None:
    """In one line that names the setting, instead of redis-py's traceback."""
    project = make_project(redbeat_redis_options={"sokcet_timeout": 5})
    line = error_of(run_in(project, "list"), 2)
    assert "redbeat_redis_options" in line
    assert "sokcet_timeout" in line
    beat = project.beat()
    wait_until(lambda: not beat.is_running(), 20, "the end of beat")
    assert f"{line}\n" in beat.log
    assert "Traceback" not in beat.log


def test_a_command_without_an_application_says_so(project: Project) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "celery", "redbeat", "list"],
        cwd=project.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert error_of(completed, 2).startswith(
        "Error: No application given; use celery -A proj redbeat. "
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["list"], ["export"], ["status"]], ids=lambda each: each[0])
def test_a_full_disk_is_reported_in_one_line(
    app: Celery, project: Project, arguments: list[str], unbuffered: str
) -> None:
    """There is no room for the output, neither now nor when Python ends."""
    store(app, "one")
    with Path("/dev/full").open("w") as full:
        completed = subprocess.run(
            command(*arguments),
            cwd=project.directory,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert completed.returncode == 1
    assert completed.stderr == "Error: Cannot write the output: No space left on device\n"


def completions(project: Project, typed: str) -> str:
    """What a shell offers at the end of a line."""
    environment = {
        **os.environ,
        "_CELERY_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    completed = subprocess.run(
        [Path(sys.executable).with_name("celery")],
        cwd=project.directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return good(completed)


def test_a_shell_completes_names(app: Celery, project: Project) -> None:
    store(app, "cleanup")
    assert "cleanup" in completions(project, "celery -A proj redbeat show cl")


def test_a_shell_gets_no_names_without_delay_while_redis_is_unavailable(
    make_project: MakeProject, unused_port: int
) -> None:
    """Although beat itself would try for ever."""
    project = make_project(
        redbeat_redis_url=f"redis://127.0.0.1:{unused_port}/0",
        redbeat_redis_options={"retry_period": -1},
    )
    assert completions(project, "celery -A proj redbeat show cl").split() == []


def test_every_command_explains_itself(redbeat: Run) -> None:
    listed = good(redbeat("--help")).partition("Commands:")[2]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    expected = ["add", "check", "delete", "export", "import", "list", "pause", "prune", "resume"]
    assert names == [*expected, "run", "show", "status", "upcoming"]


@pytest.fixture
def many(app: Celery) -> int:
    """100,000 entries."""
    count = 100_000
    for start in range(0, count, 10_000):
        Timetable(app).update(
            {
                f"e{number}": RedBeatSchedulerEntry(f"e{number}", "t", schedule(3600), app=app)
                for number in range(start, start + 10_000)
            }
        )
    return count


def test_a_list_of_100000_entries_streams_and_stays_small(many: int, project: Project) -> None:
    """All are listed in less than 100 MB; the first page does not wait for the rest."""
    measured = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", measured, *command("list")],
        cwd=project.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        began = time.monotonic()
        process.stdout.readline()
        first_after = time.monotonic() - began
        lines = 1 + sum(1 for _ in process.stdout)
        all_after = time.monotonic() - began
        kilobytes = int(process.stderr.read().splitlines()[-1])
    assert lines == many
    assert first_after < all_after / 2
    assert kilobytes < 100_000
