"""The counts that a beat tells with its heartbeat."""

import json
from dataclasses import asdict

import pytest

from redbeat.beat.statistics import (
    DELAY_MINUTES,
    REPORT_INTERVAL,
    Report,
    Statistics,
    decode_reports,
)

NOW = 1_800_000_000.0


def told(statistics: Statistics, now: float = NOW) -> Report:
    report = statistics.news(now)
    assert report is not None
    return report


def test_counts_add_up() -> None:
    statistics = Statistics()
    statistics.count(NOW, runs=3, failures=1, worst_delay=0.5)
    statistics.count(NOW, runs=2, failures=0, worst_delay=0.1)
    report = told(statistics)
    assert (report.runs, report.failures, report.worst_delay) == (5, 1, 0.5)
    assert report.version


def test_the_worst_delay_is_that_of_the_last_minutes() -> None:
    statistics = Statistics()
    statistics.count(NOW, 1, 0, worst_delay=9)
    statistics.count(NOW + 60, 1, 0, worst_delay=2)
    assert told(statistics, NOW + 60 * (DELAY_MINUTES - 1)).worst_delay == 9
    assert told(statistics, NOW + 60 * DELAY_MINUTES).worst_delay == 2
    assert told(statistics, NOW + 60 * (DELAY_MINUTES + 1)).worst_delay == 0


def test_nothing_new_is_told_again_only_as_a_sign_of_life() -> None:
    statistics = Statistics()
    told(statistics)
    assert statistics.news(NOW + REPORT_INTERVAL) is None
    told(statistics, NOW + REPORT_INTERVAL + 1)


def test_a_report_comes_back_as_it_was() -> None:
    report = told(Statistics())
    assert decode_reports({"host:1": report.encode()}) == {"host:1": report}


@pytest.mark.parametrize("field", ["since", "at"])
@pytest.mark.parametrize("moment", [1e300, -1e300, 1e15, float("inf"), float("nan")])
def test_a_report_of_a_time_that_cannot_be_is_left_out(field: str, moment: float) -> None:
    """No date shows it."""
    report = asdict(told(Statistics())) | {field: moment}
    assert decode_reports({"host:1": json.dumps(report)}) == {}


def test_a_report_of_runs_without_number_is_left_out() -> None:
    report = asdict(told(Statistics())) | {"runs": float("inf")}
    assert decode_reports({"host:1": json.dumps(report)}) == {}


@pytest.mark.parametrize("text", ["", "{", "3", "[]", "{}", '{"version": "1", "since": "x"}'])
def test_what_is_no_report_is_left_out(text: str) -> None:
    assert decode_reports({"host:1": text}) == {}
