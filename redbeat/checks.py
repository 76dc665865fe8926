"""Checks of the Redis server: that it is recent enough, and that it does not evict the schedule.

Under an ``allkeys-*`` policy a server that reaches ``maxmemory`` may delete any key: entries, the
schedule itself, the lock. Under ``volatile-*`` it deletes only keys that expire; of ours only
the lock does. See https://redis.io/docs/latest/develop/reference/eviction/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from celery.utils.log import get_logger
from redis.exceptions import NoPermissionError, RedisClusterException

from .errors import RedBeatKeyExpiryError, UnsupportedServerError
from .store.commands import text
from .store.escaping import one_line
from .store.retrying import OUTAGES, without_secrets

__all__ = [
    "DEFAULT_KEY_EXPIRY_CHECK",
    "KEY_EXPIRY_CHECK_MODES",
    "LOWEST_REDIS",
    "RedBeatKeyExpiryError",
    "check_key_expiry",
    "check_version",
]

logger = get_logger("celery.beat")

#: What a scheduler may do if the server may evict the schedule.
KEY_EXPIRY_CHECK_MODES = ("ignore", "warn", "error", "raise")
#: What it does by default.
DEFAULT_KEY_EXPIRY_CHECK = "error"

#: The lowest version of Redis on which the tests run. Valkey reports itself as Redis 7.2.4.
LOWEST_REDIS = (6, 2)


def check_version(client: Any) -> bool:
    """Refuse a server that is older than :data:`LOWEST_REDIS`; one round trip.

    A server that does not tell its version passes.

    Returns:
        Whether the server could be reached, so that it need not be asked again.

    Raises:
        UnsupportedServerError: The server is too old (a ``RuntimeError``).
    """
    try:
        reply = client.info("server")
    except (*OUTAGES, RedisClusterException):
        return False
    except NoPermissionError as exc:
        logger.warning(
            "beat: This Redis user may not run INFO (%s): the version of the server is not "
            "checked. Allow it in the ACL.",
            exc,
        )
        return True
    except Exception:
        # Some services do not know INFO, and a stand-in for a client may do anything.
        return True
    version = reply.get("redis_version") if isinstance(reply, Mapping) else None
    known = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if known is None or (int(known[1]), int(known[2])) >= LOWEST_REDIS:
        return True
    lowest = ".".join(map(str, LOWEST_REDIS))
    raise UnsupportedServerError(
        f"The Redis server of redbeat_redis_url has version {one_line(str(version))}, and redbeat "
        f"needs {lowest} or later (or any Valkey). Upgrade it, or set redbeat_redis_url to another."
    )


def check_key_expiry(client: Any, mode: str = DEFAULT_KEY_EXPIRY_CHECK) -> list[str]:
    """Check whether the server may evict the schedule; log and return the findings.

    One round trip, none for ``ignore``.

    Args:
        client: The client of the schedule.
        mode: One of :data:`KEY_EXPIRY_CHECK_MODES`: do not check, log at warning, log at error, or
            log at error and raise.

    Raises:
        RedBeatKeyExpiryError: There are findings, or the configuration cannot be read, under
            ``raise`` (a ``RuntimeError``).
    """
    mode = mode.lower()
    if mode == "ignore":
        return []
    try:
        groups = _group_by_setting(client.config_get("maxmemory*"))
    except Exception as exc:
        # Whatever a client, a proxy or a stand-in answers must not keep beat from starting.
        message = (
            "Cannot read the maxmemory configuration of Redis, so eviction is unchecked: "
            f"{str(without_secrets(exc)).rstrip('.')}. Allow CONFIG GET, or set "
            "redbeat_key_expiry_check = 'ignore'."
        )
        if mode == "raise":
            raise RedBeatKeyExpiryError(message) from None
        logger.warning("beat: %s", message)
        return []
    findings = [
        _describe(maxmemory, policy, nodes)
        for (maxmemory, policy), nodes in groups.items()
        if _is_limit(maxmemory) and policy.startswith("allkeys-")
    ]
    for finding in findings:
        log = logger.warning if mode == "warn" else logger.error
        log("beat: %s", finding)
    if findings and mode == "raise":
        raise RedBeatKeyExpiryError(" ".join(findings))
    return findings


def _group_by_setting(configuration: Mapping[Any, Any]) -> dict[tuple[str, str], list[str]]:
    """The nodes of each pair of ``maxmemory`` and policy; none for a single server."""
    if not any(isinstance(reply, Mapping) for reply in configuration.values()):
        return {_setting(configuration): []}
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reply in configuration.items():
        groups.setdefault(_setting(reply), []).append(text(node))
    return groups


def _setting(reply: Mapping[Any, Any]) -> tuple[str, str]:
    settings = {text(name): text(value) for name, value in reply.items()}
    return settings.get("maxmemory", ""), settings.get("maxmemory-policy", "")


def _is_limit(maxmemory: str) -> bool:
    try:
        return int(maxmemory) != 0
    except ValueError:
        return False


def _describe(maxmemory: str, policy: str, nodes: list[str]) -> str:
    where = f" on node{'s' if len(nodes) > 1 else ''} {', '.join(nodes)}" if nodes else ""
    return (
        f"Redis may evict the schedule{where}: maxmemory is {maxmemory} with maxmemory-policy "
        f"{policy}. Set maxmemory-policy to noeviction or to a volatile-* policy."
    )
