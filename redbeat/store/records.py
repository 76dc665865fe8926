"""What goes into the store and comes out of it, as plain values.

An entry is a hash with the fields ``definition`` and ``meta``: JSON that other modules write and
read. Three more fields are there only when they say something: ``zones`` (JSON, if the definition
cannot express all of its time zones), ``set_aside`` (the reason why an entry is set aside) and
``owner`` (the application that has the entry in its ``beat_schedule``).
"""

from __future__ import annotations

from typing import NamedTuple

from redis.exceptions import ResponseError

#: The fields of an entry's hash that are read together.
FIELDS = ("definition", "meta", "set_aside", "zones")


class Member(NamedTuple):
    """One member of the schedule: an entry's key and its score."""

    key: str
    score: float


class Stored(NamedTuple):
    """The fields of an entry's hash, ``None`` where there is none.

    ``refusal`` is the error if the ACL of Redis does not allow the key to be read, so that nothing
    is known about the entry, or to be written.
    """

    definition: str | None = None
    meta: str | None = None
    set_aside: str | None = None
    refusal: ResponseError | None = None
    zones: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether there is certainly no such entry."""
        return self.definition is None and self.refusal is None

    @property
    def size(self) -> int:
        """The number of characters in the fields."""
        return sum(map(len, filter(None, (self.definition, self.meta, self.zones))))


class Seen(NamedTuple):
    """An entry as it was read, to be removed unless it has changed since."""

    key: str
    stored: Stored

    def is_at(self, stored: Stored) -> bool:
        """Whether ``stored``, read later, is this entry still, or no entry at all."""
        return stored.definition is None or stored == self.stored


class Draft(NamedTuple):
    """An entry that is to be stored.

    ``seen_meta`` is the stored meta that ``score`` was computed from, ``""`` for a new entry.
    ``meta`` is written if the entry is new, or if the stored one is unreadable (``replaces_meta``).
    ``seen_definition`` is the stored definition that this one is based on, ``""`` if there must be
    none; ``None`` replaces any. ``zones`` are written beside the definition; ``""`` removes those
    that are there.
    """

    key: str
    definition: str
    seen_meta: str
    meta: str
    score: float
    replaces_meta: bool = False
    seen_definition: str | None = None
    zones: str = ""

    def conflict_with(self, stored: Stored) -> str | None:
        """What keeps this draft from being stored; see :class:`Changed`."""
        known = (self.seen_definition, self.definition)
        if self.seen_definition is not None and (stored.definition or "") not in known:
            return None
        meta = stored.meta or ""
        return "" if meta == self.seen_meta else meta


class Changed(NamedTuple):
    """The result of a change: a conflict for each draft, and how many entries were removed.

    A conflict is ``""`` if the draft was stored; the meta that is stored by now if another run was
    recorded; ``None`` if another edit was made.
    """

    conflicts: list[str | None]
    deleted: int


class Wanted(NamedTuple):
    """What a claim asks for: up to ``limit`` entries due by ``now``, leased until ``lease``.

    ``most_bytes`` is the size that they may have together, 0 for any. ``from_end`` begins with
    those that became due last.
    """

    now: float
    lease: float
    limit: int
    horizon: float
    most_bytes: int = 0
    from_end: bool = False


class Claimed(NamedTuple):
    """What a claim found: leased members with the scores they had, and the first one due later.

    ``has_set_aside``: whether any entry is set aside. ``is_bounded``: whether the leased entries
    are known to be within the size that was asked for; ``leaves_more``: whether others may be due.
    """

    due: list[Member]
    later: Member | None
    has_set_aside: bool
    is_bounded: bool = False
    leaves_more: bool = False


class Outcome(NamedTuple):
    """What a commit writes for one claimed entry.

    ``score`` is its next due time, ``None`` to drop it from the schedule. ``meta`` is given if it
    ran, with ``seen_meta``, the stored meta that it was computed from: if another one is stored by
    now, that one stays. ``reason`` is given if the entry is set aside; ``clears`` removes an
    earlier reason.
    """

    key: str
    score: float | None
    meta: str = ""
    seen_meta: str = ""
    reason: str = ""
    clears: bool = False

    @property
    def due_at(self) -> float:
        """When the entry is due next, in seconds since the epoch; infinity for never."""
        return float("inf") if self.score is None or self.score < 0 else self.score

    @property
    def changes_hash(self) -> bool:
        """Whether more than the score is to be written."""
        return bool(self.meta or self.reason or self.clears)


class Written(NamedTuple):
    """What a commit wrote: how many entries were still leased, and which hashes were refused.

    ``refused`` holds the error for each entry whose hash may not be written, by its key. Such an
    entry is set aside by its score.
    """

    held: int
    refused: dict[str, ResponseError]


class Trace(NamedTuple):
    """What shows whether Redis has lost the schedule.

    ``members`` are the first of the schedule, ``has_zone`` says whether a leader's time zone is
    noted, and ``loss`` is the note about a loss, ``None`` if there is none.
    """

    members: list[str]
    has_zone: bool
    loss: str | None
