"""Celery applications for tests."""

from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu import pools
from kombu.connection import Connection
from kombu.transport.memory import Channel
from redis import ConnectionPool
from redis.cluster import NodesManager
from redis.sentinel import SentinelConnectionPool

from redbeat.schedulers import REDBEAT_REDIS_KEY

MakeApp = Callable[..., Celery]


class TidyApp(Celery):  # type: ignore[misc]  # Celery has no types
    """An application that closes all its connections with it, to the broker and to Redis.

    Else the garbage collector does, in whichever test it runs, and may warn of open sockets there.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: list[Connection] = []

    def _connection(self, *args: Any, **kwargs: Any) -> Connection:
        self.connections.append(super()._connection(*args, **kwargs))
        return self.connections[-1]

    def close(self) -> None:
        for connection in self.connections:
            connection.collect()  # type: ignore[no-untyped-call]  # kombu's own gap
        pools.reset()  # type: ignore[no-untyped-call]  # too
        disconnect(getattr(self, REDBEAT_REDIS_KEY, None))
        super().close()


def disconnect(client: Any) -> None:
    """Close all connections of a client, if there is one; it connects again on the next command.

    Its own `close` spares those of pools that were made from a URL.
    """
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, ConnectionPool):
        pool.disconnect()
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            disconnect(sentinel)
    if isinstance(getattr(client, "nodes_manager", None), NodesManager):
        for node in client.get_nodes():
            disconnect(node.redis_connection)


def make_app(**settings: Any) -> Celery:
    """An application that is not the current one, with a broker in memory by default.

    Results never expire in it, so that Celery adds no clean-up entry of its own.
    """
    app = TidyApp("proj", set_as_current=False)
    app.conf.update({"broker_url": "memory://", "result_expires": None} | settings)
    return app


def empty_memory_broker() -> None:
    """Forget all messages that the broker in memory holds for this process."""
    Channel.queues.clear()
