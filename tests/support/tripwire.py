"""A proxy that strikes in the middle of what passes through it."""

import contextlib
import socket
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
        self._nth = self._begun = 0
        self._action: Callable[[], object] | None = None
        self._connection = threading.local()
        super().__init__(server.port)

    def arm(self, nth: int, action: Callable[[], object]) -> None:
        """Call the action once, at the nth round trip that begins from now on."""
        with self._counting:
            self._nth, self._begun = nth, 0
            self._action = action

    def count_begun(self, act: Callable[[], object]) -> int:
        """How many round trips begin during an act, none of which is slowed down by the count."""
        with self._counting:
            self._begun = 0
        act()
        return self._begun

    def disarm(self) -> None:
        """Call nothing any more."""
        self._action = None

    def has_struck(self) -> bool:
        """Whether the action has been called and has returned."""
        return self._action is None

    def wait_until_struck(self, timeout: float = 30) -> None:
        """Wait until the action has been called and has returned."""
        wait_until(self.has_struck, timeout, "the request to strike at")

    def cut_answer(self, part: float = 0) -> None:
        """Cut the connection in the midst of the answer to the request that comes in, as an action.

        Args:
            part: How much of the answer the client still gets; the server has executed it all.
        """
        self._connection.part = part

    def hand_on(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        """Give the receiver what the other side has sent, unless its answer is to be cut."""
        part = getattr(self._connection, "part", None)
        if receiver is not client or part is None:
            super().hand_on(passing, client, receiver)
            return
        super().hand_on(passing[: int(len(passing) * part)], client, receiver)
        raise ConnectionAbortedError

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
            self._begun += 1
            return self._action if self._begun == self._nth else None


MakeTripwire = Callable[..., Tripwire]
