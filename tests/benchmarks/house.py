"""The servers, and the two interpreters: all that the measurements share."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import redis

from benchmarks.sizes import Sizes
from support.messages import QUEUE
from support.peer import peer_python
from support.servers import RedisServer
from support.wire import Proxy

#: The database of a broker on the server of the schedule.
BROKER_DB = 1

#: Seconds that the slow network adds to a round trip.
DELAY = 0.001


class WrongResultError(Exception):
    """What was measured did not do its work, so its figures mean nothing."""


class Route(NamedTuple):
    """The URLs by which a beat reaches its schedule and its broker."""

    schedule: str
    broker: str


@dataclass(frozen=True)
class House:
    """A server for the schedule and one for the broker, which may be the same; and who uses them.

    Servers are on the loopback address, without persistence. ``broker_db`` is the broker's
    database.
    """

    schedule_server: RedisServer
    broker_server: RedisServer
    broker_db: int
    schedule: redis.Redis
    broker: redis.Redis
    ours: str
    peer: str
    sizes: Sizes
    #: The same with a broker on a server of its own; ``None`` if this is that one.
    apart: "House | None" = None

    @property
    def loopback(self) -> Route:
        """The way to the servers with nothing in between."""
        return Route(self.schedule_server.url(), self.broker_server.url(self.broker_db))

    @contextlib.contextmanager
    def proxies(self, delay: float = DELAY) -> Iterator[tuple[Proxy, Proxy]]:
        """A slow network to the schedule and to the broker."""
        with contextlib.ExitStack() as stack:
            schedule = Proxy(self.schedule_server.port, delay)
            stack.callback(schedule.refuse)
            broker = Proxy(self.broker_server.port, delay)
            stack.callback(broker.refuse)
            yield schedule, broker

    def through(self, schedule: Proxy, broker: Proxy) -> Route:
        """The way to the servers through proxies."""
        return Route(schedule.url(), broker.url(self.broker_db))

    def clear(self) -> None:
        """Empty the servers."""
        self.schedule.flushall()
        self.broker.flushall()

    def expect_messages(self, count: int) -> None:
        """Raise WrongResultError unless that many messages, no less and no more, are queued."""
        queued = self.broker.llen(QUEUE)
        if queued != count:
            raise WrongResultError(f"{count} entries were due, {queued} messages were sent")


@contextlib.contextmanager
def open_house(directory: Path, sizes: Sizes) -> Iterator[House]:
    """Start the servers in `directory`; 2.x is installed once per environment of ours.

    Broker and schedule are two databases of one server, as with most users.
    """
    cache = Path(sys.prefix) / "peer"
    cache.mkdir(exist_ok=True)
    users = (sys.executable, peer_python(cache), sizes)
    with (
        _running_server(directory / "schedule") as server,
        _running_server(directory / "broker") as other,
        contextlib.closing(server.client()) as schedule,
        contextlib.closing(server.client(BROKER_DB)) as broker,
        contextlib.closing(other.client()) as other_broker,
    ):
        apart = House(server, other, 0, schedule, other_broker, *users)
        yield House(server, server, BROKER_DB, schedule, broker, *users, apart)


@contextlib.contextmanager
def _running_server(directory: Path) -> Iterator[RedisServer]:
    server = RedisServer(directory).start()
    try:
        yield server
    finally:
        server.stop()
