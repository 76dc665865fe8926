"""The field of the crash campaign, and the table of its outcome."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.campaign import ENTRIES, KEEPING_ALL, Field, LayField, MakeField
from support.programs import Project
from support.runs import KINDS, Runs, Tally
from support.servers import RedisServer, StartRedis
from support.tripwire import MakeTripwire, Tripwire

OUTCOME = "campaign"
COLUMNS = "{:<100} {:>6} {:>8} {:>10} {:>6} {:>8} {:>10}"

#: The tables, and whether each is about the set-up in the folder `one_server`.
ONE_SERVER = "/one_server/"
SET_UPS = {
    "SCHEDULE AND BROKER ON ONE SERVER": True,
    "ON SERVERS OF THEIR OWN, UNLESS A NAME SAYS OTHERWISE": False,
}

HEADINGS = ("rounds", "slots", "unfinished", "lost", "doubled", "in window")


@pytest.fixture
def book(request: pytest.FixtureRequest) -> Iterator[list[Tally]]:
    """What became of the runs of a test, round by round: its line in the table."""
    tallies: list[Tally] = []
    yield tallies
    if tallies:
        request.node.user_properties.append((OUTCOME, _sum_up(tallies)))


@pytest.fixture
def lay_field(tmp_path: Path, book: list[Tally]) -> Iterator[LayField]:
    """Lay a field on servers: `lay_field(schedule_server, broker_server, broker_db, ...)`."""
    with contextlib.ExitStack() as stack:

        def lay(
            schedule_server: RedisServer,
            broker_server: RedisServer,
            broker_db: int = 0,
            entries: int = ENTRIES,
            kinds: Sequence[str] = KINDS,
            size: int = 0,
            **settings: Any,
        ) -> Field:
            schedule = stack.enter_context(contextlib.closing(schedule_server.client()))
            broker = stack.enter_context(contextlib.closing(broker_server.client(broker_db)))
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
                broker_db,
            )
            field.runs.store()
            return field

        yield lay


@pytest.fixture
def make_field(start_redis: StartRedis, lay_field: LayField) -> MakeField:
    """Lay a field: `make_field(400, redbeat_batch_size=10)`; both servers keep data."""

    def make(*args: Any, **options: Any) -> Field:
        servers = [start_redis(**KEEPING_ALL) for _ in range(2)]
        return lay_field(*servers, 0, *args, **options)

    return make


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
        sum(tally.slots for tally in book),
        sum(tally.unfinished for tally in book),
        sum(len(tally.lost) for tally in book),
        sum(len(tally.doubled) for tally in book),
        sum(len(tally.excused) for tally in book),
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many slots each scenario had due, and how many runs were lost and doubled.

    `unfinished` are those that beat had not yet committed when it was struck, and `in window` those
    that were doubled because their batch was caught between the broker's acceptance and the commit.
    """
    terminalreporter.section("campaign: runs that were lost or doubled")
    reports = sorted(_reports(terminalreporter), key=lambda report: report.nodeid)
    for title, is_one_server in SET_UPS.items():
        chosen = [report for report in reports if (ONE_SERVER in report.nodeid) is is_one_server]
        if chosen:
            _print_table(terminalreporter, title, chosen)


def _print_table(
    terminalreporter: pytest.TerminalReporter, title: str, reports: list[pytest.TestReport]
) -> None:
    terminalreporter.line(COLUMNS.format(title, *HEADINGS))
    for report in reports:
        name = report.nodeid.partition("::test_")[2].replace("_", " ")
        terminalreporter.line(COLUMNS.format(name, *_outcome(report)))
    totals = map(sum, zip(*map(_outcome, reports), strict=True))
    terminalreporter.line(COLUMNS.format("all of them", *totals))
    terminalreporter.line("")


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
