"""What beat logs about entries that do not run; repetitions at debug, see :class:`Repeats`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from celery.utils.log import get_logger
from redis.exceptions import ResponseError

from ..store.escaping import one_line
from ..store.records import Stored
from .faults import NotSentError
from .pauses import in_words
from .repeats import Repeats

logger = get_logger("celery.beat")

#: Faults of one batch that are logged one by one; more are logged together, the first ones named.
MOST_TOLD = 50
NAMED = 3


class Fault(NamedTuple):
    """An entry that is set aside, and why."""

    key: str
    stored: Stored | None
    error: Exception


class FaultLog:
    """The log of one beat."""

    def __init__(self, repeats: Repeats) -> None:
        self._repeats = repeats

    def note_all(self, faults: Sequence[Fault]) -> None:
        """Log which entries cannot be read: one line each, unless there are too many."""
        if len(faults) > MOST_TOLD:
            logger.error(
                "beat: Set aside %d entries because they cannot run: %s and others. The reasons "
                "are stored with them: see celery redbeat list --state 'set aside'. Save them "
                "again to retry.",
                len(faults),
                first_names([fault.key for fault in faults]),
            )
            return
        for fault in faults:
            self.note(fault)

    def note(self, fault: Fault) -> None:
        """Log that an entry cannot run."""
        key, stored, error = fault
        self._repeats.error(
            ("set aside", key, fingerprint(stored)),
            error,
            "beat: Set aside %s because it cannot run: %r. Save it again to retry.",
            key,
            error,
        )

    def note_refused(self, key: str, error: ResponseError) -> None:
        """Log that the hash of an entry may not be written."""
        logger.error(
            "beat: Set aside %s: Redis refuses to write its next run: %s. Let this Redis user "
            "write the key, or delete the entry.",
            key,
            str(error).rstrip("."),
        )

    def note_put_off(self, key: str, error: NotSentError) -> None:
        """Log that a message was not sent, if that is news."""
        if error.is_news:
            message = "beat: %s. It stays due; trying again in %s"
            about = ("not sent", key, type(error.__cause__))
            self._repeats.error(about, error, message, error, in_words(error.seconds))


def first_names(keys: Sequence[str]) -> str:
    """The first few of many keys, for one line of the log."""
    return ", ".join(map(one_line, keys[:NAMED]))


def fingerprint(stored: Stored | None) -> str:
    """Tells one definition from another."""
    definition = (stored.definition if stored else None) or ""
    zones = (stored.zones if stored else None) or ""
    return hashlib.sha1(
        (definition + zones).encode("utf-8", "surrogateescape"), usedforsecurity=False
    ).hexdigest()
