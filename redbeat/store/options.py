"""Settings with their types, and the options of ``redbeat_redis_options`` by whom they are for."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError


@dataclass(frozen=True)
class Setting:
    """One setting of the Celery configuration: its type is what ``check`` lets through."""

    name: str
    default: Any
    type: str
    accepts: Callable[[Any], bool]
    meaning: str
    is_secret: bool = False

    def check(self, value: Any) -> Any:
        """Return ``value`` if it is ``None`` or can work.

        Raises:
            SettingError: It cannot. The message quotes the value, or only its type where the
                setting may hold a password.
        """
        if value is None or self.accepts(value):
            return value
        raise self.refusal(value)

    def refusal(self, value: Any) -> SettingError:
        """The error that says what this setting must be."""
        shown = type_of(value) if self.is_secret else repr(value)
        return SettingError(f"{self.name} must be {self.type}, got {shown}")


def type_of(value: Any) -> str:
    """The type of a value that must not be shown, with its article: ``an int``."""
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number; ``True`` and ``False`` are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """Whether ``value`` is a finite number above 0."""
    return is_number(value) and 0 < value < float("inf")


def is_a(*types: type) -> Callable[[Any], bool]:
    """Make the test whether a value is of one of these types."""
    return lambda value: isinstance(value, types)


def _is_retry_period(value: Any) -> bool:
    return value == FOR_EVER or (is_number(value) and value >= 0)


def _is_encoding(value: Any) -> bool:
    try:
        codecs.lookup(value)
    except (LookupError, TypeError):
        return False
    return True


#: The retry period that never ends.
FOR_EVER = -1

#: Options of clients that are numbers, and come as text from environment variables.
SECONDS_OPTIONS = ("socket_timeout", "socket_connect_timeout", "health_check_interval")

#: The options that are checked here, since redis-py would complain late or quote the value.
CHECKED_OPTIONS = {
    name: Setting(f"redbeat_redis_options[{name!r}]", None, type_, accepts, "", is_secret=True)
    for name, type_, accepts in (
        ("master_name", "text", is_a(str)),
        ("service_name", "text", is_a(str)),
        (
            "sentinel_kwargs",
            "a dict of options for the connections to the sentinels",
            is_a(Mapping),
        ),
        ("retry_period", "a number of seconds, or -1 to retry forever", _is_retry_period),
        ("encoding", "an encoding that Python knows", _is_encoding),
        *((name, "a number of seconds", is_number) for name in SECONDS_OPTIONS),
    )
}

#: The options that are ours, and the one that we decide: they are never passed to a client.
OWN_OPTIONS = frozenset(
    {
        "cluster",
        "decode_responses",
        "retry_period",
        "sentinel_kwargs",
        "sentinels",
        "service_name",
        "startup_nodes",
    }
)

#: Options of kombu's Redis transports that clients do not know: they are of no use to a schedule.
TRANSPORT_OPTIONS = frozenset(
    {
        "ack_emulation",
        "body_encoding",
        "callback",
        "connect_retries_timeout",
        "deadletter_queue",
        "errback",
        "fanout_patterns",
        "fanout_prefix",
        "global_keyprefix",
        "interval_max",
        "interval_start",
        "interval_step",
        "master_name",
        "max_retries",
        "min_other_sentinels",
        "polling_interval",
        "priority_steps",
        "queue_order_strategy",
        "reauth_check_interval",
        "sentinel_fanout_compat",
        "sep",
        "unacked_index_key",
        "unacked_key",
        "unacked_mutex_expire",
        "unacked_mutex_key",
        "unacked_restore_interval",
        "unacked_restore_limit",
        "unacked_restore_throttle",
        "visibility_timeout",
    }
)

#: Options of redis-py's connection pools, which no connection takes.
POOL_OPTIONS = frozenset(
    {"cache", "cache_config", "cache_factory", "connection_class", "max_connections"}
)

#: The same of its Sentinel clients.
SENTINEL_POOL_OPTIONS = frozenset(
    {"check_connection", "force_master_ip", "master_name", "min_other_sentinels", "ssl"}
)

#: Options of the broker that mean the same to the data nodes behind Sentinel.
SENTINEL_BROKER_OPTIONS = frozenset(
    {
        "credential_provider",
        "db",
        "master_name",
        "min_other_sentinels",
        "password",
        "socket_timeout",
        "username",
    }
)
