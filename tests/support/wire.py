"""A TCP proxy before a Redis server: it counts, delays and cuts what passes."""

import contextlib
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from support.ports import LOOPBACK, free_port

CHUNK = 1 << 16
CRLF = b"\r\n"

# Seconds: longer than any pause between two pieces of one pipeline, on a busy machine too.
SILENCE_BEFORE_ANSWER = 0.05


@dataclass(eq=False)
class Traffic:
    """What passed while it was counted.

    Attributes:
        round_trips: How often a client sent requests and then read the answers; a pipeline or a
            transaction is one round trip, however long it is.
        commands: The requests in the order in which they were sent, each a list of its words.
    """

    round_trips: int = 0
    commands: list[list[str]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of the commands, in upper case."""
        return [words[0].upper() for words in self.commands]


class RequestParser:
    """Cuts a stream of bytes into the requests in it (RESP arrays of bulk strings)."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, received: bytes) -> list[list[str]]:
        """Take in more bytes, and give the requests that are complete now."""
        self._buffer += received
        requests = []
        offset = 0
        while (parsed := _parse_request(self._buffer, offset)) is not None:
            words, offset = parsed
            requests.append(words)
        self._buffer = self._buffer[offset:]
        return requests


class Proxy:
    """Stands between clients and one server, on a loopback port of its own.

    An answer is handed on when its client has been silent for `delay` seconds, which is what a
    network with this round-trip time does. While the proxy counts, it waits for a longer silence:
    that tells one pipeline, sent in pieces, from two requests that follow each other. So count and
    measure time in separate runs.

    Args:
        server_port: The port of the server on the loopback address.
        delay: Seconds per round trip.

    Attributes:
        server_port: Where new connections lead; it can be set at any time, as `delay` can.
    """

    def __init__(self, server_port: int, delay: float = 0) -> None:
        self.delay = delay
        self.server_port = server_port
        self._counters: list[Traffic] = []
        self._connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._mute: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.port = free_port()
        self.accept()

    @property
    def hold(self) -> float:
        """For how many seconds a client must be silent before it gets its answers."""
        return max(self.delay, SILENCE_BEFORE_ANSWER) if self._counters else self.delay

    def url(self, db: int = 0) -> str:
        """The URL of a database behind this proxy."""
        return f"redis://{LOOPBACK}:{self.port}/{db}"

    @contextlib.contextmanager
    def counting(self) -> Iterator[Traffic]:
        """Count what passes inside the `with` block; connect before it, or count that as well."""
        traffic = Traffic()
        self._counters.append(traffic)
        try:
            yield traffic
        finally:
            self._counters.remove(traffic)

    def drop(self) -> None:
        """Cut all connections; new ones are accepted."""
        with self._lock:
            for connection in self._connections:
                _shut_down(connection)

    def mute(self) -> None:
        """Swallow what is sent on the connections that there are, as a forgetful firewall does."""
        with self._lock:
            self._mute |= self._connections

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones."""
        self._refusing = True
        _shut_down(self._listener)
        self._listener.close()
        self.drop()

    def accept(self) -> None:
        """Accept connections, again after `refuse`, on the same port."""
        self._refusing = False
        self._listener = _listen(self.port)
        threading.Thread(target=self._accept_all, args=(self._listener,), daemon=True).start()

    def _accept_all(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._track(client),
            self._track(self._connect()) as server,
        ):
            _Relay(self, client, server).run()

    def _connect(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.server_port))

    def _track(self, connection: socket.socket) -> socket.socket:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if self._refusing:
                connection.close()
                raise ConnectionRefusedError
            self._connections.add(connection)
        return connection

    def count(self, requests: list[list[str]], begins: bool) -> None:
        """Take down what a connection sends; `begins` says that a round trip begins with it."""
        for traffic in list(self._counters):
            traffic.round_trips += begins
            traffic.commands += requests

    def hand_on(self, passing: bytes, client: socket.socket, receiver: socket.socket) -> None:
        """Give the receiver, which is the client or the server, what the other side has sent."""
        if receiver not in self._mute:
            receiver.sendall(passing)


MakeProxy = Callable[..., Proxy]


class _Relay:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._parser = RequestParser()
        self._held_answers = b""
        self._client_has_its_answers = True
        self._last_request = 0.0

    def run(self) -> None:
        """Pass bytes on both ways until either side hangs up."""
        while True:
            readable, _, _ = select.select([self._client, self._server], [], [], self._patience())
            if self._client in readable and not self._pass_requests():
                return
            if self._server in readable and not self._take_answers():
                return
            if self._held_answers and self._silence() >= self._proxy.hold:
                self._pass_answers()

    def _silence(self) -> float:
        return time.monotonic() - self._last_request

    def _patience(self) -> float | None:
        if not self._held_answers:
            return None
        return max(0.0, self._proxy.hold - self._silence())

    def _pass_requests(self) -> bool:
        received = self._client.recv(CHUNK)
        if not received:
            return False
        self._proxy.count(self._parser.feed(received), begins=self._client_has_its_answers)
        self._client_has_its_answers = False
        self._proxy.hand_on(received, self._client, self._server)
        self._last_request = time.monotonic()
        return True

    def _take_answers(self) -> bool:
        received = self._server.recv(CHUNK)
        self._held_answers += received
        return bool(received)

    def _pass_answers(self) -> None:
        self._proxy.hand_on(self._held_answers, self._client, self._client)
        self._held_answers = b""
        self._client_has_its_answers = True


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    listener.listen()
    return listener


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _parse_request(buffer: bytes, start: int) -> tuple[list[str], int] | None:
    """One request and the offset behind it, or nothing if it is not complete yet."""
    header = _parse_length(buffer, start)
    if header is None:
        return None
    count, offset = header
    words = []
    for _ in range(count):
        header = _parse_length(buffer, offset)
        if header is None:
            return None
        length, offset = header
        if len(buffer) < offset + length + len(CRLF):
            return None
        words.append(buffer[offset : offset + length].decode(errors="backslashreplace"))
        offset += length + len(CRLF)
    return words, offset


def _parse_length(buffer: bytes, start: int) -> tuple[int, int] | None:
    """The number in a line such as `*3` or `$12`, and the offset behind the line."""
    end = buffer.find(CRLF, start)
    if end < 0:
        return None
    return int(buffer[start + 1 : end]), end + len(CRLF)
