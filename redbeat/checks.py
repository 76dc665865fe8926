"""What the Redis server must be, and must not do to us: old, and evict the schedule.

Under an ``allkeys-*`` policy a server that reaches ``maxmemory`` may delete any key: entries, the
schedule itself, the lock. Under ``volatile-*`` it deletes only keys that expire, and of ours only
the lock does. See https://redis.io/docs/latest/develop/reference/eviction/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from celery.utils.log import get_logger
from redis.exceptions import NoPermissionError, RedisClusterException

from .errors import RedBeatKeyExpiryError, UnsupportedServerError
from .store.escaping import one_line
from .store.retrying import OUTAGES, without_secrets
from .store.storage import text

__all__ = [
    "DEFAULT_KEY_EXPIRY_CHECK",
    "KEY_EXPIRY_CHECK_MODES",
    "LOWEST_REDIS",
    "RedBeatKeyExpiryError",
    "check_key_expiry",
    "check_version",
]

logger = get_logger("celery.beat")

#: What a scheduler may do about a server that may evict the schedule.
KEY_EXPIRY_CHECK_MODES = ("ignore", "warn", "error", "raise")
#: What it does unless it is told otherwise.
DEFAULT_KEY_EXPIRY_CHECK = "error"

#: The lowest version of Redis on which the tests run. Valkey says of itself that it is Redis 7.2.4.
LOWEST_REDIS = (6, 2)


def check_version(client: Any) -> bool:
    """Refuse a server that is older than :data:`LOWEST_REDIS`; one round trip.

    Returns whether the server could be reached, so that it need not be asked again: one that does
    not say is let pass. Raises :exc:`~redbeat.errors.UnsupportedServerError` (a ``RuntimeError``).
    """
    try:
        reply = client.info("server")
    except (*OUTAGES, RedisClusterException):
        return False
    except NoPermissionError as exc:
        logger.warning(
            "beat: This user of Redis may not run INFO (%s): the version of the server is not "
            "checked. Allow it in the ACL.",
            exc,
        )
        return True
    except Exception:
        # Some services know no INFO, and what a stand-in for a client does is its own affair.
        return True
    version = reply.get("redis_version") if isinstance(reply, Mapping) else None
    known = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if known is None or (int(known[1]), int(known[2])) >= LOWEST_REDIS:
        return True
    lowest = ".".join(map(str, LOWEST_REDIS))
    raise UnsupportedServerError(
        f"The Redis of redbeat_redis_url has version {one_line(str(version))}, and redbeat needs "
        f"{lowest} or later (or any Valkey). Upgrade it, or let redbeat_redis_url name another one."
    )


def check_key_expiry(client: Any, mode: str = DEFAULT_KEY_EXPIRY_CHECK) -> list[str]:
    """Look whether the server may evict the schedule, log what is found, and return it.

    ``mode`` is one of :data:`KEY_EXPIRY_CHECK_MODES`: do not ask, log at warning, log at error, or
    also raise :exc:`~redbeat.errors.RedBeatKeyExpiryError`. One round trip, none for ``ignore``.
    """
    mode = mode.lower()
    if mode == "ignore":
        return []
    try:
        groups = _group_by_setting(client.config_get("maxmemory*"))
    except Exception as exc:
        # Whatever a client, a proxy or a stand-in for one answers must not keep beat from starting.
        return _report_unreadable(without_secrets(exc), mode)
    findings = [
        _describe(maxmemory, policy, nodes)
        for (maxmemory, policy), nodes in groups.items()
        if _may_evict(maxmemory, policy)
    ]
    _report(findings, mode)
    return findings


def _group_by_setting(configuration: Mapping[Any, Any]) -> dict[tuple[str, str], list[str]]:
    """Nodes by what they say; a single server's reply has no node names."""
    if not any(isinstance(reply, Mapping) for reply in configuration.values()):
        return {_setting(configuration): []}
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reply in configuration.items():
        groups.setdefault(_setting(reply), []).append(text(node))
    return groups


def _setting(reply: Mapping[Any, Any]) -> tuple[str, str]:
    said = {text(name): text(value) for name, value in reply.items()}
    return said.get("maxmemory", ""), said.get("maxmemory-policy", "")


def _may_evict(maxmemory: str, policy: str) -> bool:
    try:
        limited = int(maxmemory) != 0
    except ValueError:
        return False
    return limited and policy.startswith("allkeys-")


def _describe(maxmemory: str, policy: str, nodes: list[str]) -> str:
    where = f" on node{'s' if len(nodes) > 1 else ''} {', '.join(nodes)}" if nodes else ""
    return (
        f"Redis may evict the schedule{where}: maxmemory is {maxmemory} with maxmemory-policy "
        f"{policy}. Set maxmemory-policy to noeviction or to a volatile-* policy."
    )


def _report(findings: list[str], mode: str) -> None:
    for finding in findings:
        log = logger.warning if mode == "warn" else logger.error
        log("beat: %s", finding)
    if findings and mode == "raise":
        raise RedBeatKeyExpiryError(" ".join(findings))


def _report_unreadable(exc: Exception, mode: str) -> list[str]:
    message = (
        "Cannot read the maxmemory configuration of Redis, so eviction is unchecked: "
        f"{str(exc).rstrip('.')}. Allow "
        "CONFIG GET, or set redbeat_key_expiry_check = 'ignore'."
    )
    if mode == "raise":
        raise RedBeatKeyExpiryError(message) from None
    logger.warning("beat: %s", message)
    return []
