"""How the store reaches Redis: whole units, in turns where connections are few.

Each public method of the store that talks to Redis is one *unit*. When the connection breaks in the
middle of it, nobody knows whether the server has done it, so it is done again as a whole;
``retrying.py`` says when, and for how long. Doing it twice is safe:

* reading changes nothing; deleting, discarding, rescheduling and setting statics end in the same
  state;
* saving finds its own meta the second time, and its caller saves once more with that; an edit that
  compares definitions recognises its own;
* a claim has a lease of its own: asked for again with the same one, it returns the same entries. If
  it is given up instead, they are due again when the lease ends;
* a commit compares with the lease, which the first one has removed, and with the meta that was
  loaded;
* whoever takes, takes over or renews the lock has a token of its own, and recognises it.

Only releasing the lock is tried once: a beat that is asked to stop must not wait.

A client may be limited to a few connections. If there are fewer than a beat can use at once, the
threads of a process take turns, a unit each; with only one there is no subscription.

A user of Redis needs the commands that celery-redbeat 2.x needs. All others are optional: if the
ACL refuses one, the feature is off, with one warning per command (:data:`OPTIONAL`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, wraps
from typing import Any, TypeVar, cast

from celery.utils.log import get_logger
from redis.exceptions import RedisClusterException, RedisError

from .commands import text
from .retrying import direct, run_unit

logger = get_logger("celery.beat")

Method = TypeVar("Method", bound=Callable[..., Any])

#: A redis-py client, plain, cluster or sentinel; a fake of one; or a wrapper around one.
Client = Any

#: The roots of all that redis-py raises: clusters have a second one.
REDIS_ERRORS = (RedisError, RedisClusterException)

#: Commands that a user of Redis may lack, and what is lost without each.
OPTIONAL = {
    "HGETALL": "what beats report about their work, such as runs and delays, cannot be read",
    "PUBLISH": "beat notices changes made here within redbeat_poll_interval, not at once",
    "SUBSCRIBE": "beat notices changes within redbeat_poll_interval, not at once",
}

#: How many connections a beat uses at once: its main thread, the heartbeat, the subscription, and
#: the thread that closes it while the main thread was interrupted.
CONNECTIONS_AT_ONCE = 4


class Access:
    """One client, the turns on its connections, and the commands that its user may not run."""

    def __init__(self, client: Client) -> None:
        self.client = client
        #: The client without retries of ours.
        self.direct = direct(client)
        #: The optional commands that were refused.
        self.refused: set[str] = set()
        #: Keeps the process from being asked to stop while it has the only connection.
        self.undisturbed: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._turns, self._turns_of = threading.RLock(), os.getpid()
        self._has_said_that_it_polls = False

    @cached_property
    def connections(self) -> float:
        """How many connections the client may open at once, in a cluster to each node."""
        nodes = getattr(self.direct, "nodes_manager", None)
        if nodes is None:
            pool = getattr(self.direct, "connection_pool", None)
            given = getattr(pool, "max_connections", None)
        else:
            given = getattr(nodes, "connection_kwargs", {}).get("max_connections")
        # A stand-in for a client may answer with anything.
        return given if isinstance(given, int) and given > 0 else float("inf")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """In this block no other thread has a turn, where connections are too few for all."""
        if self.connections >= CONNECTIONS_AT_ONCE:
            yield
            return
        if self._turns_of != os.getpid():
            # In a forked child the thread that had its turn is not there to end it.
            self._turns, self._turns_of = threading.RLock(), os.getpid()
        with self.undisturbed(), self._turns:
            yield

    def do_without(self, command: str, reason: object) -> None:
        """Warn, once, about what is lost because an optional command was refused."""
        if command not in self.refused:
            self.refused.add(command)
            logger.warning(
                "beat: This Redis user may not run %s (%s): %s. Allow it in the ACL.",
                command,
                text(reason),
                OPTIONAL[command],
            )

    def may_listen(self) -> bool:
        """Whether there is a connection to subscribe on, and it was not refused; no round trip."""
        if self.connections > 1:
            return "SUBSCRIBE" not in self.refused
        if not self._has_said_that_it_polls:
            self._has_said_that_it_polls = True
            logger.info(
                "beat: The Redis client may open only one connection (max_connections), so beat "
                "does not subscribe: it notices changes within redbeat_poll_interval."
            )
        return False


def unit(method: Method) -> Method:
    """A method that may be done twice, and is if Redis goes away in the middle of it.

    Its object has an ``access``.
    """

    def in_turn(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.access.turn():
            return method(self, *args, **kwargs)

    @wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return run_unit(self.access.client, in_turn, self, *args, **kwargs)

    return cast("Method", run)  # It takes and returns what the method does.
