"""`Entry` replaced."""

import json
from typing import Any

from celery.schedules import schedstate

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedulers import RedBeatJSONEncoder, get_redis

from .witness import is_held_back, note


class OwnedEntry(RedBeatSchedulerEntry):
    """Says whose it is: a field of the definition, which it reads and writes itself."""

    def __init__(
        self,
        name: Any = None,
        task: Any = None,
        schedule: Any = None,
        args: Any = None,
        kwargs: Any = None,
        enabled: bool = True,
        options: Any = None,
        team: str = "nobody",
        **clsargs: Any,
    ) -> None:
        super().__init__(name, task, schedule, args, kwargs, enabled, options, **clsargs)
        self.team = team

    def save(self) -> "OwnedEntry":
        note("save", self.name)
        definition = {
            "name": self.name,
            "task": self.task,
            "args": self.args,
            "kwargs": self.kwargs,
            "options": self.options,
            "schedule": self.schedule,
            "enabled": self.enabled,
            "team": self.team,
        }
        meta = {"last_run_at": self.last_run_at}
        with get_redis(self.app).pipeline() as pipe:
            pipe.hset(self.key, "definition", json.dumps(definition, cls=RedBeatJSONEncoder))
            pipe.hsetnx(self.key, "meta", json.dumps(meta, cls=RedBeatJSONEncoder))
            pipe.zadd(self.app.redbeat_conf.schedule_key, {self.key: self.score})
            pipe.execute()
        return self

    def delete(self) -> None:
        note("delete", self.name)
        with get_redis(self.app).pipeline() as pipe:
            pipe.zrem(self.app.redbeat_conf.schedule_key, self.key)
            pipe.delete(self.key)
            pipe.execute()


class OwnEntry(RedBeatScheduler):
    """Sends entries that know their team."""

    Entry = OwnedEntry

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        note("sent", entry.name)
        entry.options = dict(entry.options or {}, headers={"team": entry.team})
        return super().apply_async(entry, *args, **kwargs)


class ClassmethodEntry(RedBeatSchedulerEntry):
    """Gives each run a header that is not stored; built field by field."""

    @classmethod
    def from_key(cls, key: str, app: Any = None) -> Any:
        definition = cls.load_definition(key, app)
        meta = cls.load_meta(key, app)
        entry = cls(app=app, **definition, **meta)
        entry.options = dict(entry.options or {}, headers={"tenant": "blue"})
        return entry


class OwnFromKey(RedBeatScheduler):
    """Loads entries by a class method."""

    Entry = ClassmethodEntry


class StaticEntry(RedBeatSchedulerEntry):
    """Gives each run a header that is not stored; built by the original."""

    @staticmethod
    def from_key(key: str, app: Any = None) -> Any:
        entry = RedBeatSchedulerEntry.from_key(key, app=app)
        entry.options = dict(entry.options or {}, headers={"tenant": "blue"})
        return entry


class OwnStaticFromKey(RedBeatScheduler):
    """Loads entries by a static method."""

    Entry = StaticEntry


class GatedEntry(RedBeatSchedulerEntry):
    """Is not due before a gate has been opened."""

    def is_due(self) -> Any:
        if is_held_back(self):
            note("held-back", self.name)
            return schedstate(False, 0.5)
        return super().is_due()


class OwnIsDue(RedBeatScheduler):
    """Asks entries that decide for themselves."""

    Entry = GatedEntry
