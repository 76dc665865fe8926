"""Who may dispatch: the lock that the leader holds."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Literal

from redis.exceptions import LockNotOwnedError
from redis.lock import Lock

from .storage import Storage


class LeaderLock(Lock):
    """redis-py's lock, renewed to a full time to live; works without scripting, too.

    ``owned()``, ``extend(seconds)`` and ``release()`` cost one round trip each. The last two raise
    :exc:`redis.exceptions.LockNotOwnedError` if another holds the lock, or nobody.
    """

    def __init__(self, storage: Storage, name: str, timeout: float) -> None:
        super().__init__(storage.client, name, timeout=timeout, blocking=False, thread_local=False)
        self._storage = storage

    def extend(self, additional_time: float, replace_ttl: bool = True) -> Literal[True]:
        """Set the time to live to ``additional_time`` seconds, however much of it is left."""
        return super().extend(additional_time, replace_ttl)

    def do_extend(self, additional_time: float, replace_ttl: bool) -> Literal[True]:
        """See :meth:`extend`."""
        if not self._storage.extend_lock(self.name, self._token, int(additional_time * 1000)):
            raise LockNotOwnedError(f"The lock {self.name} is not held by this beat any more")
        return True

    def do_release(self, expected_token: str | bytes) -> None:
        """Delete the lock if it is ours."""
        if not self._storage.release_lock(self.name, _text(expected_token)):
            raise LockNotOwnedError(f"The lock {self.name} is not held by this beat any more")

    @property
    def _token(self) -> str:
        return _text(self.local.token)


def _text(token: str | bytes) -> str:
    return token.decode() if isinstance(token, bytes) else token


def new_token() -> str:
    """A token that no other beat has, and that tells an operator who holds the lock."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"


def acquire(storage: Storage, name: str, timeout: float) -> LeaderLock | None:
    """Take the lock for ``timeout`` seconds if it is free; one round trip."""
    lock = LeaderLock(storage, name, timeout)
    return lock if lock.acquire(blocking=False, token=new_token()) else None
