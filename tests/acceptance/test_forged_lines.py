"""Names and texts that others put into Redis forge no lines in logs and output."""

import json
import re
import time
from typing import Any

import pytest
import redis

from support.commands import good, run_in
from support.messages import read_messages
from support.programs import Project
from support.waiting import wait_until

FORGED = "x\n[2026-01-01 00:00:00: CRITICAL/MainProcess] FORGED\x1b[2J\x9b\u202e\u2028\x7f"


def assert_only_own_lines(text: str) -> None:
    """Lines of programs, and none of what stands in Redis."""
    assert "FORGED" in text
    for line in text.split("\n"):
        assert not line.startswith("[2026-01-01 00:00:00")
        assert line.isprintable(), line


def definition(name: str, **fields: Any) -> str:
    schedule = {"__type__": "interval", "every": 1.0, "relative": False}
    return json.dumps({"name": name, "task": "proj.add", "schedule": schedule, **fields})


def store(client: redis.Redis, name: str, text: str) -> None:
    client.hset(f"redbeat:{name}", "definition", text)
    client.zadd("redbeat::schedule", {f"redbeat:{name}": time.time() - 1})


ENTRIES = {
    "good": definition(FORGED, args=[FORGED]),
    "task": definition("task", task=f"proj.{FORGED}"),
    "broken": FORGED,
    "unknown field": definition("unknown", **{FORGED: 1}),
    "schedule": definition("schedule", schedule={"__type__": "crontab", "minute": FORGED}),
    "zone": definition("zone", schedule={"__type__": "crontab", "minute": "1", "tz": FORGED}),
    "unsendable": definition("unsendable", options={"serializer": FORGED}),
    "bad arguments": definition("bad", args=FORGED, kwargs=[FORGED]),
    "bad count": definition("count", total_run_count=FORGED),
    "lazy": definition("lazy", args=[{"__type__": "beat_lazy_func", "function": FORGED}]),
}


@pytest.fixture
def field(project: Project, redis_client: redis.Redis) -> Project:
    """A project among such entries."""
    for name, text in ENTRIES.items():
        store(redis_client, f"{name} {FORGED}", text)
    redis_client.zadd("redbeat::schedule", {f"redbeat:gone {FORGED}": time.time() - 1})
    return project


def test_no_entry_can_forge_a_line_of_the_log(
    field: Project, redis_client: redis.Redis, broker: redis.Redis
) -> None:
    """Whatever is wrong with the entry, also at debug."""
    redis_client.sadd("redbeat::statics", f"old {FORGED}")
    redis_client.hset("redbeat::reports", FORGED, "{}")
    beat = field.beat(level="debug")
    wait_until(lambda: len(read_messages(broker)) > 2, 20, "some runs")
    for pattern in (r"its hash is gone", r"Set aside redbeat:broken", r"Message Error", "Removing"):
        beat.wait_for_line(pattern)
    assert beat.terminate() == 0
    assert_only_own_lines(beat.log)
    assert re.search(r"Scheduler: Sending due task x\\n\[2026", beat.log)


@pytest.mark.parametrize(
    "token",
    [FORGED, f"{FORGED}:1:0123456789abcdef:5000:5000:{int(time.time())}".replace("\n", " ")],
    ids=["2.x", "ours"],
)
def test_a_standby_names_the_holder_in_one_line(
    project: Project, redis_client: redis.Redis, token: str
) -> None:
    """In its banner, too."""
    redis_client.set("redbeat::lock", token, px=600_000)
    beat = project.beat()
    beat.wait_for_line("Waiting for the lock")
    status = run_in(project, "status")
    checked = run_in(project, "check")
    beat.kill()
    assert_only_own_lines(beat.log)
    assert "leader ->" in beat.log
    assert all(line.isprintable() for line in (status.stdout + checked.stderr).split("\n"))


def test_no_entry_can_forge_a_line_of_a_command(field: Project, redis_client: redis.Redis) -> None:
    """JSON output keeps its meaning."""
    redis_client.hset("redbeat::reports", FORGED, report(FORGED))
    redis_client.zadd("redbeat::failing", {f"redbeat:good {FORGED}": 1})
    name = f"good {FORGED}"
    commands: list[tuple[str, ...]] = [
        ("list",),
        ("show", name),
        ("show", f"broken {FORGED}"),
        ("upcoming",),
        ("status",),
        ("check",),
        ("pause", name),
        ("resume", name),
        ("pause", f"no {FORGED}"),
        ("run", f"unsendable {FORGED}"),
        ("prune", "--dry-run"),
        ("export",),
        ("add", name, "proj.add", "--every", "1h"),
        ("add", f"new {FORGED}", "proj.add", "--every", "1h"),
        ("delete", f"new {FORGED}", "--yes"),
    ]
    for command in commands:
        completed = run_in(field, *command)
        assert_only_own_lines((completed.stdout + completed.stderr).replace("\t", " "))
    for command in (("list", "--json"), ("show", name, "--json"), ("status", "--json")):
        text = good(run_in(field, *command))
        assert_only_own_lines(text)
        assert FORGED in json.dumps(json.loads(text), ensure_ascii=False).replace(
            r"\n", "\n"
        ).replace(r"\u001b", "\x1b")


def report(version: str) -> str:
    told = {"version": version, "since": 1.0, "at": time.time(), "runs": 1}
    return json.dumps(told | {"failures": 0, "worst_delay": 0.0})


def test_the_repr_of_an_entry_is_one_line(project: Project) -> None:
    """As programs print it."""
    source = f"""
from redbeat import RedBeatSchedulerEntry
from proj import app
print(RedBeatSchedulerEntry({FORGED!r}, "proj.add", 60, args=[{FORGED!r}], app=app))
"""
    assert_only_own_lines(project.script(source))
