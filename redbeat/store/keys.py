"""The keys of one schedule, and what the scores in it mean.

The hash of an entry is at ``<prefix><name>``. Everything else has a key of its own, where no entry
can be: :class:`OwnKeys`.

The schedule is a sorted set of the keys of entries by due time, in seconds since the epoch, UTC. A
score below zero is never due. Programs write whole seconds. A claim replaces the score by the end
of its *lease*, which has a fraction and is unique to the claim.

An entry that never ran may owe its first run to its score alone. A claim whose beat is killed must
not lose it, so the fraction of a lease says whether the score that it replaced could name that run.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

#: The score of an entry that has nothing left to run, and of one that is set aside.
FINISHED = -1.0
SET_ASIDE = -2.0

#: The distance between the two leases of a claim, see :func:`lease_of`.
OTHER_LEASE = 0.5

#: Keys with the same hash tag share a slot. See
#: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags.
HASH_TAG = re.compile(r"[^{]*\{([^}]+)\}")


class OwnKeys(NamedTuple):
    """The keys and the channel of one schedule.

    ``lock_key`` is ``None`` where nobody leads, ``zone_key`` where nobody notes the time zone.
    Changes are published on ``channel``.
    """

    schedule_key: str
    statics_key: str
    channel: str
    reports_key: str
    lock_key: str | None = None
    zone_key: str | None = None
    failing_key: str = ""
    lost_key: str = ""

    @classmethod
    def of(cls, conf: Any) -> OwnKeys:
        """The keys of a configuration, which has them as attributes."""
        return cls(*(getattr(conf, name) for name in cls._fields))


def hash_tag(key: str) -> str | None:
    """The part of a key that decides on its slot; ``None`` if all of it does."""
    found = HASH_TAG.match(key)
    return found[1] if found else None


def may_tell_slot(score: float) -> bool:
    """Whether a score may name the first slot of an entry without a history.

    A whole score is that slot, as its writer gave it. One with a fraction below one half belongs to
    a claim, or to an entry that was given back, whose own score may have named the slot: its beat
    was killed before it could read the entry.
    """
    return score > 0 and score % 1 < OTHER_LEASE


def lease_of(lease: float, score: float) -> float:
    """The score that an entry with this score has under ``lease``."""
    return lease if may_tell_slot(score) else lease + OTHER_LEASE


def due_by(now: float, score: float) -> float:
    """A score that is due at ``now``, and may name a slot if ``score`` may."""
    return math.floor(now) - 1 + (0.25 if may_tell_slot(score) else 0.75)


def may_be_written(score: float) -> bool:
    """Whether a program may have written this score: programs write whole seconds.

    A lease has a fraction, and so has the time to which beat has moved a paused interval.
    """
    return score.is_integer()
