"""Moving from celery-redbeat 2.x to this package and back, on the same data in Redis."""

import sys

import pytest
import redis

from support.messages import read_messages
from support.programs import Project
from support.waiting import wait_until

NAMES = ["interval", "crontab", "rrule"]

# Runs with either package. The last run lies an hour back, so the crontab entry is overdue.
WRITE = """
from datetime import datetime, timedelta, timezone
from celery.schedules import crontab, schedule
from redbeat import RedBeatSchedulerEntry
from redbeat.schedules import rrule
from proj import app

schedules = {
    "interval": schedule(1),
    "crontab": crontab(),
    "rrule": rrule("SECONDLY", dtstart=datetime.now(timezone.utc) - timedelta(days=1)),
}
for name, each in schedules.items():
    RedBeatSchedulerEntry(name, "proj.add", each, args=[name], kwargs={"y": 1}, app=app).save()
"""

MAKE_OVERDUE = """
from datetime import datetime, timedelta, timezone
from redbeat import RedBeatSchedulerEntry
from proj import app

for name in ["interval", "crontab", "rrule"]:
    entry = RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)
    entry.reschedule(last_run_at=datetime.now(timezone.utc) - timedelta(hours=1))
"""


def names_sent(broker: redis.Redis) -> list[str]:
    """The entries whose runs wait in the queue, in order."""
    return [message.args[0] for message in read_messages(broker)]


def run_beat_until_all_ran(project: Project, broker: redis.Redis, python: str) -> None:
    """Run a beat of that interpreter until each entry has been sent, then end it well."""
    broker.flushdb()
    beat = project.beat(python=python)
    wait_until(lambda: set(NAMES) <= set(names_sent(broker)), 60, "a run of each entry")
    assert beat.terminate() == 0
    assert all(message.kwargs == {"y": 1} for message in read_messages(broker))


@pytest.mark.parametrize("writer_is_peer", [True, False], ids=["2.x-writes", "ours-writes"])
def test_a_schedule_survives_moving_to_this_package_and_back(
    project: Project,
    broker: redis.Redis,
    redis_client: redis.Redis,
    peer: str,
    writer_is_peer: bool,
) -> None:
    """Entries of each type run in turn under the one that did not write them and the other.

    So each reads the definitions and the meta that the other has written.
    """
    ours = sys.executable
    writer = peer if writer_is_peer else ours
    project.script(WRITE, python=writer)
    written = {name: redis_client.hget(f"redbeat:{name}", "definition") for name in NAMES}
    reader = ours if writer_is_peer else peer
    for python in (reader, writer, reader):
        project.script(MAKE_OVERDUE, python=python)
        run_beat_until_all_ran(project, broker, python)
    assert written == {name: redis_client.hget(f"redbeat:{name}", "definition") for name in NAMES}


def test_both_packages_write_the_same_bytes(
    project: Project, redis_client: redis.Redis, peer: str
) -> None:
    """The definition of an interval and of a crontab entry is the same text from either writer."""
    texts = []
    for python in (peer, sys.executable):
        redis_client.flushdb()
        project.script(WRITE, python=python)
        texts.append([redis_client.hget(f"redbeat:{name}", "definition") for name in NAMES[:2]])
    assert texts[0] == texts[1]


def test_one_of_a_2_x_beat_and_ours_dispatches(
    project: Project, broker: redis.Redis, peer: str
) -> None:
    """While a 2.x beat holds the lock, ours waits; when that ends, ours continues."""
    project.script(WRITE, python=peer)
    theirs = project.beat(python=peer)
    wait_until(lambda: names_sent(broker), 20, "the first run")
    ours = project.beat()
    ours.wait_for_line("(?i)wait")
    assert "Sending due task" not in ours.log
    theirs.terminate()
    ours.wait_for_line("Sending due task interval")


WRITE_ZONED = """
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo
from redbeat import RedBeatSchedulerEntry
from redbeat.schedules import rrule
from proj import app

berlin = ZoneInfo("Europe/Berlin")
start = datetime.now(berlin).replace(microsecond=0) - timedelta(minutes=5)
for name, until in {"open": None, "ended": start + timedelta(days=3650)}.items():
    rule = rrule("SECONDLY", dtstart=start, until=until)
    RedBeatSchedulerEntry(name, "proj.add", rule, args=[name], kwargs={"y": 1}, app=app).save()
"""

SAVE_ANEW = """
from redbeat import RedBeatSchedulerEntry
from proj import app

for name in ["open", "ended"]:
    entry = RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)
    assert repr(entry)
    entry.save()
"""

SHOW_ZONES = """
from redbeat import RedBeatSchedulerEntry
from proj import app

for name in ["open", "ended"]:
    entry = RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app)
    assert str(entry.schedule.dtstart.tzinfo) == "Europe/Berlin", entry.schedule
"""


def test_2_x_runs_a_rule_in_a_zone_and_saves_it_without_harm(
    project: Project, broker: redis.Redis, peer: str
) -> None:
    """It reads the offset, and ours still reads the zone from what it saved."""
    project.script(WRITE_ZONED)
    beat = project.beat(python=peer)
    wait_until(lambda: {"open", "ended"} <= set(names_sent(broker)), 60, "a run of each entry")
    assert beat.terminate() == 0
    project.script(SHOW_ZONES)
    project.script(SAVE_ANEW, python=peer)
    project.script(SHOW_ZONES)
    run_after = project.beat()
    broker.flushdb()
    wait_until(lambda: {"open", "ended"} <= set(names_sent(broker)), 60, "a run of each entry")
    assert run_after.terminate() == 0
