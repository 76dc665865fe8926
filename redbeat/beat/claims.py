"""Claiming: the leases under which a beat holds due entries, and how they are given back.

A lease is a score a little ahead of now that no other claim has: its fraction is random. See
:func:`~redbeat.store.keys.lease_of` for what a lease says about the score it replaced.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..store.keys import OTHER_LEASE, SET_ASIDE, due_by
from ..store.records import Member, Outcome, Stored
from ..store.sentinels import Address, Master
from ..store.storage import Storage
from ..timing.instants import as_utc
from .batch import BATCH_BYTES, Batch
from .fault_log import fingerprint
from .pace import Pace
from .repeats import Repeats
from .settings import Settings

#: Seconds by which a lease may outlast the claim timeout.
LEASE_SPREAD = 2

#: The part of the claim timeout after which the messages of a batch must have been sent.
PUBLISHING_SHARE = 0.5

#: How many entries that are set aside are looked at together.
SET_ASIDE_PAGE = 500


def unique_lease(now: float, claim_timeout: float) -> float:
    """A score at least ``claim_timeout`` seconds after ``now`` that no other claim has.

    At most ``LEASE_SPREAD`` seconds later, and never a whole second.
    """
    return math.ceil(now + claim_timeout) + random.uniform(0.001, OTHER_LEASE - 0.001)


def latest_lease(now: float, claim_timeout: float) -> float:
    """The highest score that the lease of a claim made by ``now`` can have."""
    return now + claim_timeout + LEASE_SPREAD


@dataclass(frozen=True)
class Moment:
    """The *now* of a tick, in the application's time zone, and how long ago that was read.

    A tick of many batches may outlast the claim timeout, so leases count from now.
    """

    now: datetime
    began: tuple[float, float]

    @classmethod
    def at(cls, now: datetime) -> Moment:
        """The moment at which the clock has just been read as ``now``."""
        return cls(now, _clocks())

    @property
    def timestamp(self) -> float:
        """The reading in seconds since the epoch."""
        return self.now.timestamp()

    @property
    def age(self) -> float:
        """Seconds since the reading, by the clock that says more.

        One of them may be set, the other may stand still while the machine sleeps.
        """
        return max(now - then for now, then in zip(_clocks(), self.began, strict=True))


def _clocks() -> tuple[float, float]:
    return time.time(), time.monotonic()


class Claims:
    """Claims batches for one beat, and remembers the last lease and where it was written."""

    def __init__(
        self,
        get_conf: Callable[[], Settings],
        get_storage: Callable[[], Storage],
        master: Master,
        log: Repeats,
    ) -> None:
        self._get_conf = get_conf
        self._get_storage = get_storage
        self._master = master
        self._log = log
        self._pace = Pace()
        #: Whether the last claim asked for as many entries as the setting allows.
        self.are_full_size = True
        self._lease: float | None = None
        self._retries_at = 0.0
        self._retried: Member | None = None
        #: The master on which the last batch was claimed; ``None`` without sentinels.
        self._claimed_on: Address | None = None

    def take(self, moment: Moment, horizon: float, from_end: bool) -> Batch:
        """Claim a batch, as large as its pace allows; one round trip. See :meth:`Batch.claim`."""
        conf = self._get_conf()
        timeout, limit = conf.claim_timeout, self._pace.limit(conf.batch_size)
        self.are_full_size = limit == conf.batch_size
        sent_by = time.monotonic() + timeout * PUBLISHING_SHARE
        # Noted first: a signal may end this process before the claim comes back.
        self._lease = unique_lease(as_utc(moment.now).timestamp() + moment.age, timeout)
        before = self._master.address
        batch = Batch(
            self._get_storage(),
            moment.now,
            self._lease,
            sent_by,
            self._log,
            identifies=conf.identify_runs,
        )
        batch.claim(limit, horizon, from_end)
        self._claimed_on = before or self._master.address
        return batch

    def retry_set_aside(self, now: datetime) -> None:
        """Give entries that are set aside another try once their definition has changed.

        Looks at a page of them once per poll interval, in turn; up to six round trips if the
        entries are small.
        """
        if time.monotonic() >= self._retries_at:
            self._retries_at = time.monotonic() + self._get_conf().poll_interval
            self._retried = retry_set_aside(self._get_storage(), now, self._retried)

    @property
    def are_on_master(self) -> bool:
        """Whether the claims were made on the present master: another may not know of them."""
        return self._claimed_on == self._master.address

    def settle(self, batch: Batch) -> None:
        """Forget the last lease, whose batch is committed, and take note how far that got."""
        self._lease = None
        if batch.filling is not None:
            self._pace.note(batch.filling)

    def give_back(self, now: datetime) -> None:
        """Make entries that still have the last lease due at ``now``; up to three round trips."""
        if self._lease is None:
            return
        leased = [
            member
            for score in (self._lease, self._lease + OTHER_LEASE)
            for member in self._get_storage().read_page(score, score, self._get_conf().batch_size)
        ]
        due = now.timestamp()
        self._get_storage().move(
            [(each, Outcome(each.key, due_by(due, each.score))) for each in leased]
        )


def retry_set_aside(storage: Storage, now: datetime, after: Member | None) -> Member | None:
    """Make due at ``now`` the entries whose definition changed since they were set aside.

    Looks at one page, or at as many as fit into a batch, after the member ``after``. Returns the
    last one, ``None`` if there are no more.
    """
    members = storage.read_page(SET_ASIDE, SET_ASIDE, SET_ASIDE_PAGE, after)
    has_more = len(members) == SET_ASIDE_PAGE
    stored = storage.read_entries_within([member.key for member in members], BATCH_BYTES)
    has_more |= len(stored) < len(members)
    members = members[: len(stored)]
    # The note is written first: an entry that may not be written would run, and not be counted.
    note = json.dumps({"reason": "It is tried again."})
    changed = [
        Outcome(member.key, now.timestamp(), reason=note)
        for member, fields in zip(members, stored, strict=True)
        if fields.refusal is None and fingerprint(fields) != _noted_fingerprint(fields)
    ]
    storage.commit(SET_ASIDE, changed)
    return members[-1] if has_more else None


def _noted_fingerprint(stored: Stored) -> Any:
    """The fingerprint of the definition with which an entry was set aside."""
    try:
        return json.loads(stored.set_aside or "")["definition"]
    except (KeyError, TypeError, ValueError):
        return None
