"""A proxy that strikes in the middle of what passes through it."""

import contextlib
import threading
from collections.abc import Callable

from support.servers import RedisServer
from support.waiting import wait_until
from support.wire import Proxy


class Tripwire(Proxy):
    """Stands before a server, and calls an action when the nth request from now on comes in.

    The action is called before the request is handed on. So a client that is killed by it has had
    every answer before, and does not live to see this one; a client that is frozen by it finds
    the answer when it thaws.

    Args:
        server: The server behind it.
    """

    def __init__(self, server: RedisServer) -> None:
        # Each connection has a thread: of two requests at a time none may pass the count unseen.
        self._counting = threading.Lock()
        self._requests_left = 0
        self._action: Callable[[], object] | None = None
        super().__init__(server.port)

    def arm(self, nth: int, action: Callable[[], object]) -> None:
        """Call the action once, at the nth round trip that begins from now on."""
        with self._counting:
            self._requests_left = nth
            self._action = action

    def disarm(self) -> None:
        """Call nothing any more."""
        self._action = None

    def wait_until_struck(self, timeout: float = 30) -> None:
        """Wait until the action has been called and has returned."""
        wait_until(lambda: self._action is None, timeout, "the request to strike at")

    def count(self, requests: list[list[str]], begins: bool) -> None:
        super().count(requests, begins)
        action = self._take_action() if begins else None
        if action is not None:
            with contextlib.ExitStack() as stack:
                stack.callback(self.disarm)
                action()

    def _take_action(self) -> Callable[[], object] | None:
        """Count one more round trip; what to do if it is the one to strike at."""
        with self._counting:
            self._requests_left -= 1
            return None if self._requests_left else self._action


MakeTripwire = Callable[..., Tripwire]
