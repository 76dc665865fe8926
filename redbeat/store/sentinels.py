"""Whether a client behind Sentinel talks to the master that the sentinels name.

A failover on request (``SENTINEL FAILOVER``) makes the replica a master first. The old master
becomes a replica only some ten seconds later. Until then it accepts writes, which are lost: a run
that was committed there happens again. Its own ``ROLE`` does not help, for it calls itself a master
to the end. So the sentinels are asked.

What they say, in the order of a failover::

    flag failover_in_progress (one of them)   0.1 to 0.4 s   the replica is to become a master
                                              about 1 s      that sentinel names the new master
                                              0 to 2 s       so do the others
                                              10 s           the old master becomes a replica

The flag is up for two turns of the sentinel's timer (50 to 100 ms each) before anything happens. A
master is trusted for less than that, :data:`TRUST` seconds from when the sentinels were asked, so
that what is sent within that time is committed before the replica leaves it.

How it can fail: only one sentinel has the flag. If the application does not list that one, or it
does not answer, the new master is known only once the others name it, a second or two later. And a
beat that is cut off together with the old master may not notice the failover at all. Then only the
old master itself can refuse writes (``min-replicas-to-write``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from celery.utils.log import get_logger
from redis.backoff import NoBackoff
from redis.client import Redis
from redis.connection import ConnectionPool
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from .retrying import direct

logger = get_logger("celery.beat")

#: Seconds for which a master is trusted, from when the sentinels were asked.
TRUST = 0.05

#: Seconds between two looks by a thread that has nothing else to do.
LOOKING_INTERVAL = 1.0

#: Seconds after which silent sentinels are asked again if no such thread looks.
LONGEST_SILENCE = 10.0

#: Seconds that a sentinel may take to answer; beat waits for it before it sends.
ANSWERING_TIME = 0.5

#: Seconds until a beat looks again that may not send, since the master is being replaced.
HOLDING_INTERVAL = 0.2

Address = tuple[str, int]


@dataclass(frozen=True)
class View:
    """What one sentinel says of a master.

    ``epoch`` grows with each failover: the view with the higher one is newer. ``is_changing``: a
    failover has begun, and there is no new master yet.
    """

    epoch: int
    address: Address
    is_changing: bool


class MasterWatch:
    """Asks the sentinels of one pool of connections which master they name.

    It has its own connections to them, with a short time-out. A sentinel that did not answer is
    asked again only by :meth:`look`.
    """

    def __init__(
        self, pool: SentinelConnectionPool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.pool = pool
        self._clock = clock
        manager: Any = pool.sentinel_manager
        self._service = str(pool.service_name)
        self._clients = {sentinel: _own_client(sentinel) for sentinel in manager.sentinels}
        self._silent: set[Any] = set()
        self._looked_at = self._confirmed_at = float("-inf")
        self._confirmed: Any = None
        self._is_holding = self._is_blind = False
        self._asking = 0

    @property
    def address(self) -> Any:
        """Host and port of the master that the pool leads to; ``None`` before it has connected."""
        return self.pool.master_address

    def is_sure(self) -> bool:
        """Whether the pool leads to the master that the sentinels name.

        If it does not, it is pointed there, as far as that master can be found. Costs a round trip
        to each sentinel, none if they were asked within ``TRUST`` seconds.
        """
        now = self._clock()
        if self.address is None:
            # The pool asks the sentinels when it connects.
            return True
        if self.address == self._confirmed and now < self._confirmed_at + TRUST:
            return True
        if now >= self._looked_at + LONGEST_SILENCE:
            return self.look()
        return self._ask([each for each in self._clients if each not in self._silent])

    def look(self) -> bool:
        """The same, but also asks the sentinels that did not answer last time."""
        self._looked_at = self._clock()
        return self.address is None or self._ask(self._clients)

    def close(self) -> None:
        """Close the connections to the sentinels; they open again when they are needed.

        Does nothing while a question is under way, which a signal handler may have interrupted.
        """
        if not self._asking:
            for client in self._clients.values():
                client.connection_pool.disconnect()

    def _ask(self, sentinels: Iterable[Any]) -> bool:
        self._asking += 1
        try:
            began = self._clock()
            views = {each: view for each in sentinels if (view := self._view_of(each)) is not None}
            if views:
                return self._judge(views, began)
        finally:
            self._asking -= 1
        if not self._is_blind:
            logger.warning(
                "beat: No sentinel of %s answers. Beat goes on with the master it knows, and does "
                "not notice when that is replaced.",
                self._service,
            )
        self._is_blind = True
        return True

    def _judge(self, views: dict[Any, View], began: float) -> bool:
        self._is_blind = False
        latest = max(view.epoch for view in views.values())
        newest = {each: view for each, view in views.items() if view.epoch == latest}
        # If two name different masters the first is followed: the other may not know yet.
        address = next(iter(newest.values())).address
        is_changing = any(view.is_changing for view in newest.values())
        if not is_changing and address != self.address:
            self._follow(address, newest)
        if not is_changing and address == self.address:
            self._is_holding = False
            self._confirmed, self._confirmed_at = address, began
            return True
        if not self._is_holding:
            logger.warning(
                "beat: The sentinels are replacing the master of %s. Nothing is sent until they "
                "name the new one.",
                self._service,
            )
        self._is_holding = True
        return False

    def _view_of(self, sentinel: Any) -> View | None:
        try:
            view = _read_view(self._clients[sentinel], self._service)
        except (RedisError, OSError) as exc:
            self._silent.add(sentinel)
            logger.debug("beat: A sentinel does not answer: %s", type(exc).__name__)
            return None
        self._silent.discard(sentinel)
        forced_host = getattr(self.pool.sentinel_manager, "_force_master_ip", None)
        if view is None or forced_host is None:
            return view
        return View(view.epoch, (forced_host, view.address[1]), view.is_changing)

    def _follow(self, address: Address, newest: dict[Any, View]) -> None:
        """Let the pool ask a sentinel that names this master, and drop its other connections."""
        before = self.address or ("?", "?")
        # redis-py takes the first answer; another thread may be reading the list.
        pool: Any = self.pool
        manager = pool.sentinel_manager
        naming = {each for each, view in newest.items() if view.address == address}
        manager.sentinels = sorted(manager.sentinels, key=lambda sentinel: sentinel not in naming)
        try:
            pool.get_master_address()
        except RedisError as exc:
            logger.debug("beat: The new master cannot be found yet: %s", type(exc).__name__)
        after = self.address or before
        if after != before:
            logger.warning(
                "beat: The master of %s is now %s:%s (was %s:%s)",
                self._service,
                *after,
                *before,
            )


class Master:
    """The master that a part of beat writes to, if sentinels name it.

    ``find_pool`` returns the pool of connections in use now. Without Sentinel nothing is asked, and
    the server is always sure.
    """

    def __init__(self, find_pool: Callable[[], object]) -> None:
        self._find_pool = find_pool
        self._last: MasterWatch | None = None

    @property
    def address(self) -> Address | None:
        """Where the pool leads now; ``None`` without sentinels or a connection. No round trip."""
        watch = self._watch()
        return watch.address if watch else None

    def is_sure(self) -> bool:
        """Whether beat may write there; see :meth:`MasterWatch.is_sure`."""
        watch = self._watch()
        return watch is None or watch.is_sure()

    def look(self) -> float:
        """Ask all sentinels, in a thread that may wait; returns the seconds until the next look."""
        watch = self._watch()
        if watch is None:
            return math.inf
        watch.look()
        return LOOKING_INTERVAL

    def close(self) -> None:
        """Close the connections to the sentinels."""
        if self._last is not None:
            self._last.close()

    def _watch(self) -> MasterWatch | None:
        pool = self._find_pool()
        if not isinstance(pool, SentinelConnectionPool) or not pool.is_master:
            return None
        if self._last is None or self._last.pool is not pool:
            self.close()
            self._last = MasterWatch(pool)
        return self._last


def connection_pool(client: Any) -> object:
    """The pool of a client; ``None`` if it has none, such as the client of a cluster."""
    return getattr(direct(client), "connection_pool", None)


def pool_of_channel(channel: Any) -> object:
    """The pool of an open Redis channel of kombu; ``None`` for any other channel."""
    is_open = getattr(channel, "connection", None) is not None
    return getattr(channel, "pool", None) if is_open else None


def _own_client(sentinel: Any) -> Redis:
    theirs = sentinel.connection_pool
    options = dict(theirs.connection_kwargs)
    for name in ("socket_timeout", "socket_connect_timeout"):
        options[name] = min(options.get(name) or ANSWERING_TIME, ANSWERING_TIME)
    options["retry"] = Retry(NoBackoff(), 0)
    pool = ConnectionPool(connection_class=theirs.connection_class, **options)
    return Redis(connection_pool=pool)


def _read_view(client: Redis, service: str) -> View | None:
    """What a sentinel says, ``None`` if it does not know the service.

    One round trip, two during a failover.
    """
    # redis-py itself asks this, so an ACL allows it.
    masters: Any = client.sentinel_masters()
    state = masters.get(service)
    if state is None:
        return None
    address = named = (str(state["ip"]), int(state["port"]))
    is_changing = "failover_in_progress" in state["flags"]
    if is_changing:
        try:
            reply: Any = client.sentinel_get_master_addr_by_name(service)
            named = (str(reply[0]), int(reply[1]))
        except (RedisError, TypeError):
            # Refused, or gone: the other sentinels say when it is over.
            pass
    return View(int(state.get("config-epoch", 0)), named, is_changing and named == address)
