"""Users who delete and save entries while beat dispatches them."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any

import pytest
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatSchedulerEntry
from support.apps import MakeApp
from support.campaign import ROUNDS, Field, MakeField
from support.messages import read_messages
from support.runs import DAY, PREFIX, SCHEDULE_KEY, Tally
from support.targets import compare, numbered
from support.waiting import wait_until

OFTEN = 0.2
DELETED = 400
EDITED = 100
EDITS_PER_ROUND = 500
LATE_RUNS = 5

# Seconds: the run that was under way at an edit is counted, and does not move the time of the edit.
SLACK = 5


def save(app: Celery, name: str, version: int, every: float) -> None:
    """Save an entry whose messages carry its name and its version."""
    entry = RedBeatSchedulerEntry(name, "proj.record", schedule(every), [[name, version]], app=app)
    entry.save()


def versions_sent(field: Field) -> dict[str, list[int]]:
    """The versions of each entry in the order in which they were sent."""
    versions = defaultdict(list)
    for message in read_messages(field.broker):
        name, version = message.args[0]
        versions[name].append(version)
    return versions


def wait_for_runs(field: Field, versions: dict[str, int]) -> None:
    """Wait until each of these entries has run a few times more, in this version."""
    sent_before = field.runs.count_sent()

    def have_run() -> bool:
        late = Counter(
            tuple(message.args[0]) for message in read_messages(field.broker)[sent_before:]
        )
        return all(late[entry] >= LATE_RUNS for entry in versions.items())

    wait_until(have_run, 60, f"runs of {versions}")


#: What beats tell of their work.
REPORTS_KEY = f"{PREFIX}:reports"


@pytest.fixture
def field(make_field: MakeField) -> Field:
    """A field on which nothing is stored yet."""
    return make_field(entries=0)


@pytest.fixture
def app(make_app_with: MakeApp, field: Field) -> Celery:
    """The user's application, on the field's schedule."""
    return make_app_with(redbeat_redis_url=field.schedule_server.url())


@pytest.mark.timeout(300)
def test_entries_deleted_while_they_are_dispatched_stay_deleted(field: Field, app: Celery) -> None:
    """No member and no hash of 400 entries comes back, and none of them runs again."""
    names = [f"deleted-{number:03d}" for number in range(DELETED)]
    for name in [*names, "neighbour"]:
        save(app, name, 1, OFTEN)
    beat = field.start_beat()
    field.runs.wait_for_first_message()
    for name in random.sample(names, DELETED):
        RedBeatSchedulerEntry.from_key(f"{PREFIX}{name}", app=app).delete()
    wait_for_runs(field, {"neighbour": 1})
    own = {REPORTS_KEY, f"{PREFIX}:zone"}
    left = set(field.schedule.keys(f"{PREFIX}*")) - own
    assert left == {SCHEDULE_KEY, f"{PREFIX}neighbour"}
    assert field.schedule.zrange(SCHEDULE_KEY, 0, -1) == [f"{PREFIX}neighbour"]
    sent = {name: len(versions) for name, versions in versions_sent(field).items()}
    wait_for_runs(field, {"neighbour": 1})
    assert beat.terminate() == 0
    later = {name: len(versions) for name, versions in versions_sent(field).items()}
    assert {name for name in names if sent.get(name) != later.get(name)} == set()
    assert field.schedule.zrange(SCHEDULE_KEY, 0, -1) == [f"{PREFIX}neighbour"]


@pytest.mark.timeout(1200)
def test_edits_win_against_a_busy_beat_and_every_run_is_counted(field: Field, app: Celery) -> None:
    """Entries are switched between often and seldom, in any state that a dispatch can have.

    An edit that is undone leaves an entry that should run often waiting for a day, or one that
    should wait running in a version of the past.
    """
    final = make_entries(app)
    beat = field.start_beat()
    field.runs.wait_for_first_message()
    for version in range(1, 1 + EDITS_PER_ROUND * max(2, ROUNDS // 5)):
        name = random.choice(list(final))
        final[name] = (version, random.choice([OFTEN, DAY]))
        save(app, name, *final[name])
    often = {name: version for name, (version, every) in final.items() if every == OFTEN}
    wait_for_runs(field, often)
    assert beat.terminate() == 0
    assert_edits_stand(field, final)
    tally = tally_counts(field, final)
    field.book.append(tally)
    assert not tally.lost + tally.doubled, tally


def make_entries(app: Celery) -> dict[str, tuple[int, float]]:
    """Save entries that run often; gives version and interval of each."""
    final = {f"edited-{number:03d}": (0, OFTEN) for number in range(EDITED)}
    for name, (version, every) in final.items():
        save(app, name, version, every)
    return final


def assert_edits_stand(field: Field, final: dict[str, tuple[int, float]]) -> None:
    """Definition and time are those of the last edit, and no older version ran after a newer."""
    sent = versions_sent(field)
    for name, (version, every) in final.items():
        stored = json.loads(field.schedule.hget(f"{PREFIX}{name}", "definition") or "{}")
        assert stored["args"] == [[name, version]], name
        assert stored["schedule"]["every"] == every, name
        assert sent[name] == sorted(sent[name]), name
        next_run = field.schedule.zscore(SCHEDULE_KEY, f"{PREFIX}{name}")
        last_run = last_run_of(field, name)
        assert abs((next_run or 0) - (last_run + every)) < SLACK, name


def last_run_of(field: Field, name: str) -> float:
    """When the entry ran last, as its meta says."""
    text: Any = field.schedule.hget(f"{PREFIX}{name}", "meta")
    return float(RedBeatSchedulerEntry.decode_meta(text)["last_run_at"].timestamp())


def tally_counts(field: Field, names: Collection[str]) -> Tally:
    """Compare the messages with what the meta of each entry counts."""
    sent = {name: len(versions) for name, versions in versions_sent(field).items() if name in names}
    counted = {name: field.runs.counted(name) for name in names}
    verdict = compare(numbered(counted), numbered(sent))
    return Tally(sum(counted.values()), lost=verdict.lost, doubled=verdict.doubled)
