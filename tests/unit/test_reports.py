"""The reports that a beat writes with its heartbeat."""

import json
import time
from dataclasses import asdict

import pytest

from redbeat.beat.reports import (
    DELAY_MINUTES,
    REPORT_INTERVAL,
    Report,
    Reporter,
    beat_name,
    decode_reports,
)
from redbeat.store.keys import OwnKeys
from redbeat.store.storage import Storage
from support.fakes import fake_client

OWN_KEYS = OwnKeys("s", "t", "c", "r")

NOW = 1_800_000_000.0


@pytest.fixture
def storage() -> Storage:
    return Storage(fake_client(), OWN_KEYS)


@pytest.fixture
def reporter(storage: Storage) -> Reporter:
    return Reporter(lambda: storage, lambda: None)


def news(reporter: Reporter, now: float = NOW) -> Report:
    report = reporter.news(now)
    assert report is not None
    return report


def write_for(storage: Storage, name: str, age: float) -> None:
    """Store the report of another beat, written so many seconds ago."""
    at = time.time() - age
    storage.notes.write_report(name, Report("3", at, at, 1, 0, 0.0).encode())


def test_counts_add_up(reporter: Reporter) -> None:
    reporter.count(NOW, runs=3, failures=1, worst_delay=0.5)
    reporter.count(NOW, runs=2, failures=0, worst_delay=0.1)
    report = news(reporter)
    assert (report.runs, report.failures, report.worst_delay) == (5, 1, 0.5)
    assert report.version


def test_the_worst_delay_is_that_of_the_last_minutes(reporter: Reporter) -> None:
    reporter.count(NOW, 1, 0, worst_delay=9)
    reporter.count(NOW + 60, 1, 0, worst_delay=2)
    assert news(reporter, NOW + 60 * (DELAY_MINUTES - 1)).worst_delay == 9
    assert news(reporter, NOW + 60 * DELAY_MINUTES).worst_delay == 2
    assert news(reporter, NOW + 60 * (DELAY_MINUTES + 1)).worst_delay == 0


def test_an_unchanged_report_is_repeated_only_as_a_sign_of_life(reporter: Reporter) -> None:
    news(reporter)
    assert reporter.news(NOW + REPORT_INTERVAL) is None
    news(reporter, NOW + REPORT_INTERVAL + 1)


def test_a_report_is_there_from_its_first_writing_until_it_is_withdrawn(
    reporter: Reporter, storage: Storage
) -> None:
    reporter.count(time.time(), runs=2, failures=1, worst_delay=0.5)
    reporter.write()
    report = decode_reports(storage.notes.read_reports())[beat_name()]
    assert (report.runs, report.failures, report.worst_delay) == (2, 1, 0.5)
    reporter.withdraw()
    assert storage.notes.read_reports() == {}


def test_old_reports_of_other_beats_are_removed(reporter: Reporter, storage: Storage) -> None:
    write_for(storage, "old:1", age=100)
    write_for(storage, "recent:1", age=10)
    write_for(storage, beat_name(), age=100)
    reporter.forget_gone(lifetime=60)
    assert set(storage.notes.read_reports()) == {"recent:1", beat_name()}


def test_a_report_is_decoded_as_it_was_encoded(reporter: Reporter) -> None:
    report = news(reporter)
    assert decode_reports({"host:1": report.encode()}) == {"host:1": report}


@pytest.mark.parametrize("field", ["since", "at"])
@pytest.mark.parametrize("moment", [1e300, -1e300, 1e15, float("inf"), float("nan")])
def test_a_report_with_an_impossible_time_is_left_out(
    reporter: Reporter, field: str, moment: float
) -> None:
    """No date could show it."""
    report = asdict(news(reporter)) | {field: moment}
    assert decode_reports({"host:1": json.dumps(report)}) == {}


def test_a_report_of_infinitely_many_runs_is_left_out(reporter: Reporter) -> None:
    report = asdict(news(reporter)) | {"runs": float("inf")}
    assert decode_reports({"host:1": json.dumps(report)}) == {}


@pytest.mark.parametrize("text", ["", "{", "3", "[]", "{}", '{"version": "1", "since": "x"}'])
def test_what_is_not_a_report_is_left_out(text: str) -> None:
    assert decode_reports({"host:1": text}) == {}
