"""Pure: the addresses of a cluster's nodes and of sentinels in ``redbeat_redis_options``.

An error names the place of a value, but only its type: the value may be a URL with a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import SettingError
from .options import type_of

A_NODE = "{'host': 'node-1', 'port': 6379}"
A_SENTINEL = "('sentinel-1', 26379)"

LAST_PORT = 65535

_HOST = re.compile(r"[^\s/@]+")
_PORT = re.compile(r"\s*\d{1,5}\s*", re.ASCII)


def startup_nodes_in(given: Any, default: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a cluster, each a ``host`` (text) and a ``port`` (number).

    The ``default`` completes each node, and is the only one if none is given.

    Raises:
        SettingError: A node is not one.
    """
    where = "redbeat_redis_options['startup_nodes']"
    nodes = [
        _read_node(f"{where}[{number}]", node, default)
        for number, node in enumerate(_read_list(where, given, A_NODE))
    ]
    return nodes or [dict(default)]


def sentinels_among(given: Any) -> list[Any]:
    """The pairs of host and port, as they were given; none if ``given`` is ``None``.

    Raises:
        SettingError: A sentinel is not such a pair.
    """
    where = "redbeat_redis_options['sentinels']"
    pairs = _read_list(where, given, A_SENTINEL)
    for number, pair in enumerate(pairs):
        place = f"{where}[{number}]"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise _refusal(place, f"a pair of host and port such as {A_SENTINEL}", pair)
        _read_host(f"{place}[0]", pair[0])
        _read_port(f"{place}[1]", pair[1])
    return pairs


def _read_list(where: str, given: Any, example: str) -> list[Any]:
    if given is None:
        return []
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping)):
        return list(given)
    raise _refusal(where, f"a list of addresses such as {example}", given)


def _read_node(where: str, node: Any, default: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(node, Mapping):
        raise _refusal(where, f"a dict such as {A_NODE}", node)
    missing = [part for part in default if part not in node]
    # A key of another name in the place of a missing one is that one, misspelled.
    if missing and len(node) + len(missing) > len(default):
        raise SettingError(
            f"{where} must be a dict such as {A_NODE}, got one with other keys and no "
            f"{' and no '.join(map(repr, missing))}"
        )
    parts = {**default, **node}
    return {
        "host": _read_host(f"{where}['host']", parts["host"]),
        "port": _read_port(f"{where}['port']", parts["port"]),
    }


def _read_host(where: str, host: Any) -> str:
    if isinstance(host, str) and _HOST.fullmatch(host):
        return host
    raise _refusal(where, "the name or IP address of a host (not a URL), as text", host)


def _read_port(where: str, port: Any) -> int:
    number = int(port) if isinstance(port, str) and _PORT.fullmatch(port) else port
    if isinstance(number, int) and not isinstance(number, bool) and 0 < number <= LAST_PORT:
        return number
    raise _refusal(where, f"a port from 1 to {LAST_PORT}, as a number or text", port)


def _refusal(where: str, expected: str, got: Any) -> SettingError:
    return SettingError(f"{where} must be {expected}, got {type_of(got)}")
