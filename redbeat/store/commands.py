"""Single commands and their replies, byte for byte.

Others may have written keys and values that are not UTF-8, and one such entry must not keep the
rest from being read. So replies stay bytes, and become text whose undecodable bytes are lone
surrogates: :func:`text` and :func:`raw` lead there and back. Each function takes a client, or a
pipeline, which has its reply when it is executed.

A stand-in for a client, as applications' tests inject, may reply with anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.client import NEVER_DECODE
from redis.exceptions import NoPermissionError, ResponseError

from .escaping import one_line
from .records import FIELDS, Member, Stored
from .retrying import is_of_one_key

#: Where in a script an error came up, in the words of a server: that helps no reader.
SCRIPT_PLACE = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.?$|^.*@user_script: ?\d+: ")

#: For redis-py: leave a reply as bytes.
UNDECODED = {NEVER_DECODE: True}


def text(reply: Any) -> str:
    """What Redis holds, as text; bytes that are not UTF-8 become lone surrogates.

    A client may have made text or a number of it already.
    """
    return reply.decode("utf-8", "surrogateescape") if isinstance(reply, bytes) else str(reply)


def optional_text(reply: Any) -> str | None:
    """The text of a reply, ``None`` if it has none."""
    return text(reply) if isinstance(reply, (bytes, str)) else None


def raw(key: str) -> bytes:
    """The bytes that :func:`text` was made from."""
    return key.encode("utf-8", "surrogateescape")


def ask(client: Any, *command: Any) -> Any:
    """Run a command, and leave its reply as bytes."""
    return client.execute_command(*command, **UNDECODED)


def ask_for_each(
    client: Any, keys: Iterable[str], command: Callable[[Any, str], object], raises: bool = True
) -> list[Any]:
    """The replies to one command for each key, in a pipeline; one round trip, none for no keys.

    ``raises``: whether to raise the first error, or to return errors among the replies.
    """
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            command(pipe, key)
        return list(pipe.execute(raise_on_error=raises))


def get_fields(client: Any, key: str, fields: Sequence[str] = FIELDS) -> Any:
    """Ask for fields of a hash; :func:`stored` reads the reply for the usual ones."""
    return ask(client, "HMGET", raw(key), *fields)


def range_by_score(
    client: Any, key: str, low: float | str, high: float | str, limit: int | None = None
) -> Any:
    """Ask for members by score; :func:`members` reads the reply."""
    bounds = () if limit is None else ("LIMIT", 0, limit)
    return ask(client, "ZRANGEBYSCORE", key, low, high, "WITHSCORES", *bounds)


def members(reply: Sequence[Any]) -> list[Member]:
    """Pairs of member and score: nested in the RESP 3 protocol, flat in RESP 2 and in scripts."""
    if reply and not isinstance(reply[0], (bytes, str)):
        return [Member(text(key), float(score)) for key, score in reply]
    parts = iter(reply)
    return [Member(text(key), float(score)) for key, score in zip(parts, parts, strict=True)]


def first_member(reply: Sequence[Any]) -> Member | None:
    """The first of the members, ``None`` if there are none."""
    return next(iter(members(reply)), None)


def stored(reply: Any) -> Stored:
    """The fields of an entry; a key that holds something else than a hash holds no entry.

    Raises an error that does not concern this key alone.
    """
    if not isinstance(reply, Exception):
        definition, meta, set_aside, zones = map(optional_text, reply)
        # A user who may not run HDEL empties a field.
        return Stored(definition, meta, set_aside or None, zones=zones or None)
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return Stored()
    if isinstance(reply, NoPermissionError) and is_of_one_key(reply):
        return Stored(refusal=reply)
    raise reply


def read_hashes(client: Any, keys: Sequence[str]) -> list[Stored]:
    """The hashes of entries, in the order of ``keys``; one round trip, none for no keys."""
    return list(map(stored, ask_for_each(client, keys, get_fields, raises=False)))


def refusals(keys: Sequence[str], replies: Sequence[Any]) -> dict[str, ResponseError]:
    """The errors among replies that concern one key; raises another one."""
    refused = {}
    for key, reply in zip(keys, replies, strict=True):
        if isinstance(reply, ResponseError) and is_of_one_key(reply):
            refused[key] = naming_key(reply, key)
        elif isinstance(reply, Exception):
            raise reply
    return refused


def naming_key(exc: ResponseError, key: str) -> ResponseError:
    """The refusal of a key, with the key in its text: the server does not always name it."""
    reason = SCRIPT_PLACE.sub("", str(exc).rpartition("caused error: ")[2])
    return type(exc)(f"{reason.rstrip('.')} (the key is {one_line(key)})")
