"""JSON classes of an application's own, put into `redbeat.schedulers` in place of ours."""

import io
import json
from datetime import date
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry, Timetable, decoder, schedulers
from redbeat.tools import backup
from support.sent import Sent

TICKET = {"__type__": "ticket", "number": 7}


class Ticket:
    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticket) and other.number == self.number

    __hash__ = None  # type: ignore[assignment]


class Encoder(decoder.RedBeatJSONEncoder):
    """As 2.x applications write it."""

    def default(self, o: Any) -> Any:
        if isinstance(o, Ticket):
            return {"__type__": "ticket", "number": o.number}
        return super().default(o)


class Decoder(decoder.RedBeatJSONDecoder):
    """As 2.x applications write it."""

    def dict_to_object(self, fields: dict[str, Any]) -> Any:
        if fields.get("__type__") == "ticket":
            return Ticket(fields["number"])
        return super().dict_to_object(fields)


class PlainEncoder(json.JSONEncoder):
    """One that is no subclass of ours."""

    def default(self, o: Any) -> Any:
        if isinstance(o, Ticket):
            return {**TICKET, "number": o.number}
        return decoder.RedBeatJSONEncoder().default(o)


class PlainDecoder(json.JSONDecoder):
    """One that is no subclass of ours."""

    def __init__(self, **options: Any) -> None:
        super().__init__(object_hook=self.read, **options)

    def read(self, fields: dict[str, Any]) -> Any:
        if fields.get("__type__") == "ticket":
            return Ticket(fields["number"])
        return decoder.RedBeatJSONDecoder().dict_to_object(fields)


@pytest.fixture(params=[(Encoder, Decoder), (PlainEncoder, PlainDecoder)], ids=["ours", "plain"])
def _own_classes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, reader = request.param
    monkeypatch.setattr(schedulers, "RedBeatJSONEncoder", encoder)
    monkeypatch.setattr(schedulers, "RedBeatJSONDecoder", reader)


def make(app: Celery, **fields: Any) -> RedBeatSchedulerEntry:
    return RedBeatSchedulerEntry("one", "tasks.one", schedule(60), app=app, **fields)


@pytest.mark.usefixtures("_own_classes")
def test_entries_are_written_and_read_by_the_classes_that_stand_there(
    client_app: Celery, client: redis.Redis
) -> None:
    make(client_app, args=[Ticket(7)]).save()
    assert json.loads(str(client.hget("redbeat:one", "definition")))["args"] == [TICKET]
    assert RedBeatSchedulerEntry.from_key("redbeat:one", app=client_app).args == [Ticket(7)]
    timetable = Timetable(client_app)
    timetable.edit(["one"], lambda entry: setattr(entry, "kwargs", {"x": Ticket(8)}))
    assert timetable["one"].kwargs == {"x": Ticket(8)}


@pytest.mark.usefixtures("_own_classes")
def test_a_backup_is_written_and_read_by_the_classes_that_stand_there(client_app: Celery) -> None:
    make(client_app, args=[Ticket(7)]).save()
    timetable = Timetable(client_app)
    text = "".join(backup.dump(timetable.items()))
    assert json.loads(text)["args"] == [TICKET]
    timetable.clear()
    timetable.replace(backup.plan_import(io.StringIO(text), timetable).written)
    assert timetable["one"].args == [Ticket(7)]


@pytest.mark.usefixtures("_own_classes")
def test_static_entries_are_stored_and_sent_by_the_classes_that_stand_there(
    client_app: Celery, sent: Sent
) -> None:
    client_app.conf.redbeat_lock_key = None
    client_app.conf.beat_schedule = {
        "one": {"task": "tasks.one", "schedule": crontab(), "args": [Ticket(7)]}
    }
    scheduler = RedBeatScheduler(client_app)
    entry = RedBeatSchedulerEntry.from_key("redbeat:one", app=client_app)
    entry.reschedule(entry.now().replace(year=2020))
    scheduler.tick()
    assert [args for args, _ in sent.arguments] == [[Ticket(7)]]


def test_the_classes_are_looked_up_at_each_use(
    client_app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be replaced after entries were stored, and put back."""
    with monkeypatch.context() as patch:
        patch.setattr(schedulers, "RedBeatJSONEncoder", Encoder)
        make(client_app, args=[Ticket(7)]).save()
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(schedulers, "RedBeatJSONDecoder", Decoder)
            assert RedBeatSchedulerEntry.from_key("redbeat:one", app=client_app).args == [Ticket(7)]
    assert RedBeatSchedulerEntry.from_key("redbeat:one", app=client_app).args == [TICKET]
    with pytest.raises(TypeError, match="Ticket"):
        make(client_app, args=[Ticket(7)]).save()


def test_a_method_that_is_patched_on_our_decoder_counts_too(
    client_app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(client_app, args=[TICKET]).save()
    ours = decoder.RedBeatJSONDecoder.dict_to_object

    def patched(self: Any, fields: dict[str, Any]) -> Any:
        return date(2026, 1, 1) if fields.get("__type__") == "ticket" else ours(self, fields)

    monkeypatch.setattr(decoder.RedBeatJSONDecoder, "dict_to_object", patched)
    entry = RedBeatSchedulerEntry.from_key("redbeat:one", app=client_app)
    assert entry.args == [date(2026, 1, 1)]
