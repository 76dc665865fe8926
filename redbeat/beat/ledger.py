"""What a beat notes about the runs it made: counts for its report, and the entries that fail."""

from __future__ import annotations

import time

from .batch import Batch
from .failing import Failing
from .reports import Reporter


class Ledger:
    """The notes of one beat; a Redis that is away costs a note, never a run."""

    def __init__(self, reporter: Reporter, failing: Failing) -> None:
        self.reporter = reporter
        self.failing = failing

    def take_over(self, lifetime: float) -> None:
        """Read what other beats have noted, and forget those silent for ``lifetime`` seconds."""
        self.reporter.forget_gone(lifetime)
        self.failing.load()

    def note(self, batch: Batch) -> None:
        """Note the runs of a batch that is committed; at most one round trip."""
        runs = batch.runs()
        failed = [run.key for run in runs if run.failure is not None]
        succeeded = [run.key for run in runs if run.failure is None]
        self.reporter.count(time.time(), len(runs), len(failed), batch.worst_delay())
        self.failing.note(failed, succeeded)
