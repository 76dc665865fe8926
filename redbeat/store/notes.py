"""What beats note beside the entries: static ones, their owners, reports, failures, losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celery.utils.log import get_logger
from redis.exceptions import NoPermissionError

from .access import Access, unit
from .changes import Changes
from .commands import (
    ask,
    ask_for_each,
    get_fields,
    members,
    optional_text,
    raw,
    text,
)
from .keys import OwnKeys
from .records import Member, Trace
from .retrying import is_of_one_key

logger = get_logger("celery.beat")


class Notes:
    """The notes of one schedule; costs are in round trips. All methods raise as redis-py does."""

    def __init__(self, access: Access, changes: Changes, keys: OwnKeys) -> None:
        self.access = access
        self._client, self._changes, self._keys = access.direct, changes, keys

    def _transaction(self) -> Any:
        """A pipeline that is a transaction, except in a cluster."""
        return self._client.pipeline(transaction=not self._changes.steps.topology.is_cluster)

    @unit
    def read_statics(self) -> set[str]:
        """The names that came from ``beat_schedule``; one round trip."""
        reply = ask(self._client, "SMEMBERS", self._keys.statics_key)
        return set(map(text, reply))

    @unit
    def write_statics(self, added: Iterable[str], removed: Iterable[str]) -> None:
        """Change the names that came from ``beat_schedule``; one round trip, none for no names."""
        with self._transaction() as pipe:
            if gone := list(map(raw, removed)):
                pipe.srem(self._keys.statics_key, *gone)
            if new := list(map(raw, added)):
                pipe.sadd(self._keys.statics_key, *new)
            pipe.execute()

    @unit
    def read_owners(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Which application has each entry in its ``beat_schedule``, ``None`` if it is not noted.

        Keys without an entry are left out. One round trip, none for no keys.
        """
        replies = ask_for_each(
            self._client,
            keys,
            lambda pipe, key: get_fields(pipe, key, ("definition", "owner")),
            raises=False,
        )
        # A key that holds something else than a hash is not an entry.
        return {
            key: optional_text(reply[1])
            for key, reply in zip(keys, replies, strict=False)
            if isinstance(reply, list) and reply[0] is not None
        }

    @unit
    def write_owner(self, keys: Sequence[str], owner: str) -> None:
        """Note which application has these entries, as far as they are there.

        A key that Redis refuses to write is left out, with a warning. One round trip, none for no
        keys.
        """
        _, refused = self._changes.make_sparing(
            keys, lambda steps, known: steps.own([key for key in keys if key not in known], owner)
        )
        for exc in refused.values():
            logger.warning(
                "beat: The owner of a static entry was not noted: %s.", str(exc).rstrip(".")
            )

    @unit
    def read_reports(self) -> dict[str, str]:
        """What beats report about their work, by the name of the beat; one round trip.

        Nothing, with a warning, for a user who may not run HGETALL.
        """
        try:
            reply = ask(self._client, "HGETALL", self._keys.reports_key)
        except NoPermissionError as exc:
            if is_of_one_key(exc):
                raise
            self.access.do_without("HGETALL", exc)
            return {}
        return {text(name): text(report) for name, report in reply.items()}

    @unit
    def write_report(self, name: str, report: str) -> None:
        """Store what the beat ``name`` reports; one round trip."""
        self._client.hset(self._keys.reports_key, name, report)

    @unit
    def forget_reports(self, names: Sequence[str]) -> None:
        """Remove the reports of these beats; one round trip, none for no names.

        Three for a user who may not run HDEL. One who may not run HGETALL either removes all
        reports: beats that are alive write theirs again within a minute.
        """
        if not names:
            return
        try:
            self._client.hdel(self._keys.reports_key, *names)
        except NoPermissionError as exc:
            if is_of_one_key(exc):
                raise
            reports = self.read_reports()
            kept = {name: report for name, report in reports.items() if name not in names}
            with self._transaction() as pipe:
                pipe.delete(self._keys.reports_key)
                if kept:
                    pipe.hset(self._keys.reports_key, mapping=kept)
                pipe.execute()

    @unit
    def read_failing(self, limit: int) -> list[Member]:
        """The entries whose last run failed, with the time of that, the oldest first.

        One round trip.
        """
        return members(
            ask(self._client, "ZRANGE", self._keys.failing_key, 0, limit - 1, "WITHSCORES")
        )

    @unit
    def note_failing(self, failed: Mapping[str, float], recovered: Iterable[str]) -> None:
        """Change which entries are noted as failing; one round trip, none for nothing."""
        with self._client.pipeline(transaction=False) as pipe:
            if failed:
                pipe.zadd(self._keys.failing_key, {raw(key): at for key, at in failed.items()})
            if well := list(map(raw, recovered)):
                pipe.zrem(self._keys.failing_key, *well)
            pipe.execute()

    @unit
    def read_zone(self) -> str | None:
        """The time zone of the last leader, if it is noted; one round trip."""
        if self._keys.zone_key is None:
            return None
        return optional_text(ask(self._client, "GET", self._keys.zone_key))

    @unit
    def write_zone(self, zone: str) -> None:
        """Note the time zone of the leader; one round trip."""
        if self._keys.zone_key is not None:
            self._client.set(self._keys.zone_key, zone)

    @unit
    def read_trace(self, limit: int) -> Trace:
        """What shows whether the schedule was lost, up to ``limit`` members too; one round trip."""
        keys = self._keys
        with self._client.pipeline(transaction=False) as pipe:
            ask(pipe, "ZRANGE", keys.schedule_key, 0, limit - 1)
            ask(pipe, "GET", keys.zone_key or keys.lost_key)
            ask(pipe, "GET", keys.lost_key)
            reply = pipe.execute()
        # A stand-in for a client, as applications' tests inject, has nothing to lose.
        first, zone, loss = reply if isinstance(reply, list) else ([], None, None)
        has_zone = keys.zone_key is not None and zone is not None
        return Trace(list(map(text, first)), has_zone, optional_text(loss))

    @unit
    def note_loss(self, note: str, seconds: int, known: str | None) -> bool:
        """Leave a note about a loss for so many seconds, unless there is one that is not ``known``.

        Returns whether it is there now. One round trip, two to replace a known one.
        """
        with self._client.pipeline(transaction=False) as pipe:
            pipe.set(self._keys.lost_key, note, nx=True, ex=seconds)
            ask(pipe, "GET", self._keys.lost_key)
            reply = pipe.execute()
        found = optional_text(reply[1]) if isinstance(reply, list) else note
        if found == note:
            return True
        if found != known:
            return False
        self._client.set(self._keys.lost_key, note, ex=seconds)
        return True

    @unit
    def read_loss(self) -> str | None:
        """The note about a loss, ``None`` if there is none; one round trip."""
        return optional_text(ask(self._client, "GET", self._keys.lost_key))
