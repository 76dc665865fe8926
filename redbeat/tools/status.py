"""The command ``status``: who leads, and how late entries run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any

import click

from ..beat.guarantees import Guarantee
from ..beat.holder import Holder
from ..beat.reports import DELAY_MINUTES, Report
from ..beat.settings import application_name
from ..schedulers import ensure_conf, get_storage
from ..store.access import REDIS_ERRORS
from ..store.urls import sanitized
from .arguments import Duration
from .session import Command, Session, UnavailableError, as_json, named, with_session
from .terminal import counted, distance, duration, isoformat, local, to_json


@click.command(cls=Command)
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval", type=Duration(), default="2s", show_default=True, help="Time between updates."
)
@as_json
@with_session
def status(session: Session, watch: bool, interval: timedelta, as_json: bool) -> None:
    """Show who leads, and how late entries run."""
    if not watch:
        _show(session, as_json)
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if session.console.is_terminal:
                click.clear()
            try:
                _show(session, as_json)
            except REDIS_ERRORS as exc:
                # Watch on until the outage ends.
                UnavailableError(session.app, exc).show()
            time.sleep(interval.total_seconds())


def _show(session: Session, as_json: bool) -> None:
    record = _read_status(session)
    if as_json:
        click.echo(to_json(record))
        return
    for heading, value in _lines(record):
        session.console.field(heading, value)


def _read_status(session: Session) -> dict[str, Any]:
    conf, timetable = ensure_conf(session.app), session.timetable
    leader = timetable.leader()
    overdue = timetable.longest_overdue()
    reports = read_reports(session)
    counts: dict[str, int] = {"total": len(timetable)} | dict(timetable.counts())
    return {
        "redis": sanitized(conf.redis_url),
        "lock": conf.lock_key,
        "leader": None if leader is None else _leader_record(leader),
        "delivery": _delivery(reports, leader),
        "application": application_name(session.app) or None,
        "entries": counts,
        "failing": [listing.name for listing in timetable.failing()],
        "overdue_for": max(time.time() - overdue.score, 0.0) if overdue else 0.0,
        "beats": {
            name: asdict(report) | {"since": _time(report.since), "at": _time(report.at)}
            for name, report in reports.items()
        },
    }


def _delivery(reports: Mapping[str, Report], leader: Holder | None) -> str | None:
    """How often a run is sent if a beat fails: as the leader says, or the weakest of all beats."""
    leading = reports.get(f"{leader.host}:{leader.pid}") if leader else None
    said = {report.delivery for report in [leading] if report} or {
        report.delivery for report in reports.values()
    }
    said.discard("")
    weakest = Guarantee.AT_LEAST_ONCE.value
    return weakest if weakest in said else next(iter(said), None)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _leader_record(leader: Holder) -> dict[str, Any]:
    return {
        "host": leader.host or None,
        "pid": leader.pid or None,
        "since": isoformat(leader.since),
        "silence": leader.silence,
        "is_alive": leader.is_alive,
        "application": leader.application or None,
    }


def read_reports(session: Session) -> dict[str, Report]:
    """What beats report; a note on standard error says so if the ACL does not allow reading it."""
    reports = session.timetable.reports()
    if lacks_reports(session):
        click.echo(
            "Reports from beats are left out: this Redis user may not run HGETALL. Allow it in the "
            "ACL.",
            err=True,
        )
    return reports


def lacks_reports(session: Session) -> bool:
    """Whether Redis refused to show the reports."""
    return "HGETALL" in get_storage(session.app).access.refused


def _lines(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    counts, now = record["entries"], datetime.now(timezone.utc)
    yield "Redis", record["redis"]
    yield "Leader", _leader_line(record, now)
    yield "Delivery", record["delivery"] or "not known before the first run"
    yield (
        "Entries",
        f"{counts['total']} ({counts['waiting']} waiting or paused, {counts['overdue']} overdue, "
        f"{counts['finished']} finished, {counts['set aside']} set aside)",
    )
    if record["overdue_for"]:
        yield "Overdue", f"for {duration(record['overdue_for'])}"
    else:
        yield "Overdue", "only entries to be run at once" if counts["overdue"] else "nothing"
    if record["failing"]:
        yield "Failing", named(record["failing"])
    for name, beat in record["beats"].items():
        yield (
            "Beat",
            f"{name}, version {beat['version']}, {counted(beat['runs'], 'run', 'runs')}, "
            f"{counted(beat['failures'], 'failure', 'failures')}, "
            f"worst delay {duration(beat['worst_delay'])} in {DELAY_MINUTES} minutes, "
            f"reported {distance(datetime.fromisoformat(beat['at']), now)}",
        )


def _leader_line(record: dict[str, Any], now: datetime) -> str:
    leader = record["leader"]
    if record["lock"] is None:
        return "none, beats share the work (redbeat_lock_key is None)"
    if leader is None:
        return "none; a standby beat takes over within two seconds, if there is one"
    if leader["host"] is None or leader["since"] is None:
        return "a beat that does not identify itself, such as one of celery-redbeat 2.x"
    since = local(datetime.fromisoformat(leader["since"]), now)
    line = f"{leader['host']} (pid {leader['pid']}), since {since}"
    if len({leader["application"], record["application"]} - {None}) > 1:
        line += f", of another application, {leader['application']!r}"
    if leader["silence"] is not None:
        line += f", last heartbeat {duration(leader['silence'])} ago"
        if not leader["is_alive"]:
            line += "; a standby beat takes over, if there is one"
    return line
