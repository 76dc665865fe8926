"""Whose fault is an error that came up while a message was sent: the broker's, or the message's?

Celery and kombu wrap errors into their own, and count some among connection errors that are not:
for kombu a ``KeyError``, perhaps of an unknown compression, and a file that is not found are lost
connections. So the error that was raised first is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery.beat import SchedulingError
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from ..store.retrying import is_of_one_key, without_secrets
from .publishing import is_of_sending

#: What a message that cannot be serialised, or whose options do not exist, fails with.
OWN_FAULTS = (AttributeError, LookupError, OverflowError, TypeError, ValueError)


class BrokerAwayError(Exception):
    """The broker cannot be reached: what is due stays due."""


class BrokenOffError(BrokerAwayError):
    """The connection broke while messages were on their way."""


class NotSentError(Exception):
    """One message could not be sent although the broker is there: its entry alone is put off.

    ``is_news``: this tick has not met the same error with another entry.
    """

    def __init__(self, message: str, seconds: float, is_news: bool = True) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.is_news = is_news


def causes(exc: BaseException | None) -> Iterator[BaseException]:
    """An error and the errors that led to it."""
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def raised_first(exc: BaseException) -> BaseException:
    """The error that Celery and kombu have wrapped into their own."""
    wrappers = (SchedulingError, KombuError)
    return next((cause for cause in causes(exc) if not isinstance(cause, wrappers)), exc)


def is_of_the_message(exc: BaseException) -> bool:
    """Whether a message cannot be built or serialised; some transports serialise as they send."""
    is_of_transport = any(map(is_of_sending, causes(exc)))
    return not is_of_transport or isinstance(raised_first(exc), OWN_FAULTS)


def is_of_files(exc: BaseException) -> bool:
    """Whether a broker that consists of files could not be written to."""
    chain = list(causes(exc))
    return any(map(is_of_sending, chain)) and any(
        isinstance(cause, OSError) and cause.filename is not None for cause in chain
    )


def is_refusal(exc: BaseException, connection: Any) -> bool:
    """Whether the broker behind ``connection`` refuses this one message."""
    if isinstance(exc, RedisError):
        return is_of_one_key(exc)
    # Some transports count the same errors among both.
    return isinstance(exc, connection.channel_errors) and not isinstance(
        exc, connection.connection_errors
    )


def is_lost_connection(exc: BaseException, connection: Any) -> bool:
    """Whether ``connection`` is what failed, and not the message."""
    first = raised_first(exc)
    if isinstance(first, LookupError):
        return False
    if is_of_files(exc):
        return True
    if getattr(first, "filename", None) is not None:
        return False
    errors = (OperationalError, *connection.connection_errors)
    return any(isinstance(cause, errors) for cause in causes(exc))


def describe(exc: BaseException) -> str:
    """What an error says, without secrets."""
    reason: BaseException = exc
    while reason.__cause__ is not None:
        reason = reason.__cause__
    if type(reason) is ValueError:
        # What the URL parser says may quote part of the password.
        return "its URL is malformed"
    first = raised_first(reason)
    if isinstance(first, AttributeError) and "'NoneType' object" in str(first):
        # kombu went on with a channel whose connection is gone.
        return "the connection was lost"
    return str(without_secrets(reason)) or type(reason).__name__
