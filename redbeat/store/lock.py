"""The lock of the leader: one key with a time to live, held under a token."""

from __future__ import annotations

from .access import Access, unit
from .changes import Changes
from .commands import ask, optional_text, raw
from .scripts import EXTEND_TO, RELEASE, TAKE_OVER, Call


class Lock:
    """Reads and changes a lock; each method costs one round trip, two where scripts do not run.

    Times are in milliseconds. All methods raise what redis-py raises.
    """

    def __init__(self, access: Access, changes: Changes) -> None:
        self.access = access
        self._client, self._changes = access.direct, changes

    @unit
    def read(self, key: str) -> tuple[str | None, int]:
        """The token that holds the lock, and its time to live.

        They may belong to two holders: whoever acts on them compares once more, in one step.
        """
        with self._client.pipeline(transaction=False) as pipe:
            ask(pipe, "GET", key)
            pipe.pttl(key)
            reply = pipe.execute()
        # A stand-in for a client, as applications' tests inject, holds no lock.
        token, remaining = reply if isinstance(reply, list) else (None, 0)
        return optional_text(token), remaining

    @unit
    def acquire(self, key: str, token: str, milliseconds: int) -> bool:
        """Hold the lock under ``token`` if nobody holds it."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.set(key, token, nx=True, px=milliseconds)
            ask(pipe, "GET", key)
            reply = pipe.execute()
        # A stand-in for a client does not say who holds the lock, and lets everybody have it.
        return optional_text(reply[1]) == token if isinstance(reply, list) else True

    @unit
    def extend(self, key: str, token: str, milliseconds: int, new_token: str) -> bool:
        """Renew the lock to its full time to live if ``token`` holds it.

        From then on it is held under ``new_token``, which may be the same.
        """
        call = Call(EXTEND_TO, [key], (raw(token), milliseconds, "0", raw(new_token)))

        def plainly() -> bool:
            holder = optional_text(ask(self._client, "GET", key))
            return holder in (token, new_token) and self._set(key, new_token, milliseconds)

        return bool(self._changes.run(call, plainly))

    @unit
    def take_over(
        self, key: str, token: str, new_token: str, milliseconds: int, silent_below: int
    ) -> bool:
        """Hold the lock under ``new_token`` if ``token`` holds it and is silent.

        It is silent if its time to live is below ``silent_below``.
        """
        arguments = (raw(token), raw(new_token), milliseconds, silent_below)

        def plainly() -> bool:
            holder, remaining = self.read(key)
            is_silent = holder == token and 0 <= remaining < silent_below
            return holder == new_token or (is_silent and self._set(key, new_token, milliseconds))

        return bool(self._changes.run(Call(TAKE_OVER, [key], arguments), plainly))

    def release(self, key: str, token: str) -> bool:
        """Delete the lock if ``token`` holds it; not tried again.

        A beat that is asked to stop must not wait for a Redis that is away.
        """

        def plainly() -> bool:
            holder = optional_text(ask(self._client, "GET", key))
            return holder == token and bool(self._client.delete(key))

        with self.access.turn():
            return bool(self._changes.run(Call(RELEASE, [key], [raw(token)]), plainly))

    def _set(self, key: str, token: str, milliseconds: int) -> bool:
        return bool(self._client.set(key, raw(token), px=milliseconds, xx=True))
