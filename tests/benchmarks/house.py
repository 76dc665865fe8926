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
    """Two servers on the loopback address, without persistence, and who can use them."""

    schedule_server: RedisServer
    broker_server: RedisServer
    schedule: redis.Redis
    broker: redis.Redis
    ours: str
    peer: str
    sizes: Sizes

    @property
    def loopback(self) -> Route:
        """The way to the servers with nothing in between."""
        return Route(self.schedule_server.url(), self.broker_server.url())

    @contextlib.contextmanager
    def proxies(self, delay: float = DELAY) -> Iterator[tuple[Proxy, Proxy]]:
        """A slow network to the schedule and to the broker."""
        with contextlib.ExitStack() as stack:
            schedule = Proxy(self.schedule_server.port, delay)
            stack.callback(schedule.refuse)
            broker = Proxy(self.broker_server.port, delay)
            stack.callback(broker.refuse)
            yield schedule, broker

    def clear(self) -> None:
        """Empty both servers."""
        self.schedule.flushall()
        self.broker.flushall()

    def expect_messages(self, count: int) -> None:
        """Raise WrongResultError unless that many messages, no less and no more, are queued."""
        queued = self.broker.llen(QUEUE)
        if queued != count:
            raise WrongResultError(f"{count} entries were due, {queued} messages were sent")


@contextlib.contextmanager
def open_house(directory: Path, sizes: Sizes) -> Iterator[House]:
    """Start the servers in `directory`; 2.x is installed once per environment of ours."""
    cache = Path(sys.prefix) / "peer"
    cache.mkdir(exist_ok=True)
    peer = peer_python(cache)
    with (
        _running_server(directory / "schedule") as schedule,
        _running_server(directory / "broker") as broker,
        contextlib.closing(schedule.client()) as schedule_client,
        contextlib.closing(broker.client()) as broker_client,
    ):
        yield House(schedule, broker, schedule_client, broker_client, sys.executable, peer, sizes)


@contextlib.contextmanager
def _running_server(directory: Path) -> Iterator[RedisServer]:
    server = RedisServer(directory).start()
    try:
        yield server
    finally:
        server.stop()
