"""The Lua scripts: what must be atomic, how a call is made, and how it is run on a client.

Each file in ``lua/`` states its keys, its arguments and its result. A :class:`Call` is a script
with keys and arguments; functions here make the calls whose arguments need encoding. :func:`run`
runs calls on any client: each by the digest of its script, and with the whole script if the server
does not know that.

A script that changes entries also publishes the change. It replies with a pair: its result, and why
publishing was refused, ``""`` if it was not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, NamedTuple

from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from .commands import ask, first_member, members, raw, text
from .keys import OTHER_LEASE
from .records import FIELDS, Claimed, Draft, Outcome, Seen, Wanted
from .retrying import SAYS, said
from .topology import Topology

#: The errors with which a server refuses a script, as redis-py raises them.
REFUSALS = (ResponseError, NoPermissionError, OutOfMemoryError, ReadOnlyError)

#: How many keys of a refused script an error names.
NAMED_KEYS = 3


class Script(NamedTuple):
    """A Lua script, the SHA-1 digest by which a server knows it, its file, and what it does."""

    text: str
    digest: str
    name: str
    step: str


class Call(NamedTuple):
    """A script with its keys and arguments."""

    script: Script
    keys: Sequence[str | bytes]
    arguments: Sequence[Any] = ()

    @property
    def operands(self) -> tuple[Any, ...]:
        """What follows the script in the command."""
        return (len(self.keys), *self.keys, *self.arguments)


def load_script(name: str, step: str, *functions: str) -> Script:
    """Read ``redbeat/store/lua/<name>.lua``, behind the files of functions that it begins with."""
    folder = resources.files("redbeat.store").joinpath("lua")
    text = "".join(folder.joinpath(f"{each}.lua").read_text() for each in (*functions, name))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), name, step)


CHECK = load_script("check", "check which entries may be written")
CLAIM = load_script("claim", "claim the due entries")
ADVANCE = load_script("advance", "write the next due times")
RECORD = load_script("record", "record runs", "runs")
HAND_OVER = load_script("hand_over", "hand runs over", "runs")
SAVE = load_script("save", "store entries")
DELETE = load_script("delete", "remove entries")
DISCARD = load_script("discard", "remove entries")
OWN = load_script("own", "note who owns entries")
RESCHEDULE = load_script("reschedule", "store a run")
EXTEND_TO = load_script("extend_to", "renew the lock")
RELEASE = load_script("release", "release the lock")
TAKE_OVER = load_script("take_over", "take over the lock")


def claim(schedule_key: str, wanted: Wanted) -> Call:
    """Lease due entries; :func:`claimed` reads the reply."""
    now, lease, limit, horizon, most_bytes, from_end = wanted
    bounds = (most_bytes, int(from_end), repr(lease + OTHER_LEASE))
    return Call(CLAIM, [schedule_key], (repr(now), repr(lease), limit, repr(horizon), *bounds))


def claimed(reply: Any) -> Claimed:
    """What a claim found."""
    due, later, set_aside, is_bounded, more = reply
    return Claimed(
        members(due),
        first_member(later),
        bool(set_aside),
        is_bounded=bool(is_bounded),
        leaves_more=bool(more),
    )


def advance(schedule_key: str, score: float, outcomes: Sequence[Outcome]) -> Call:
    """Give members that still have this score their next one."""
    pairs = [
        part
        for outcome in outcomes
        for part in (raw(outcome.key), "" if outcome.score is None else repr(outcome.score))
    ]
    return Call(ADVANCE, [schedule_key], [repr(score), *pairs])


def record(outcomes: Sequence[Outcome]) -> Call:
    """Write the runs of entries into their hashes."""
    arguments = [
        part
        for outcome in outcomes
        for part in (outcome.meta, raw(outcome.seen_meta), outcome.reason)
    ]
    return Call(RECORD, [raw(outcome.key) for outcome in outcomes], arguments)


def save(drafts: Sequence[Draft], schedule_key: str | None, channel: str) -> Call:
    """Store entries; ``schedule_key`` is ``None`` where the schedule lives in another slot."""
    arguments = [
        part
        for draft in drafts
        for part in (
            draft.definition,
            raw(draft.seen_meta),
            draft.meta,
            repr(draft.score),
            int(draft.replaces_meta),
            int(draft.seen_definition is not None),
            raw(draft.seen_definition or ""),
            draft.zones,
        )
    ]
    return _change(SAVE, [draft.key for draft in drafts], schedule_key, channel, arguments)


def delete(keys: Sequence[str], schedule_key: str | None, channel: str) -> Call:
    """Remove entries; ``schedule_key`` as for :func:`save`."""
    return _change(DELETE, keys, schedule_key, channel)


def discard(seen: Sequence[Seen], schedule_key: str | None, channel: str) -> Call:
    """Remove entries that did not change since; ``schedule_key`` as for :func:`save`."""
    arguments = [raw(getattr(each.stored, field) or "") for each in seen for field in FIELDS]
    return _change(DISCARD, [each.key for each in seen], schedule_key, channel, arguments)


def _change(
    script: Script,
    keys: Sequence[str],
    schedule_key: str | None,
    channel: str,
    arguments: Sequence[Any] = (),
) -> Call:
    schedule = [] if schedule_key is None else [schedule_key]
    return Call(script, [*map(raw, keys), *schedule], [channel, len(keys), *arguments])


def run(client: Any, calls: Sequence[Call], topology: Topology, as_one: bool = False) -> list[Any]:
    """Run calls in one round trip, or in one each in a cluster and to load what is not known.

    Several calls are one transaction, where there are transactions; but a server goes on after a
    call of a script that it does not know. To exclude that, ``as_one`` sends the scripts along.
    """
    if len(calls) > 1 and not topology.is_cluster:
        try:
            return _run_in_pipeline(client, calls, topology.has_transactions, as_one)
        except NoScriptError:
            pass
    replies = []
    for call in calls:
        with _named_in_errors(call):
            try:
                reply = ask(client, "EVALSHA", call.script.digest, *call.operands)
            except NoScriptError:
                reply = ask(client, "EVAL", call.script.text, *call.operands)
        replies.append(reply)
    return replies


def _run_in_pipeline(
    client: Any, calls: Sequence[Call], in_transaction: bool, as_one: bool
) -> list[Any]:
    """The replies; redis-py decodes those of its own transactions, so this one is written out."""
    with _named_in_errors(*calls), client.pipeline(transaction=False) as pipe:
        if in_transaction:
            pipe.execute_command("MULTI")
        for call in calls:
            if in_transaction and as_one:
                ask(pipe, "EVAL", call.script.text, *call.operands)
            else:
                ask(pipe, "EVALSHA", call.script.digest, *call.operands)
        if in_transaction:
            ask(pipe, "EXEC")
        replies = list(pipe.execute())
        if in_transaction:
            # A stand-in for a client, as applications' tests inject, replies nothing.
            replies = replies[-1] if replies else []
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies


@contextmanager
def _named_in_errors(*calls: Call) -> Iterator[None]:
    """Say in an error which scripts on which keys were refused: a server names a digest."""
    try:
        yield
    except ResponseError as exc:
        # Other errors need more than a text, or concern something else than these scripts.
        if type(exc) not in REFUSALS:
            raise
        reason = said(exc)
        for call in calls:
            command = _refused_line(call.script, reason)
            reason = f"{reason.replace(call.script.digest, call.script.name)}{command}"
        steps: dict[str, list[str | bytes]] = {}
        for call in calls:
            steps.setdefault(call.script.step, []).extend(call.keys)
        named = " and ".join(f"{step} ({_first_of(keys)})" for step, keys in steps.items())
        raise type(exc)(f"Redis refused to {named}{SAYS}{reason}") from exc


def _refused_line(script: Script, reason: str) -> str:
    """The commands on the line of a script that the server names; empty if it names none."""
    found = re.search(rf"{script.digest}, on @user_script:(\d+)", reason)
    lines = script.text.split("\n")
    if found is None or int(found[1]) > len(lines):
        return ""
    commands = re.findall(r"redis\.p?call\(['\"](\w+)", lines[int(found[1]) - 1])
    return f" ({', '.join(commands)})" if commands else ""


def _first_of(keys: Sequence[str | bytes]) -> str:
    more = len(keys) - NAMED_KEYS
    return ", ".join(map(text, keys[:NAMED_KEYS])) + (f" and {more} more" if more > 0 else "")


def refuses_scripts(exc: ResponseError) -> bool:
    """Whether a server, or the ACL of this user, does not allow scripts at all."""
    reason = str(exc).lower()
    is_refusal = isinstance(exc, NoPermissionError) or "unknown command" in reason
    # In quotes, it is not the command that redis-py puts before an error in a pipeline.
    return is_refusal and re.search(r"['`]eval(sha)?['`|]", reason) is not None
