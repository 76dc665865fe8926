"""What a subclass saw, for the test to read: a line of `witness.log` for each call."""

import os
import time
from pathlib import Path
from typing import Any

from celery.signals import before_task_publish

LOG = "witness.log"

#: Entries whose name begins like this are held back until there is a file of the other name.
GATED = "gated"
GATE = "gate-is-open"

SENT_AT = "sent_at"


def note(what: str, detail: object = "") -> None:
    """Add a line to the log: the time, the process, what was called, and a word about it."""
    with Path(LOG).open("a") as log:
        log.write(f"{time.time()} {os.getpid()} {what} {detail}\n")


def is_held_back(entry: Any) -> bool:
    """Whether an entry waits for the gate to be opened."""
    return str(entry.name).startswith(GATED) and not Path(GATE).exists()


@before_task_publish.connect  # type: ignore[untyped-decorator]  # Celery has no types
def stamp(headers: dict[str, Any], **_: Any) -> None:
    """Give each message the time at which it was made."""
    headers[SENT_AT] = time.time()
