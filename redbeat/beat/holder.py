"""Who holds the lock: its value in Redis is a token that describes the beat that holds it.

A token reads ``[application@]host:pid:random:lifetime:failover:since``. ``lifetime`` is the time to
live to which the holder renews the lock, ``failover`` how long it may go without doing so, both in
milliseconds; they are 0 without a heartbeat. ``since`` is in seconds since the epoch.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import quote, unquote

from ..store.storage import Storage

#: The longest application name in a token, in characters; what is beyond that is cut off.
LONGEST_NAME = 64

TOKEN = re.compile(
    r"(?:(?P<application>[^@:]*)@)?(?P<host>.*):(?P<pid>\d+):[0-9a-f]{16}:(?P<lifetime>\d+):(?P<failover>\d+):(?P<since>\d+)"
)


@dataclass(frozen=True)
class Holder:
    """The beat that holds a lock, as its token describes it.

    ``since`` is when it took the lock, an aware datetime. ``silence`` is for how many seconds it
    has not renewed the lock; after ``failover_timeout`` seconds another beat may take over.
    ``lifetime`` is the time to live, in seconds, to which it renews the lock. ``application`` is
    the name of its application. What the token does not say is ``None``, 0 or empty: one of
    celery-redbeat 2.x says nothing.
    """

    token: str
    since: datetime | None = None
    silence: float | None = None
    failover_timeout: float = 0
    host: str = ""
    pid: int = 0
    application: str = ""
    lifetime: float = 0

    def is_of_other(self, application: str) -> bool:
        """Whether it certainly belongs to another application than the one with this name.

        An application without a name could be any.
        """
        own = application[:LONGEST_NAME]
        return bool(self.application and own) and self.application != own

    @property
    def name(self) -> str:
        """Host and process, empty if the token does not say."""
        return f"{self.host} (pid {self.pid})" if self.host else ""

    @property
    def is_alive(self) -> bool:
        """Whether it renewed the lock recently; assumed of a holder that never renews it."""
        return self.silence is None or self.silence <= self.failover_timeout

    def __str__(self) -> str:
        if self.since is None or self.silence is None:
            return self.token
        since = self.since.isoformat(sep=" ", timespec="seconds")
        return f"{self.name}, since {since}, last sign of life {self.silence:.0f} s ago"


def new_token(lifetime: float, failover_timeout: float, application: str = "") -> str:
    """Make a token for this process, which takes a lock now.

    ``lifetime`` and ``failover_timeout`` are seconds; both are 0 without a heartbeat.
    ``application`` is the name of the application, empty if it has none.
    """
    prefix = f"{quote(application[:LONGEST_NAME], safe='')}@" if application else ""
    return (
        f"{prefix}{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        f":{int(lifetime * 1000)}:{int(failover_timeout * 1000)}:{int(time.time())}"
    )


def read_holder(storage: Storage, key: str) -> Holder | None:
    """Read who holds the lock at ``key``, ``None`` if nobody does; one round trip."""
    token, remaining = storage.lock.read(key)
    if token is None:
        return None
    known = TOKEN.fullmatch(token)
    if known is None:
        return Holder(token)
    try:
        lifetime = int(known["lifetime"])
        return Holder(
            token,
            since=datetime.fromtimestamp(int(known["since"]), timezone.utc),
            silence=max(lifetime - remaining, 0) / 1000 if lifetime else None,
            failover_timeout=int(known["failover"]) / 1000,
            host=known["host"],
            pid=int(known["pid"]),
            application=unquote(known["application"] or ""),
            lifetime=lifetime / 1000,
        )
    except (OSError, OverflowError, ValueError):
        # It has numbers that no beat writes.
        return Holder(token)
