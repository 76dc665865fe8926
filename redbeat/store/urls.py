"""Pure: the URLs of Redis servers, as redis-py, Celery's brokers and 2.x write them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.connection import parse_url

SENTINEL_PORT = 26379

MASK = "**"

_CERT_REQS = re.compile(r"(?<=[?&]ssl_cert_reqs=)CERT_(NONE|OPTIONAL|REQUIRED)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_SOCKET_PATH = re.compile(r"[\w./-]+")

#: Schemes of URLs whose path is that of a Unix socket, and not of a database.
_SOCKET_SCHEMES = ("unix", "redis+socket")
_NODE = r"(?:[\w.-]+|\[[\da-f:.]+\])(?::\d+)?"
# A password may hold an @ or a / that was not quoted, so it ends at the last @. Where an @ follows
# a ? or a #, a password and a query cannot be told apart, and nothing matches.
_REST = re.compile(
    r"(?:(?P<user>[^:?#]*)(?P<password>:[^?#]*)?(?P<at>@))?"
    rf"(?P<nodes>(?:{_NODE}(?:,{_NODE})*)?)(?P<path>/[^?#@]*)?"
    r"(?:(?P<mark>[?#])[^@]*)?",
    re.IGNORECASE,
)


def scheme_of(url: Any) -> str:
    """What stands before ``://``, in lower case; empty if ``url`` is not a URL."""
    scheme, separator, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    return scheme.lower() if separator else ""


def sanitized(url: Any) -> str:
    """``url`` fit for a log: user information and query are masked; a list of them likewise.

    Of a malformed URL only the scheme is shown, for its password may be anywhere. Text without a
    scheme is not shown at all: it may be a password that was put in the wrong place.
    """
    if isinstance(url, (list, tuple)):
        return ";".join(map(sanitized, url))
    if url is None:
        return "None"
    if not isinstance(url, str):
        return f"a {type(url).__name__}"
    scheme, separator, rest = url.partition("://")
    if not separator:
        return MASK if url else ""
    if not _SCHEME.fullmatch(scheme):
        return MASK
    separator = f"{scheme}://"
    is_socket = scheme.lower() in _SOCKET_SCHEMES
    return ";".join(separator + _masked(part, is_socket) for part in rest.split(f";{separator}"))


def _masked(rest: str, is_socket: bool) -> str:
    found = _REST.fullmatch(rest)
    if found is None:
        return MASK
    # A missing user is what is wrong with many a URL, so that shows.
    user = MASK if found["user"] else ""
    password = f":{MASK}" if found["password"] else ""
    path = found["path"] or ""
    is_path_of_socket = is_socket and not found["nodes"] and _SOCKET_PATH.fullmatch(path)
    if not is_path_of_socket and path.strip("/0123456789"):
        # Not a database.
        path = f"/{MASK}"
    query = found["mark"] + MASK if found["mark"] else ""
    return f"{user}{password}{found['at'] or ''}{found['nodes']}{path}{query}"


def single_url(url: str) -> str:
    """The URL as redis-py reads it.

    Celery writes a Unix socket ``redis+socket://``, and ``ssl_cert_reqs`` as :mod:`ssl` does.
    """
    url = _CERT_REQS.sub(lambda found: found[0].removeprefix("CERT_").lower(), url)
    if scheme_of(url) != "redis+socket":
        return url
    parts = urlsplit(url)
    query = [
        ("db" if name == "virtual_host" else name, value) for name, value in parse_qsl(parts.query)
    ]
    return f"unix://{parts.netloc}{parts.path}?{urlencode(query)}"


def node_in(url: str) -> dict[str, Any]:
    """Host, port and credentials in the URL of one node, as keyword arguments of a client.

    Raises ``ValueError`` if it is malformed.
    """
    parts: dict[str, Any] = parse_url(  # type: ignore[no-untyped-call]  # redis-py's own gap
        f"redis://{url.split('://', 1)[-1]}"
    )
    return dict(parts)


def sentinels_in(url: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The sentinels in a broker URL of Celery, and the arguments for clients of the data nodes.

    ``sentinel://:password@host:26379/0;sentinel://host2:26379``: as Celery reads it, credentials
    and database are those of the first part. Raises ``ValueError`` if it is malformed.
    """
    parts = [node_in(part) for part in url.split(";")]
    sentinels = [
        (part["host"], part.get("port", SENTINEL_PORT)) for part in parts if "host" in part
    ]
    data_node = {name: parts[0][name] for name in parts[0] if name not in ("host", "port")}
    return sentinels, data_node
