"""What a beat reports of its work: a few counts, written with its heartbeat and never per run.

Counting costs a moment per batch. The worst delay is that of the last few minutes: it is kept for
each of them, and older ones are dropped.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

from celery.utils.log import get_logger

from ..store.access import REDIS_ERRORS
from ..store.retrying import not_again, patience
from ..store.storage import Storage
from .guarantees import Guarantee

logger = get_logger("celery.beat")

#: Minutes over which the worst delay is reported.
DELAY_MINUTES = 5

#: Seconds until a report that has not changed is written again, to show that the beat is alive.
REPORT_INTERVAL = 60.0

#: Seconds until the report of a beat that sends nothing any more may be removed by another one.
REPORT_LIFETIME = 3600.0


def beat_name() -> str:
    """The name under which this process reports: ``host:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def package_version() -> str:
    """The version of this package, empty if it was not installed as one."""
    try:
        return version("celery-redbeat")
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Report:
    """What one beat reported last.

    ``runs`` and ``failures`` are counts since ``since``; ``worst_delay`` is in seconds, over the
    last ``DELAY_MINUTES`` minutes before ``at``. ``since`` and ``at`` are seconds since the epoch.
    ``delivery`` is ``"exactly once (same server)"`` or ``"at least once"``, and empty before the
    first run.
    """

    version: str
    since: float
    at: float
    runs: int
    failures: int
    worst_delay: float
    delivery: str = ""

    def encode(self) -> str:
        """The report as it is stored, as JSON."""
        return json.dumps(asdict(self))

    def is_fresh(self, now: float, seconds: float) -> bool:
        """Whether it was written within so many seconds before ``now``."""
        return self.at >= now - seconds


def decode_reports(stored: Mapping[str, str]) -> dict[str, Report]:
    """Decode reports as they are stored, by the name of the beat; leaves out what is not one."""
    reports = {}
    for name, text in stored.items():
        try:
            fields = json.loads(text)
            report = Report(
                str(fields["version"]),
                float(fields["since"]),
                float(fields["at"]),
                int(fields["runs"]),
                int(fields["failures"]),
                float(fields["worst_delay"]),
                str(fields.get("delivery") or ""),
            )
            for moment in (report.since, report.at):
                # Raises an error if there is no such date.
                datetime.fromtimestamp(moment, timezone.utc)
        except (KeyError, OSError, OverflowError, TypeError, ValueError):
            continue
        reports[name] = report
    return reports


class Reporter:
    """Counts what one beat does, and writes reports of it. Redis errors are logged at debug."""

    def __init__(
        self, get_storage: Callable[[], Storage], get_delivery: Callable[[], Guarantee | None]
    ) -> None:
        self.since = time.time()
        self.runs = 0
        self.failures = 0
        self._get_storage = get_storage
        self._get_delivery = get_delivery
        self._version = package_version()
        #: The last minutes and the worst delay in each.
        self._delays: deque[tuple[int, float]] = deque(maxlen=DELAY_MINUTES)
        self._last: Report | None = None
        self._has_written = False

    def count(self, now: float, runs: int, failures: int, worst_delay: float) -> None:
        """Add one batch; ``now`` is seconds since the epoch, ``worst_delay`` seconds."""
        self.runs += runs
        self.failures += failures
        minute = int(now // 60)
        if self._delays and self._delays[-1][0] == minute:
            worst_delay = max(worst_delay, self._delays.pop()[1])
        self._delays.append((minute, worst_delay))

    def news(self, now: float) -> Report | None:
        """The report to write at ``now``; ``None`` if the last one is recent and says the same."""
        oldest = int(now // 60) - DELAY_MINUTES
        # A copy: the heartbeat's thread asks while the main thread counts.
        delays = [worst for minute, worst in tuple(self._delays) if minute > oldest]
        worst_delay, delivery = max(delays, default=0.0), self._get_delivery()
        report = Report(
            self._version,
            self.since,
            now,
            self.runs,
            self.failures,
            worst_delay,
            "" if delivery is None else delivery.value,
        )
        last = self._last
        if last and last.is_fresh(now, REPORT_INTERVAL) and replace(report, at=last.at) == last:
            return None
        self._last = report
        return report

    def write(self) -> None:
        """Write a report if there is news; one round trip."""
        report = self.news(time.time())
        if report is None:
            return
        try:
            self._get_storage().notes.write_report(beat_name(), report.encode())
            self._has_written = True
        except REDIS_ERRORS as exc:
            logger.debug("beat: Cannot write the report of this beat: %s", exc)

    def withdraw(self) -> None:
        """Remove the report of this beat, which ends; one round trip, none if there is none."""
        if not self._has_written:
            return
        try:
            with patience(not_again):
                self._get_storage().notes.forget_reports([beat_name()])
        except REDIS_ERRORS as exc:
            logger.debug("beat: Cannot remove the report of this beat: %s", exc)

    def forget_gone(self, lifetime: float) -> None:
        """Remove the reports of other beats that are older than ``lifetime`` seconds.

        One round trip, two if there are any.
        """
        try:
            reports = decode_reports(self._get_storage().notes.read_reports())
            oldest = time.time() - lifetime
            gone = [name for name, report in reports.items() if report.at < oldest]
            self._get_storage().notes.forget_reports([name for name in gone if name != beat_name()])
        except REDIS_ERRORS as exc:
            logger.debug("beat: Cannot remove the reports of beats that are gone: %s", exc)
