"""The field of the crash campaign, and the table of its outcome."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.campaign import ENTRIES, Field, MakeField
from support.programs import Project
from support.runs import KINDS, Runs, Tally
from support.servers import StartRedis
from support.tripwire import MakeTripwire, Tripwire

# Nothing that a server has answered to is gone when it is killed.
KEEPING_ALL = {"appendonly": "yes", "appendfsync": "always"}

OUTCOME = "campaign"
COLUMNS = "{:<84} {:>6} {:>8} {:>10} {:>6} {:>8} {:>10}"

HEADINGS = ("rounds", "runs", "unfinished", "lost", "doubled", "in window")


@pytest.fixture
def book(request: pytest.FixtureRequest) -> Iterator[list[Tally]]:
    """What became of the runs of a test, round by round: its line in the table."""
    tallies: list[Tally] = []
    yield tallies
    if tallies:
        request.node.user_properties.append((OUTCOME, _sum_up(tallies)))


@pytest.fixture
def make_field(start_redis: StartRedis, tmp_path: Path, book: list[Tally]) -> Iterator[MakeField]:
    """Lay a field: `make_field(entries=400, redbeat_batch_size=10)`; both servers keep data."""
    with contextlib.ExitStack() as stack:

        def make(
            entries: int = ENTRIES,
            kinds: Sequence[str] = KINDS,
            size: int = 0,
            **settings: Any,
        ) -> Field:
            schedule_server, broker_server = (start_redis(**KEEPING_ALL) for _ in range(2))
            schedule = stack.enter_context(contextlib.closing(schedule_server.client()))
            broker = stack.enter_context(contextlib.closing(broker_server.client()))
            directory = tmp_path / "project"
            directory.mkdir()
            field = Field(
                schedule_server,
                broker_server,
                schedule,
                broker,
                stack.enter_context(contextlib.closing(Project(directory))),
                Runs(schedule, broker, entries, kinds, size),
                settings,
                book,
            )
            field.runs.store()
            return field

        yield make


@pytest.fixture
def field(make_field: MakeField) -> Field:
    """A field without a leader: beats share the work."""
    return make_field()


@pytest.fixture
def make_tripwire() -> Iterator[MakeTripwire]:
    """Stretch a tripwire before a server: `make_tripwire(server)`."""
    with contextlib.ExitStack() as stack:

        def make(*args: Any) -> Tripwire:
            tripwire = Tripwire(*args)
            stack.callback(tripwire.refuse)
            return tripwire

        yield make


def _sum_up(book: list[Tally]) -> list[int]:
    return [
        len(book),
        sum(tally.runs for tally in book),
        sum(tally.unfinished for tally in book),
        sum(len(tally.lost) for tally in book),
        sum(len(tally.doubled) for tally in book),
        sum(len(tally.excused) for tally in book),
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many runs each scenario had due, lost and doubled.

    `unfinished` are those that beat had not yet committed when it was struck, and `in window` those
    that were doubled because their batch was caught between the broker's acceptance and the commit.
    """
    terminalreporter.section("campaign: runs that were lost or doubled")
    terminalreporter.line(COLUMNS.format("", *HEADINGS))
    for report in _reports(terminalreporter):
        name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        terminalreporter.line(COLUMNS.format(name, *_outcome(report)))


def _reports(terminalreporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    return [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown" and _outcome(report)
    ]


def _outcome(report: pytest.TestReport) -> list[int]:
    outcome: Any = dict(report.user_properties).get(OUTCOME, [])
    return list(outcome)
