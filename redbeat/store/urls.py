"""Pure: the URLs of Redis servers, as redis-py, Celery's brokers and 2.x write them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.connection import parse_url

SENTINEL_PORT = 26379

MASK = "**"

_NEXT_URL = re.compile(r";(?=[a-z][a-z+.-]*://)", re.IGNORECASE)
_CERT_REQS = re.compile(r"(?<=[?&]ssl_cert_reqs=)CERT_(NONE|OPTIONAL|REQUIRED)")
# A password may hold what had to be quoted, an @, a slash and a # too, so it ends with the last @.
# A user without a password may be a password that was typed in the wrong place.
_CREDENTIALS = re.compile(r"(?<=://)(?:[\w.%+-]*(?P<password>:.*)?|.*)@", re.DOTALL)
# Whether a password that holds a ? ends with this @, or a parameter holds it, nobody can tell.
_AMBIGUOUS = re.compile(r"(?<=://)[^?]*\?.*@.*", re.DOTALL)
_BEHIND = re.compile(r"([?#]).+", re.DOTALL)
_BARE_PASSWORD = re.compile(r"(?<=://):[^@/]*$")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_WORD = re.compile(r"[\w.-]*")
# What stands behind the name of a host, is no port and should have had an @ behind it.
_NO_PORT = re.compile(r"(?<=://)(\[[^\]]*\]|[^\[:@/?]*):(?!\d*(?:[/?,]|$))[^@/?]*(?=[/?]|$)")


def scheme_of(url: Any) -> str:
    """What stands before ``://``, in lower case; empty if ``url`` is no URL."""
    scheme, separator, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    return scheme.lower() if separator else ""


def sanitized(url: Any) -> str:
    """``url`` fit for a log: no user, no password and no query in it; a list of them likewise."""
    if isinstance(url, (list, tuple)):
        return ";".join(map(sanitized, url))
    if url is None:
        return "None"
    if not isinstance(url, str):
        return f"a {type(url).__name__}"
    return ";".join(map(_without_secrets, _NEXT_URL.split(url)))


def _without_secrets(url: str) -> str:
    if not _URL.match(url):
        # Of a misspelt URL nobody can tell where the password stands.
        return url if _WORD.fullmatch(url) else MASK
    url = _NO_PORT.sub(rf"\1:{MASK}", url)
    url = _CREDENTIALS.sub(_masked_credentials, _AMBIGUOUS.sub(f"{MASK}?{MASK}", url))
    return _BARE_PASSWORD.sub(f":{MASK}", _BEHIND.sub(rf"\1{MASK}", url))


def _masked_credentials(found: re.Match[str]) -> str:
    if not found["password"]:
        return f"{MASK}@"
    # That a user was left out is what is wrong with many a URL.
    return f":{MASK}@" if found[0].startswith(":") else f"{MASK}:{MASK}@"


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
