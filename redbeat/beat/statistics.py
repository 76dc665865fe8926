"""What a beat tells of its work: a few counts, written with its heartbeat and never per run.

Counting costs a moment per batch. The worst delay is that of the last few minutes: it is kept per
minute, and old minutes are forgotten.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

#: Minutes over which the worst delay is reported.
DELAY_MINUTES = 5

#: Seconds until a report that has not changed is written again, as a sign of life.
REPORT_INTERVAL = 60.0

#: Seconds after which the report of a beat that is gone may be forgotten.
REPORT_LIFETIME = 3600.0


def beat_name() -> str:
    """How this process is known to others: ``host:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def package_version() -> str:
    """The version of this package, empty if it was not installed as one."""
    try:
        return version("celery-redbeat")
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Report:
    """What one beat told last.

    ``runs`` and ``failures`` are counts since ``since``; ``worst_delay`` is in seconds, over the
    last ``DELAY_MINUTES`` minutes before ``at``. ``since`` and ``at`` are seconds since the epoch.
    """

    version: str
    since: float
    at: float
    runs: int
    failures: int
    worst_delay: float

    def encode(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self))

    def is_fresh(self, now: float, seconds: float) -> bool:
        """Whether it was told within so many seconds before ``now``."""
        return self.at >= now - seconds


def decode_reports(stored: Mapping[str, str]) -> dict[str, Report]:
    """The reports by the name of the beat; what is no report is left out."""
    reports = {name: _decode(text) for name, text in stored.items()}
    return {name: report for name, report in reports.items() if report is not None}


def _decode(text: str) -> Report | None:
    try:
        told = json.loads(text)
        report = Report(**{field.name: _typed(field.type, told[field.name]) for field in FIELDS})
        _require_times(report.since, report.at)
    except (KeyError, OSError, OverflowError, TypeError, ValueError):
        return None
    return report


def _require_times(*moments: float) -> None:
    """Raise what a datetime raises that cannot hold one of them."""
    for moment in moments:
        datetime.fromtimestamp(moment, timezone.utc)


FIELDS = fields(Report)


def _typed(kind: Any, value: Any) -> Any:
    return {"str": str, "int": int, "float": float}[kind](value)


class Statistics:
    """The counts of one beat, from its start on."""

    def __init__(self) -> None:
        self.since = time.time()
        self.runs = 0
        self.failures = 0
        #: Minute and worst delay in it, of the last minutes.
        self._delays: deque[tuple[int, float]] = deque(maxlen=DELAY_MINUTES)
        self._version = package_version()
        self._told: Report | None = None

    def count(self, now: float, runs: int, failures: int, worst_delay: float) -> None:
        """Add one batch; ``now`` is seconds since the epoch, ``worst_delay`` seconds."""
        self.runs += runs
        self.failures += failures
        minute = int(now // 60)
        if self._delays and self._delays[-1][0] == minute:
            worst_delay = max(worst_delay, self._delays.pop()[1])
        self._delays.append((minute, worst_delay))

    def news(self, now: float) -> Report | None:
        """What is to be told at ``now``; ``None`` if all is as it was told not long ago."""
        report = Report(
            self._version, self.since, now, self.runs, self.failures, self._worst_delay(now)
        )
        told = self._told
        if (
            told is not None
            and told.is_fresh(now, REPORT_INTERVAL)
            and _says_the_same(told, report)
        ):
            return None
        self._told = report
        return report

    def _worst_delay(self, now: float) -> float:
        oldest = int(now // 60) - DELAY_MINUTES
        # A copy: the heartbeat asks while the main thread counts.
        return max((worst for minute, worst in tuple(self._delays) if minute > oldest), default=0.0)


def _says_the_same(one: Report, other: Report) -> bool:
    return (one.runs, one.failures, one.worst_delay) == (
        other.runs,
        other.failures,
        other.worst_delay,
    )
