"""Trying again while Redis cannot be reached: single calls, and units of work as a whole.

A *unit* is a function that may be run twice: a pipeline, a script, a read. It is run again from its
first command, on a connection of its own, so what it builds is built anew. Which units there are is
decided in ``storage.py``, method by method; a pipeline or a lock that a program asks of a
:class:`RetryingConnection` is that of redis-py, for nobody else can know what may be done twice.

A unit is tried for the retry period, and never longer than the *patience* of who asked for it: a
leader's patience ends with its trust in the lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import tenacity
from celery.utils.log import get_logger
from redis.connection import BlockingConnectionPool, ConnectionPool
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError

from .options import FOR_EVER

logger = get_logger("celery.beat")

Result = TypeVar("Result")
Error = TypeVar("Error", bound=BaseException)

#: What passes of itself, as redis-py raises it.
OUTAGES = (
    RedisConnectionError,
    RedisTimeoutError,
    ClusterError,
    SlotNotCoveredError,
    TryAgainError,
)

#: What passes of itself, as a server says it; of some codes redis-py makes no error of their own.
#: See https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors.
OUTAGE_CODES = {"BUSY", "CLUSTERDOWN", "LOADING", "NOREPLICAS", "TRYAGAIN"}

#: What a replica says that was the master until now, or lost its master.
REPLICA_CODES = {"MASTERDOWN", "READONLY"}

#: How redis-py begins to say that it finds no cluster, or not all of it.
CLUSTER_OUTAGES = ("Redis Cluster cannot be connected", "All slots are not covered")

#: What stands between a step of ours and what the server said when it refused that.
SAYS = ", and says: "

#: What redis-py writes behind the client of each sentinel: an error and its text.
SENTINEL_REASON = re.compile(r"> - ([\w:]+(?:\('[^']*'\))?)")

#: How a server says that a script met what is not a hash, or a key that its user may not touch.
SCRIPT_REFUSAL = re.compile(r": WRONGTYPE |can't access at least one of the keys")

_patience: ContextVar[Callable[[], float]] = ContextVar(
    "redbeat_patience", default=lambda: float("inf")
)


def not_again() -> float:
    """The patience of who tries again in a way of its own."""
    return 0.0


@contextmanager
def patience(seconds_left: Callable[[], float]) -> Iterator[None]:
    """In this block and thread, try again for so many seconds more at the most; 0: not at all."""
    token = _patience.set(seconds_left)
    try:
        yield
    finally:
        _patience.reset(token)


class RetryingConnection:
    """A client whose calls are tried again while Redis cannot be reached.

    Attributes are those of the client. A call is retried on connection errors, time-outs and a
    missing Sentinel master, with growing waits, for ``retry_period`` seconds; ``-1``: for ever.
    """

    #: Seconds at most between two tries.
    RETRY_MAX_WAIT = 30

    def __init__(self, retry_period: float, wrapped_connection: Any) -> None:
        self.retry_period = retry_period
        self.wrapped_connection = wrapped_connection
        self._retrying = retries(retry_period)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Asked for by copy and pickle, before there is a client to ask.
            raise AttributeError(name)
        attribute = getattr(self.wrapped_connection, name)
        if not callable(attribute) or name == "connection_pool":
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._retrying(_attempt, self.wrapped_connection, attribute, *args, **kwargs)

        return call


def retries(retry_period: float) -> tenacity.Retrying:
    """What calls a function again on an outage, for so many seconds; ``-1``: for ever."""
    period = float("inf") if retry_period == FOR_EVER else retry_period
    growing = tenacity.wait_exponential(max=RetryingConnection.RETRY_MAX_WAIT)

    # By this name old versions of tenacity hand it over.
    def seconds_left(retry_state: tenacity.RetryCallState) -> float:
        return min(period - (retry_state.seconds_since_start or 0.0), _patience.get()())

    def wait(retry_state: tenacity.RetryCallState) -> float:
        return max(min(growing(retry_state), seconds_left(retry_state)), 0.0)

    def stop(retry_state: tenacity.RetryCallState) -> bool:
        return seconds_left(retry_state) <= 0

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_outage),
        reraise=True,
        wait=wait,
        stop=stop,
        before_sleep=_log_wait,
    )


def _log_wait(retry_state: tenacity.RetryCallState) -> None:
    assert retry_state.outcome is not None
    assert retry_state.next_action is not None
    logger.warning(
        "beat: Redis cannot be reached (%s), trying again in %.1f seconds",
        retry_state.outcome.exception(),
        retry_state.next_action.sleep,
    )


def direct(client: Any) -> Any:
    """The client itself, without retries of ours."""
    return client.wrapped_connection if isinstance(client, RetryingConnection) else client


def run_unit(client: Any, unit: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Call ``unit``; where the client is a retrying one, again and again while Redis is away.

    Any client gets a second try at once on a fresh connection: a proxy may have closed the idle one
    without a word, or the server at its end may be the master no more. Raises what the last try
    raised, with no password in it.
    """
    attempt = partial(_attempt_twice, direct(client), unit, *args, **kwargs)
    if not isinstance(client, RetryingConnection):
        return attempt()
    result: Result = client._retrying(attempt)
    return result


def _attempt_twice(client: Any, unit: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    try:
        return _attempt(client, unit, *args, **kwargs)
    except RedisError as exc:
        if not _may_be_the_connection(exc):
            raise
    return _attempt(client, unit, *args, **kwargs)


def _attempt(client: Any, call: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    try:
        return call(*args, **kwargs)
    except (RedisError, RedisClusterException) as exc:
        if _may_be_the_connection(exc):
            _forget_connections(client)
        safe = without_secrets(exc)
        if safe is exc:
            raise
        raise safe from None


def _may_be_the_connection(exc: Exception) -> bool:
    """Whether a fresh connection may mend it; a server that does not answer is asked once."""
    if isinstance(exc, (AuthenticationError, BusyLoadingError, MasterNotFoundError)):
        return False
    return isinstance(exc, RedisConnectionError) or is_of_replica(exc)


def _forget_connections(client: Any) -> None:
    """Connect anew with the next command; the name of the master may lead elsewhere by now."""
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, ConnectionPool) and not isinstance(pool, BlockingConnectionPool):
        pool.disconnect(inuse_connections=False)


def without_secrets(exc: Error) -> Error:
    """``exc``, or one of its class whose text leaves out what may hold a password."""
    if not isinstance(exc, (RedisError, RedisClusterException)):
        return exc
    text = str(exc)
    if isinstance(exc, MasterNotFoundError):
        # Behind it redis-py writes the clients of the sentinels, in some versions with passwords.
        reasons = SENTINEL_REASON.findall(text)
        safe = " : ".join([text.split(" : ", 1)[0], *filter(None, [", ".join(reasons)])])
    else:
        # A server that does not know AUTH or HELLO repeats what it was told.
        safe = text.split(" with args beginning with", 1)[0].rstrip(",")
    return exc if safe == text else type(exc)(safe)


def is_outage(exc: BaseException) -> bool:
    """Whether trying again may help; a wrong password stays wrong."""
    if isinstance(exc, (AuthenticationError, AuthorizationError)):
        return False
    if isinstance(exc, RedisClusterException) and str(exc).startswith(CLUSTER_OUTAGES):
        return True
    return isinstance(exc, OUTAGES) or error_code(exc) in OUTAGE_CODES or is_of_replica(exc)


def is_of_one_key(exc: BaseException) -> bool:
    """Whether a server refused a command for its keys, so that others may go through."""
    if isinstance(exc, NoPermissionError):
        # The other refusal is that of a command, "to run" it.
        return "to access" in str(exc)
    return error_code(exc) == "WRONGTYPE" or SCRIPT_REFUSAL.search(str(exc)) is not None


def is_of_replica(exc: BaseException) -> bool:
    """Whether a server refused since it is a replica, as a master is after a failover."""
    if isinstance(exc, (ReadOnlyError, MasterDownError)) or error_code(exc) in REPLICA_CODES:
        return True
    # Before Redis 7 a script that meets it gives it in the midst of a longer text.
    return isinstance(exc, RedisError) and "-READONLY " in str(exc)


def error_code(exc: BaseException) -> str:
    """The first word of what the server said, where redis-py has not made an error class of it."""
    if not isinstance(exc, RedisError):
        return ""
    return said(exc).split(" ", 1)[0]


def said(exc: RedisError) -> str:
    """What the server said; in a pipeline redis-py puts the command before it, and we the step."""
    return str(exc).rpartition("caused error: ")[2].rpartition(SAYS)[2]
