"""Retries while Redis cannot be reached, of single calls and of whole units of work.

A *unit* is a function that may run twice: a pipeline, a script, a read. It is retried from its
first command on a connection of its own, so whatever it builds is built again. Each method of the
storage decides what its units are. A pipeline or a lock that a program gets from a
:class:`RetryingConnection` is redis-py's own: only the program knows what may happen twice.

A unit is retried for the retry period, and never longer than the *patience* of its caller: a
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

#: Errors of redis-py that pass without our doing.
OUTAGES = (
    RedisConnectionError,
    RedisTimeoutError,
    ClusterError,
    SlotNotCoveredError,
    TryAgainError,
)

#: The same as first words of a server's error: redis-py has no class of its own for some.
#: See https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors.
OUTAGE_CODES = {"BUSY", "CLUSTERDOWN", "LOADING", "NOREPLICAS", "TRYAGAIN"}

#: How a replica refuses that was the master until now, or has lost its master.
REPLICA_CODES = {"MASTERDOWN", "READONLY"}

#: How redis-py's error starts when it cannot find a cluster, or not all of it.
CLUSTER_OUTAGES = ("Redis Cluster cannot be connected", "All slots are not covered")

#: Separates our name for a step from what the server said when it refused it.
SAYS = ", and says: "

#: What redis-py writes after the client of each sentinel: an error and its text.
SENTINEL_REASON = re.compile(r"> - ([\w:]+(?:\('[^']*'\))?)")

#: A server's error when a script meets a key of another type, or one that it may not touch.
SCRIPT_REFUSAL = re.compile(
    r": WRONGTYPE |can't access at least one of the (keys|channels)"
    r"|ACL failure in script.* to access "
)

_patience: ContextVar[Callable[[], float]] = ContextVar(
    "redbeat_patience", default=lambda: float("inf")
)


def not_again() -> float:
    """No retries: the caller has its own."""
    return 0.0


@contextmanager
def patience(seconds_left: Callable[[], float]) -> Iterator[None]:
    """Retry for at most so many more seconds in this block and thread; 0: not at all."""
    token = _patience.set(seconds_left)
    try:
        yield
    finally:
        _patience.reset(token)


class RetryingConnection:
    """A client whose calls are retried while Redis cannot be reached.

    Attributes are those of the client. A call is retried on connection errors, time-outs and a
    missing Sentinel master, with growing waits, for ``retry_period`` seconds; ``-1``: forever.
    """

    #: Seconds at most between two attempts.
    RETRY_MAX_WAIT = 30

    def __init__(self, retry_period: float, wrapped_connection: Any) -> None:
        self.retry_period = retry_period
        self.wrapped_connection = wrapped_connection
        self.retrying = retries(retry_period)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Asked for by copy and pickle, before there is a client to ask.
            raise AttributeError(name)
        attribute = getattr(self.wrapped_connection, name)
        if not callable(attribute) or name == "connection_pool":
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            return self.retrying(_attempt, self.wrapped_connection, attribute, *args, **kwargs)

        return call


def retries(retry_period: float) -> tenacity.Retrying:
    """An object that calls a function until there is no outage, for at most so many seconds.

    ``-1``: forever.
    """
    period = float("inf") if retry_period == FOR_EVER else retry_period
    growing = tenacity.wait_exponential(max=RetryingConnection.RETRY_MAX_WAIT)

    # Old versions of tenacity pass the state by this name.
    def seconds_left(retry_state: tenacity.RetryCallState) -> float:
        return min(period - (retry_state.seconds_since_start or 0.0), _patience.get()())

    def wait(retry_state: tenacity.RetryCallState) -> float:
        return max(min(growing(retry_state), seconds_left(retry_state)), 0.0)

    def stop(retry_state: tenacity.RetryCallState) -> bool:
        return seconds_left(retry_state) <= 0

    def log_wait(retry_state: tenacity.RetryCallState) -> None:
        assert retry_state.outcome is not None
        assert retry_state.next_action is not None
        logger.warning(
            "beat: Redis cannot be reached (%s), trying again in %.1f seconds",
            retry_state.outcome.exception(),
            retry_state.next_action.sleep,
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_outage),
        reraise=True,
        wait=wait,
        stop=stop,
        before_sleep=log_wait,
    )


def direct(client: Any) -> Any:
    """The client itself, without our retries."""
    return client.wrapped_connection if isinstance(client, RetryingConnection) else client


def run_unit(client: Any, unit: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Call ``unit``; if the client is a :class:`RetryingConnection`, retry while Redis is away.

    With any client a second attempt follows at once on a fresh connection: a proxy may have closed
    the idle one silently, or its server may no longer be the master. Raises what the last attempt
    raised, with no password in it.
    """
    attempt = partial(_attempt_twice, direct(client), unit, *args, **kwargs)
    if not isinstance(client, RetryingConnection):
        return attempt()
    result: Result = client.retrying(attempt)
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
        pool = getattr(client, "connection_pool", None)
        if (
            _may_be_the_connection(exc)
            and isinstance(pool, ConnectionPool)
            and not isinstance(pool, BlockingConnectionPool)
        ):
            # The next command connects again: the name of the master may lead elsewhere by now.
            pool.disconnect(inuse_connections=False)
        safe = without_secrets(exc)
        if safe is exc:
            raise
        raise safe from None


def _may_be_the_connection(exc: Exception) -> bool:
    """Whether a fresh connection may help; a server that does not answer is asked only once."""
    if isinstance(exc, (AuthenticationError, BusyLoadingError, MasterNotFoundError)):
        return False
    return isinstance(exc, RedisConnectionError) or is_of_replica(exc)


def without_secrets(exc: Error) -> Error:
    """``exc``, or another of its class without the part of its text that may hold a password."""
    if not isinstance(exc, (RedisError, RedisClusterException)):
        return exc
    text = str(exc)
    if isinstance(exc, MasterNotFoundError):
        # redis-py appends the clients of the sentinels, in some versions with their passwords.
        reasons = SENTINEL_REASON.findall(text)
        safe = " : ".join([text.split(" : ", 1)[0], *filter(None, [", ".join(reasons)])])
    else:
        # A server that does not know AUTH or HELLO repeats their arguments.
        safe = text.split(" with args beginning with", 1)[0].rstrip(",")
    return exc if safe == text else type(exc)(safe)


def is_outage(exc: BaseException) -> bool:
    """Whether a retry may help; a wrong password stays wrong."""
    if isinstance(exc, (AuthenticationError, AuthorizationError)):
        return False
    if isinstance(exc, RedisClusterException) and str(exc).startswith(CLUSTER_OUTAGES):
        return True
    return isinstance(exc, OUTAGES) or error_code(exc) in OUTAGE_CODES or is_of_replica(exc)


def is_of_one_key(exc: BaseException) -> bool:
    """Whether a server refused a command because of its keys, so that others may succeed."""
    if isinstance(exc, NoPermissionError):
        # A user without the command itself has no permissions "to run" it.
        return "to access" in str(exc)
    return error_code(exc) == "WRONGTYPE" or SCRIPT_REFUSAL.search(str(exc)) is not None


def is_of_user(exc: BaseException) -> bool:
    """Whether the ACL of a user is why a server refused something, perhaps within a script."""
    words = ("NOPERM", "The user executing the script can't", "ACL failure in script")
    return isinstance(exc, NoPermissionError) or any(each in str(exc) for each in words)


def is_of_replica(exc: BaseException) -> bool:
    """Whether a server refused because it is a replica, as a master is after a failover."""
    if isinstance(exc, (ReadOnlyError, MasterDownError)) or error_code(exc) in REPLICA_CODES:
        return True
    # Before Redis 7 the error of a script has it in the middle of a longer text.
    return isinstance(exc, RedisError) and "-READONLY " in str(exc)


def error_code(exc: BaseException) -> str:
    """The first word of what the server said, for errors that redis-py has no class for."""
    if not isinstance(exc, RedisError):
        return ""
    return said(exc).split(" ", 1)[0]


def said(exc: RedisError) -> str:
    """What the server said, without the command or the step that redis-py or we put before it."""
    return str(exc).rpartition("caused error: ")[2].rpartition(SAYS)[2]
