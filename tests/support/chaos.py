"""A network that goes wrong at random."""

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from support.servers import RedisServer
from support.wire import CHUNK, Proxy

#: Gives the order of troubles of an earlier run; when each strikes depends on the machine as well.
SEED = int(os.environ.get("REDBEAT_CHAOS_SEED") or random.randrange(1 << 32))

# Of what passes, the part that meets with trouble.
RATE = 0.03

# Seconds: a delay is shorter or longer than the patience of a client that waits for one second.
LONGEST_DELAY = 1.5


class Chaos(Proxy):
    """Stands before a server; some of what passes, either way, meets with trouble.

    It is *dropped* with its connection, *delayed*, *truncated* with the connection cut behind it,
    or *blackholed*: it vanishes, and the connection stays open and silent until the client gives
    it up.

    Args:
        server: The server behind it.

    Attributes:
        troubles: How often there was which trouble.
    """

    def __init__(self, server: RedisServer) -> None:
        self.troubles: Counter[str] = Counter()
        self._random = random.Random(SEED)
        self._drawing = threading.Lock()
        self._deck: list[str] = []
        super().__init__(server.port)

    def hand_on(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        """Give the receiver what the other side has sent, unless there is trouble."""
        if self._random.random() >= RATE:
            super().hand_on(passing, client, receiver)
        else:
            KINDS[self._draw()](self, passing, client, receiver)

    def _draw(self) -> str:
        """The next kind of trouble: each comes once before any comes again."""
        with self._drawing:
            if not self._deck:
                self._deck = self._random.sample(list(KINDS), len(KINDS))
            kind = self._deck.pop()
            self.troubles[kind] += 1
        return kind

    def _drop(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        raise ConnectionAbortedError

    def _delay(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        time.sleep(self._random.uniform(0, LONGEST_DELAY))
        super().hand_on(passing, client, receiver)

    def _truncate(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        receiver.sendall(passing[: self._random.randrange(len(passing))])
        raise ConnectionAbortedError

    def _blackhole(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        while client.recv(CHUNK):
            pass
        raise ConnectionAbortedError


Trouble = Callable[[Chaos, bytes, socket.socket, socket.socket], None]
KINDS: dict[str, Trouble] = {
    "drop": Chaos._drop,
    "delay": Chaos._delay,
    "truncate": Chaos._truncate,
    "blackhole": Chaos._blackhole,
}
