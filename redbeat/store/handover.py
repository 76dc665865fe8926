"""Handing runs over: their messages and their next due times as one step on one server.

Promises. A *parcel* is one entry's run: what is to be written about it, and the commands that send
its messages. A script takes the entry off its lease and runs these commands, or does neither. So a
parcel cannot be sent twice, however often it is handed over, nor be lost in between; and whoever
lost the lease sends nothing.

The scripts run on a connection of the broker. That it leads to the server of the schedule needs no
other proof than the lease: on any other server no entry has it, and nothing is done.

How it can fail. A server may refuse scripts, or ``SELECT`` between two databases:
:exc:`RefusedError`. The user may not write one entry, a cluster may keep it elsewhere: that parcel
is :attr:`Fate.UNSUITED`, and takes two steps. One message may be refused: that parcel is
:attr:`Fate.REFUSED`, and its entry keeps its lease. A server that loses its last writes, as in a
failover, loses both or neither. If the answer is lost twice in a row, nobody knows which runs were
made: none of them is lost or repeated, but they are not announced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .commands import ask, raw
from .records import Outcome
from .retrying import error_code, is_of_one_key, is_of_user, is_outage
from .scripts import HAND_OVER, Call
from .topology import in_groups

#: A Redis command: its name and its arguments.
Command = Sequence[Any]

#: The commands of which a message consists, and whether their first argument is a key.
SENDING = {"LPUSH": True, "PEXPIRE": True, "PUBLISH": False}

#: The errors that concern where keys live, and their first words for other versions of redis-py.
MISPLACED = (AskError, ClusterCrossSlotError, MovedError)
MISPLACED_CODES = {"ASK", "CROSSSLOT", "MOVED"}


class Parcel(NamedTuple):
    """One entry's run: what to write if its score is still ``lease``, and what to send."""

    outcome: Outcome
    lease: float
    commands: Sequence[Command]

    @property
    def arguments(self) -> int:
        """How many arguments it has in a script."""
        return 8 + sum(3 + len(command) for command in self.commands)


class Fate(Enum):
    """What became of a parcel; only ``DONE`` did anything now."""

    #: The entry is no longer leased, or not on this server.
    NOT_OURS = 0
    DONE = 1
    #: An earlier try of the same, whose answer was lost, has done it.
    DONE_BEFORE = 2
    #: A message was refused.
    REFUSED = 3
    #: The entry may not be written from here.
    UNSUITED = 4


class Result(NamedTuple):
    """The fate of one parcel, and the error if it was refused or unsuited."""

    fate: Fate
    error: ResponseError | None = None


class RefusedError(Exception):
    """This server does not run the scripts that hand over."""


class Handover:
    """Hands parcels over on one connection of a broker.

    ``client`` is a plain client of it; ``databases`` are the numbers of the schedule's and of the
    broker's database.
    """

    def __init__(self, client: Any, schedule_key: str, databases: tuple[int, int]) -> None:
        self.client = client
        self._schedule_key = schedule_key
        self._databases = databases

    def run(self, parcels: Sequence[Parcel]) -> list[Result]:
        """Hand parcels over, and return what became of each.

        One round trip; one more where the server does not know the script yet, or refuses some of
        the entries. Raises :exc:`RefusedError`, and what redis-py raises if that happens twice.
        """
        groups = in_groups(parcels, arguments_of=lambda parcel: parcel.arguments)
        results: list[Result] = []
        for group, reply in zip(groups, self._run(groups), strict=True):
            if isinstance(reply, list):
                results += map(_result, reply)
                continue
            _require_refused_key(reply)
            # One key that is refused is enough to refuse the whole script.
            alone = [reply] if len(group) == 1 else self._run([[parcel] for parcel in group])
            results += [
                _result(each[0]) if isinstance(each, list) else _unsuited(each) for each in alone
            ]
        return results

    def _run(self, groups: Sequence[Sequence[Parcel]]) -> list[Any]:
        """The replies to each group, of which errors are one."""
        calls = [self._call(group) for group in groups]
        replies = _again(lambda: self._ask("EVALSHA", HAND_OVER.digest, calls))
        unknown = [
            position for position, reply in enumerate(replies) if isinstance(reply, NoScriptError)
        ]
        if unknown:
            again = [calls[position] for position in unknown]
            known = _again(lambda: self._ask("EVAL", HAND_OVER.text, again))
            for position, reply in zip(unknown, known, strict=True):
                replies[position] = reply
        return replies

    def _ask(self, command: str, script: str, calls: Sequence[Call]) -> list[Any]:
        with self.client.pipeline(transaction=False) as pipe:
            for call in calls:
                ask(pipe, command, script, *call.operands)
            return list(pipe.execute(raise_on_error=False))

    def _call(self, parcels: Sequence[Parcel]) -> Call:
        keys: list[Any] = [self._schedule_key, *(raw(parcel.outcome.key) for parcel in parcels)]
        places: dict[Any, int] = {}
        arguments: list[Any] = [len(parcels), *self._databases]
        for outcome, lease, commands in parcels:
            score = "" if outcome.score is None else repr(outcome.score)
            arguments += (repr(lease), score, outcome.meta, raw(outcome.seen_meta))
            arguments += (outcome.reason, int(outcome.changes_hash), len(commands))
            for name, *others in commands:
                place = 0
                if SENDING[name]:
                    key = others.pop(0)
                    place = places.setdefault(key, len(keys) + 1)
                    if place > len(keys):
                        keys.append(key)
                arguments += (name, place, len(others), *others)
        return Call(HAND_OVER, keys, arguments)


def _again(step: Callable[[], list[Any]]) -> list[Any]:
    """The result of a step, which is taken once more if its answer is lost: that repeats nothing.

    A connection that has been idle may be found closed.
    """
    try:
        return step()
    except (RedisConnectionError, RedisTimeoutError):
        return step()


def _result(reply: Any) -> Result:
    if isinstance(reply, int):
        return Result(Fate(reply))
    step, error = reply
    is_unsuited = step == b"write" and is_of_user(error)
    return Result(Fate.UNSUITED if is_unsuited else Fate.REFUSED, error)


def _unsuited(error: ResponseError) -> Result:
    _require_refused_key(error)
    return Result(Fate.UNSUITED, error)


def _require_refused_key(error: ResponseError) -> None:
    """Return if a script was refused for one of its keys; else raise."""
    is_misplaced = isinstance(error, MISPLACED) or error_code(error) in MISPLACED_CODES
    if is_misplaced or is_of_one_key(error):
        return
    if is_outage(error) or isinstance(error, OutOfMemoryError) or error_code(error) == "MISCONF":
        raise error
    raise RefusedError(str(error).removeprefix("NOSELECT ")) from error
