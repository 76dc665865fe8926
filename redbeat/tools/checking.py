"""The command ``check``: whether all is well, for probes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from itertools import islice

import click

from ..beat.reports import DELAY_MINUTES, REPORT_INTERVAL
from ..beat.settings import application_name
from ..schedulers import ensure_conf
from ..timetable.agenda import is_too_late
from ..timetable.listings import Listing
from .arguments import Duration
from .session import Command, Session, named, with_session
from .status import lacks_reports, read_reports
from .terminal import duration

#: How many of the next entries are checked: a probe must not read a whole schedule.
LOOKED_AT = 500


class Checks:
    """Looks for one kind of trouble at a time; each look returns what is wrong, or nothing."""

    def __init__(self, session: Session, max_delay: timedelta) -> None:
        self.app = session.app
        self.session = session
        self.timetable = session.timetable
        self.max_delay = max_delay

    def leader(self) -> str:
        """No beat leads, or the one that does is not alive."""
        if ensure_conf(self.app).lock_key is None:
            return self._sharing_beats()
        leader = self.timetable.leader()
        if leader is None:
            return "no beat leads"
        if leader.is_alive:
            return ""
        assert leader.silence is not None
        return f"the leader {leader.name} has sent no heartbeat for {duration(leader.silence)}"

    def _sharing_beats(self) -> str:
        """None of the beats that share the work is alive."""
        patience = REPORT_INTERVAL + ensure_conf(self.app).failover_timeout
        reports = self.timetable.reports().values()
        if any(report.is_fresh(time.time(), patience) for report in reports):
            return ""
        if lacks_reports(self.session):
            return (
                "it is unknown whether a beat is alive: this Redis user may not run HGETALL. Allow "
                "it in the ACL"
            )
        return f"no beat has reported in the last {duration(patience)}"

    def application(self) -> str:
        """The leader belongs to another application."""
        leader, own = self.timetable.leader(), application_name(self.app)
        if leader is None or not leader.is_of_other(own):
            return ""
        return (
            f"the application {leader.application!r} leads, at {leader.name}, so the beat_schedule "
            f"of {own!r} does not run: give each application its own redbeat_key_prefix"
        )

    def lost(self) -> str:
        """Redis lost the schedule a short while ago."""
        lost_at = self.timetable.lost_at()
        if lost_at is None:
            return ""
        ago = duration(max(time.time() - lost_at.timestamp(), 0.0))
        return f"Redis lost the schedule {ago} ago: save the entries of your programs again"

    def overdue(self) -> str:
        """An entry has been due for too long."""
        overdue = self.timetable.longest_overdue()
        delay = time.time() - overdue.score if overdue else 0.0
        if overdue is None or delay <= self.max_delay.total_seconds():
            return ""
        return f"{overdue.key} is overdue by {duration(delay)}"

    def failing(self) -> str:
        """The last run of some entries failed."""
        names = [listing.name for listing in self.timetable.failing()]
        return f"the last run failed: {named(names)}" if names else ""

    def set_aside(self) -> str:
        """Entries that cannot run; those beyond the first few are counted only."""
        found = list(islice(self.timetable.set_aside(), LOOKED_AT))
        names = [each.name for each in found if each.entry is None or each.entry.enabled]
        others = 0
        if len(found) == LOOKED_AT:
            others = self.timetable.counts()["set aside"] - LOOKED_AT
        return f"set aside because they cannot run: {named(names, others)}" if names else ""

    def broken(self) -> str:
        """Some of the next entries cannot be read."""
        names = [each.name for each in self._next_listings if each.state == "broken"]
        return f"cannot be read: {named(names)}" if names else ""

    def late(self) -> str:
        """Entries that ran while a host's clock was ahead, and are silent until that time."""
        names = [each.name for each in self._next_listings if is_too_late(each, self.max_delay)]
        return f"due later than their schedules allow: {named(names)}" if names else ""

    @cached_property
    def _next_listings(self) -> list[Listing]:
        return list(islice(self.timetable.listings(), LOOKED_AT))


#: The checks by the names under which they can be ignored, in the order of their messages.
CHECKS: dict[str, Callable[[Checks], str]] = {
    "leader": Checks.leader,
    "application": Checks.application,
    "lost": Checks.lost,
    "overdue": Checks.overdue,
    "failing": Checks.failing,
    "set-aside": Checks.set_aside,
    "broken": Checks.broken,
    "late": Checks.late,
}


@click.command(cls=Command)
@click.option(
    "--max-delay", type=Duration(), default="60s", show_default=True, help="How late runs may be."
)
@click.option(
    "--ignore", type=click.Choice(list(CHECKS)), multiple=True, help="Skip this check; repeatable."
)
@with_session
def check(session: Session, max_delay: timedelta, ignore: Sequence[str]) -> None:
    """Check whether all is well.

    For probes: exits with 0, or with 1 and the reasons in one line. A beat of this application must
    lead and be alive. Redis must not have lost the schedule in the last five minutes. No entry may
    be overdue by more than --max-delay, have been set aside, or have failed in its last run. None
    of the next 500 entries may be unreadable, or due later than its schedule allows by more than
    --max-delay. Paused entries do not count. No beat needs to run on this host.
    """
    checks = Checks(session, max_delay)
    found = (look(checks) for name, look in CHECKS.items() if name not in ignore)
    if troubles := [trouble for trouble in found if trouble]:
        raise click.ClickException("; ".join(troubles))
    delays = [report.worst_delay for report in read_reports(session).values()]
    worst = duration(max(delays)) if delays else "unknown until a beat reports runs"
    session.console.say(f"All is well; worst delay in {DELAY_MINUTES} minutes: {worst}")
