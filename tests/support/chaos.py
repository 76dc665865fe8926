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
        random: Draws the kinds of trouble and their extent.
    """

    def __init__(self, server: RedisServer) -> None:
        self.troubles: Counter[str] = Counter()
        self.random = random.Random(SEED)
        self._drawing = threading.Lock()
        self._deck: list[str] = []
        super().__init__(server.port)

    def hand_on(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        """Give the receiver what the other side has sent, unless there is trouble."""
        if self.random.random() >= RATE:
            super().hand_on(passing, client, receiver)
        else:
            KINDS[self._draw()](self, passing, client, receiver)

    def _draw(self) -> str:
        """The next kind of trouble: each comes once before any comes again."""
        with self._drawing:
            if not self._deck:
                self._deck = self.random.sample(list(KINDS), len(KINDS))
            kind = self._deck.pop()
            self.troubles[kind] += 1
        return kind


def drop(chaos: Chaos, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
    raise ConnectionAbortedError


def delay(chaos: Chaos, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
    time.sleep(chaos.random.uniform(0, LONGEST_DELAY))
    Proxy.hand_on(chaos, passing, client, receiver)


def truncate(chaos: Chaos, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
    receiver.sendall(passing[: chaos.random.randrange(len(passing))])
    raise ConnectionAbortedError


def blackhole(chaos: Chaos, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
    while client.recv(CHUNK):
        pass
    raise ConnectionAbortedError


Trouble = Callable[[Chaos, bytes, socket.socket, socket.socket], None]
KINDS: dict[str, Trouble] = {
    "drop": drop,
    "delay": delay,
    "truncate": truncate,
    "blackhole": blackhole,
}
