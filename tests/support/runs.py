"""Hundreds of runs that become due together, and what became of them."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import count as count_from
from itertools import cycle
from typing import Any

import redis

from support.messages import QUEUE, read_messages
from support.targets import Slot, compare
from support.waiting import wait_until

PREFIX = "redbeat:"
SCHEDULE_KEY = f"{PREFIX}:schedule"
HOUR = 3600.0
DAY = 24 * HOUR

# How often in a row a number must be read alike before nothing more is thought to be on its way.
STILL = 5


def definition(name: str, every: float = DAY, **fields: Any) -> dict[str, Any]:
    """What is stored of an interval entry whose messages carry its name."""
    schedule = {"__type__": "interval", "every": every, "relative": False}
    common = {"name": name, "task": "proj.record", "args": [name], "kwargs": {}, "options": {}}
    return common | {"schedule": schedule, "enabled": True} | fields


def meta(last_run_at: datetime, runs: int = 0) -> dict[str, Any]:
    """What is stored of an entry that ran so many times, last at this time (UTC)."""
    parts = ("year", "month", "day", "hour", "minute", "second", "microsecond")
    written = {part: getattr(last_run_at, part) for part in parts}
    moment = {"__type__": "datetime", **written, "timezone": "UTC"}
    return {"last_run_at": moment} | ({"total_run_count": runs} if runs else {})


@dataclass(frozen=True)
class Strike:
    """How the runs stood when beat was struck.

    Attributes:
        unfinished: The entries that were due or leased.
        caught: Those of them that were in the window: their message was with the broker, or on its
            way, and the commit was still to come.
    """

    unfinished: frozenset[str] = frozenset()
    caught: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tally:
    """What became of the slots that were due.

    Attributes:
        slots: How many were due.
        unfinished: How many were not yet committed when beat was struck.
        lost: Slots without a message.
        doubled: A slot for each message too many, except for those that are excused.
        excused: A slot for each message too many of an entry that was caught between the broker's
            acceptance and the commit.
    """

    slots: int
    unfinished: int = 0
    lost: tuple[Slot, ...] = ()
    doubled: tuple[Slot, ...] = ()
    excused: tuple[Slot, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.slots} slots, {self.unfinished} unfinished, lost {_name_some(self.lost)}, "
            f"doubled {_name_some(self.doubled)}, in the window {_name_some(self.excused)}"
        )


def _name_some(slots: Sequence[Slot]) -> str:
    return f"{len(slots)} {list(map(str, slots[:5]))}"


#: The kinds of entries: intervals; calendars; calendars that were written without a history.
INTERVAL, CALENDAR, NEW_CALENDAR = "interval", "calendar", "calendar without meta"
KINDS = (INTERVAL, CALENDAR, NEW_CALENDAR)


def daily_at(slot: datetime) -> dict[str, Any]:
    """A crontab as it is stored, with one slot a day, at the minute of this one (UTC)."""
    fields = {"day_of_week": "*", "day_of_month": "*", "month_of_year": "*"}
    return {"__type__": "crontab", "minute": str(slot.minute), "hour": str(slot.hour), **fields}


class Runs:
    """Entries of one run a day, all of which can be made due at once.

    They are written as any other program writes them: plain commands, in one transaction. The
    definition names the slot, so that each message tells for which one it was sent.

    Args:
        schedule: A client of the schedule's server.
        broker: A client of the broker's server.
        count: How many entries there are.
        kinds: What kinds of entries there are, in turn.
        size: How many characters each of them carries to its task.
    """

    def __init__(
        self,
        schedule: redis.Redis,
        broker: redis.Redis,
        count: int,
        kinds: Sequence[str] = (INTERVAL,),
        size: int = 0,
    ) -> None:
        self.names = [f"entry-{number:03d}" for number in range(count)]
        self._kinds = dict(zip(self.names, cycle(kinds), strict=False))
        self._kwargs = {"padding": "x" * size} if size else {}
        self._schedule = schedule
        self._broker = broker
        self._slots: list[Slot] = []
        self._current: dict[str, Slot] = {}
        self._deleted: set[str] = set()
        self._numbers = count_from(1)
        self._counted_before: dict[str, int] = {}

    def store(self) -> None:
        """Write the definitions; no entry is due yet."""
        with self._schedule.pipeline() as pipeline:
            for name in self.names:
                self._define(pipeline, name)
            pipeline.execute()

    def _define(self, pipeline: Any, name: str, slot: str = "", **fields: Any) -> None:
        kwargs = self._kwargs | {"slot": slot}
        written = json.dumps(definition(name, kwargs=kwargs, **fields))
        pipeline.hset(f"{PREFIX}{name}", "definition", written)

    def clear(self) -> None:
        """Forget the messages and the slots that were due so far."""
        self._broker.delete(QUEUE)
        self._slots.clear()
        self._current.clear()

    def arm(self, names: list[str] | None = None, spread: float = 0) -> None:
        """Make a run of each of these entries due now, or of all; they must be settled.

        Their run counts stay, as they do when a program reschedules an entry.

        Args:
            names: The entries.
            spread: Seconds over which the interval entries become due, one after the other.
        """
        names = self.names if names is None else names
        if not names:
            return
        now = datetime.now(timezone.utc)
        past = now.replace(microsecond=0) - timedelta(seconds=1)
        step = timedelta(seconds=spread) / len(names)
        minute = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
        number = next(self._numbers)
        self._counted_before |= self._read_counts(names)
        scores: dict[str, float] = {}
        with self._schedule.pipeline() as pipeline:
            for place, name in enumerate(names):
                key, kind = f"{PREFIX}{name}", self._kinds[name]
                due = past + place * step if kind == INTERVAL else minute
                rule = {} if kind == INTERVAL else {"schedule": daily_at(due)}
                slot = Slot(name, f"{due:%H:%M:%S}, armed as no. {number}")
                self._define(pipeline, name, slot.due, **rule)
                if kind == NEW_CALENDAR:
                    pipeline.hdel(key, "meta")
                    self._counted_before[name] = 0
                else:
                    ran = now - timedelta(days=2)
                    pipeline.hset(key, "meta", json.dumps(meta(ran, self._counted_before[name])))
                scores[key] = due.timestamp()
                self._current[name] = slot
            pipeline.zadd(SCHEDULE_KEY, scores)
            pipeline.execute()
        self._slots += [self._current[name] for name in names]
        self._deleted -= set(names)

    def cancel(self, name: str, deleted: bool = False) -> None:
        """Note that an entry was rescheduled or deleted: unless its run was sent, it must not be.

        Call it right after that has returned.
        """
        slot = self._current[name]
        if slot in self._slots and slot not in self.slots_sent():
            self._slots.remove(slot)
        if deleted:
            self._deleted.add(name)

    def wait_for_first_message(self, timeout: float = 30) -> None:
        """Return as soon as the broker's queue is not empty, which stays as it is."""
        wait_until(self._block_until_sent, timeout, "a first message")

    def _block_until_sent(self) -> bool:
        return bool(self._broker.blmove(QUEUE, QUEUE, 1, "LEFT", "LEFT"))

    def wait_for_messages(self, count: int) -> None:
        """Return as soon as so many messages wait in the queue, or all that are due.

        The server announces each of them: a loop that asks all the time would starve beat, and one
        that sleeps in between would miss the moment.
        """
        deadline = time.monotonic() + 30
        self._broker.config_set("notify-keyspace-events", "El")
        with self._broker.pubsub() as pushes:  # type: ignore[no-untyped-call]  # redis-py's own gap
            pushes.psubscribe("__keyevent@*__:lpush")
            while self.count_sent() < min(count, len(self._slots)):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"waited 30 s in vain for {count} messages")
                pushes.get_message(timeout=1)

    def sent(self) -> Counter[str]:
        """How many messages of each entry wait in the queue."""
        return Counter(message.args[0] for message in read_messages(self._broker))

    def slots_sent(self) -> list[Slot]:
        """The slots for which messages wait in the queue, of the entries that are armed here."""
        return [
            Slot(message.args[0], message.kwargs.get("slot", ""))
            for message in read_messages(self._broker)
            if message.args[0] in self._kinds
        ]

    def count_sent(self) -> int:
        """How many messages wait in the queue."""
        return self._broker.llen(QUEUE)

    def scores(self) -> dict[str, float]:
        """The score of each entry in the schedule."""
        members: Any = self._schedule.zrange(SCHEDULE_KEY, 0, -1, withscores=True)
        return {member.removeprefix(PREFIX): score for member, score in members}

    def settled(self) -> set[str]:
        """The entries whose next run lies hours ahead: neither due nor leased."""
        limit = time.time() + HOUR
        return {name for name, score in self.scores().items() if score > limit}

    def set_aside(self) -> set[str]:
        """The entries that beat has set aside, of those that it must not."""
        scores = self.scores()
        return {name for name in self.names if scores.get(name, 0) < 0}

    def unsettled(self) -> set[str]:
        """The entries that are due or leased."""
        return set(self.names) - self.settled() - self._deleted

    def wait_until_settled(self, timeout: float = 60) -> None:
        """Wait until no entry is due and none is leased."""
        wait_until(lambda: not self.unsettled(), timeout, "a schedule with nothing due or leased")

    def wait_for_stillness(self) -> None:
        """Wait until what a process sent before its end or its freeze has been worked off."""
        seen: list[tuple[int, dict[str, float]]] = []

        def is_still() -> bool:
            seen.append((self.count_sent(), self.scores()))
            return len(seen) > STILL and all(each == seen[-1] for each in seen[-STILL:])

        wait_until(is_still, 10, "an end of what was under way")

    def find_struck(self) -> Strike:
        """How the runs stand, once what was on its way has arrived."""
        self.wait_for_stillness()
        sent = set(self.slots_sent())
        unfinished = self.unsettled()
        caught = {name for name in unfinished if self._current.get(name) in sent}
        return Strike(frozenset(unfinished), frozenset(caught))

    def find_frozen(self) -> Strike:
        """How the runs stand: what is left of a batch that was being sent goes out at the thaw."""
        strike, scores = self.find_struck(), self.scores()
        leases = {scores[name] for name in strike.caught if name in scores}
        batch = {name for name in strike.unfinished if scores.get(name) in leases}
        return Strike(strike.unfinished, strike.caught | batch)

    def counted(self, name: str) -> int:
        """How many runs of an entry have been counted since it was last armed."""
        return self._read_counts([name])[name] - self._counted_before.get(name, 0)

    def _read_counts(self, names: list[str]) -> dict[str, int]:
        with self._schedule.pipeline() as pipeline:
            for name in names:
                pipeline.hget(f"{PREFIX}{name}", "meta")
            metas = [json.loads(text or "{}") for text in pipeline.execute()]
        counts = [int(each.get("total_run_count", 0)) for each in metas]
        return dict(zip(names, counts, strict=True))

    def tally(self, strike: Strike) -> Tally:
        """Compare the messages in the queue with the slots that were due since `clear`."""
        verdict = compare(self._slots, self.slots_sent())
        excused = tuple(slot for slot in verdict.doubled if slot.entry in strike.caught)
        return Tally(
            len(self._slots),
            len(strike.unfinished),
            verdict.lost,
            tuple(slot for slot in verdict.doubled if slot.entry not in strike.caught),
            excused,
        )
