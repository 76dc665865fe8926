"""Hundreds of runs that become due together, and what became of them."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import cycle
from typing import Any

import redis

from support.messages import QUEUE, read_messages
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
    """What became of runs that were due.

    Attributes:
        runs: How many were due.
        unfinished: How many were not yet committed when beat was struck.
        lost: Entries with fewer messages than runs.
        doubled: Entries with more messages than runs, none of which was caught in the window.
        excused: Entries with more messages than runs that were caught between the broker's
            acceptance and the commit.
    """

    runs: int
    unfinished: int = 0
    lost: frozenset[str] = frozenset()
    doubled: frozenset[str] = frozenset()
    excused: frozenset[str] = frozenset()

    def __str__(self) -> str:
        def name_some(names: frozenset[str]) -> str:
            return f"{len(names)} {sorted(names)[:5]}"

        return (
            f"{self.runs} runs, {self.unfinished} unfinished, lost {name_some(self.lost)}, "
            f"doubled {name_some(self.doubled)}, in the window {name_some(self.excused)}"
        )


#: The kinds of entries: intervals; calendars; calendars that were written without a history.
INTERVAL, CALENDAR, NEW_CALENDAR = "interval", "calendar", "calendar without meta"
KINDS = (INTERVAL, CALENDAR, NEW_CALENDAR)


def daily_at(slot: datetime) -> dict[str, Any]:
    """A crontab as it is stored, with one slot a day, at the minute of this one (UTC)."""
    fields = {"day_of_week": "*", "day_of_month": "*", "month_of_year": "*"}
    return {"__type__": "crontab", "minute": str(slot.minute), "hour": str(slot.hour), **fields}


class Runs:
    """Entries of one run a day, all of which can be made due at once.

    They are written as any other program writes them: plain commands, in one transaction.

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
        self._armed = dict.fromkeys(self.names, 0)
        self._counted_before: dict[str, int] = {}

    def store(self) -> None:
        """Write the definitions; no entry is due yet."""
        with self._schedule.pipeline() as pipeline:
            for name in self.names:
                self._define(pipeline, name)
            pipeline.execute()

    def _define(self, pipeline: Any, name: str, **fields: Any) -> None:
        written = json.dumps(definition(name, kwargs=self._kwargs, **fields))
        pipeline.hset(f"{PREFIX}{name}", "definition", written)

    def clear(self) -> None:
        """Forget the messages and the runs that were due so far."""
        self._broker.delete(QUEUE)
        self._armed = dict.fromkeys(self.names, 0)

    def arm(self, names: list[str] | None = None) -> None:
        """Make a run of each of these entries due now, or of all; they must be settled.

        Their run counts stay, as they do when a program reschedules an entry.
        """
        names = self.names if names is None else names
        if not names:
            return
        now = datetime.now(timezone.utc)
        slot = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
        self._counted_before |= self._read_counts(names)
        scores: dict[str, float] = {}
        with self._schedule.pipeline() as pipeline:
            for name in names:
                key, kind = f"{PREFIX}{name}", self._kinds[name]
                if kind == INTERVAL:
                    scores[key] = int(now.timestamp()) - 1
                else:
                    scores[key] = slot.timestamp()
                    self._define(pipeline, name, schedule=daily_at(slot))
                if kind == NEW_CALENDAR:
                    pipeline.hdel(key, "meta")
                    self._counted_before[name] = 0
                else:
                    ran = now - timedelta(days=2)
                    pipeline.hset(key, "meta", json.dumps(meta(ran, self._counted_before[name])))
            pipeline.zadd(SCHEDULE_KEY, scores)
            pipeline.execute()
        for name in names:
            self._armed[name] += 1

    def wait_for_first_message(self, timeout: float = 30) -> None:
        """Return as soon as the broker's queue is not empty, which stays as it is."""
        wait_until(self._block_until_sent, timeout, "a first message")

    def _block_until_sent(self) -> bool:
        return bool(self._broker.blmove(QUEUE, QUEUE, 1, "LEFT", "LEFT"))

    def sent(self) -> Counter[str]:
        """How many messages of each entry wait in the queue."""
        return Counter(message.args[0] for message in read_messages(self._broker))

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
        return set(self.names) - self.settled()

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
        sent = self.sent()
        unfinished = self.unsettled()
        caught = {name for name in unfinished if sent[name] == self._armed[name]}
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
        """Compare the messages in the queue with the runs that were due since `clear`."""
        sent = self.sent()
        lost = {name for name in self.names if sent[name] < self._armed[name]}
        doubled = {name for name in self.names if sent[name] > self._armed[name]}
        return Tally(
            sum(self._armed.values()),
            len(strike.unfinished),
            frozenset(lost),
            frozenset(doubled - strike.caught),
            frozenset(doubled & strike.caught),
        )
