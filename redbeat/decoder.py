"""JSON for entries: every type of the wire format as one row of a table.

An object of a type in the table is written as a JSON object whose ``__type__`` is its tag. Reading
leaves an object with no tag, or with an unknown one, as the dict that it was.

The text is that of celery-redbeat 2.x for all that 2.x can express, byte for byte. More is written
only where there is more to say, in places that 2.x ignores: ``fold`` of a datetime, ``n`` of a
weekday, ``tz`` of a relative interval. In an rrule, 2.x refuses names that it does not know, and
takes only offsets for zones. But it does not look at ``until_tz`` where there is no ``until``: so
that holds the name of the zone of ``dtstart``. A rule with ``until`` names its zones in
``dtstart_zone`` and ``until_zone``, which 2.x cannot read: ``without_zones`` makes the rule that a
definition holds; ``zones_of`` gives what is stored beside it, for ``with_zones`` to put back. Types
that 2.x cannot store at all have tags of ours.

Arguments and options are the users' own, and may hold a dict that looks like one of these objects.
``as_data`` puts an ``=`` before its tag, which reading takes away again; 2.x reads it as a dict.

Reading raises ``ValueError`` whatever the text is, in time proportional to its length.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from celery.beat import BeatLazyFunc
from celery.canvas import Signature
from celery.schedules import BaseSchedule, solar
from celery.schedules import crontab as celery_crontab
from celery.schedules import schedule as interval
from celery.utils.log import get_logger
from dateutil.rrule import weekday

from .schedules import as_ours, crontab, once, rrule, rruleset
from .timing.binding import own_zone
from .timing.instants import EPOCH, MINUTE, NOTHING, SECOND, as_utc
from .timing.parameters import RULE_PARAMETERS, shown
from .timing.zones import has_one_offset, named_zone, zone_name

__all__ = (
    "RedBeatJSONDecoder",
    "RedBeatJSONEncoder",
    "from_timestamp",
    "get_utcoffset_minutes",
    "register_codec",
    "to_timestamp",
)

logger = get_logger("celery.beat")

Fields = dict[str, Any]

#: The longest field of a crontab in characters: all 60 minutes take 170.
LONGEST_FIELD = 1_000


class Codec(NamedTuple):
    """How one type is written: its tag, and the fields beside the tag in both directions."""

    tag: str
    type: type
    encode: Callable[[Any], Fields]
    decode: Callable[[Fields], Any]


def register_codec(
    tag: str,
    type: type,
    encode: Callable[[Any], Mapping[str, Any]],
    decode: Callable[[Fields], Any],
) -> None:
    """Store objects of a type of your own, such as a ``BaseSchedule``, as JSON.

    Args:
        tag: the ``__type__`` of the JSON object; unique, so best with a prefix of yours.
        type: the type, and its subclasses that have no codec of their own.
        encode: gives the object's fields, made of anything that can itself be stored.
        decode: makes the object again from these fields. Whatever it raises, the reader of a
            stored entry sees a ``ValueError``.

    Call it in every process that reads the schedule. Registering a type again replaces its codec.

    Raises:
        ValueError: the tag is not a text, or belongs to another type.
    """
    if not isinstance(tag, str) or not tag:
        raise ValueError(f"the tag of a codec must be a non-empty string, got {tag!r}")
    if tag in _BY_TAG and _BY_TAG[tag].type is not type:
        raise ValueError(f"the tag {tag!r} belongs to {_BY_TAG[tag].type.__qualname__}")
    _add(Codec(tag, type, lambda value: dict(encode(value)), decode))


class RedBeatJSONEncoder(json.JSONEncoder):
    """Writes what entries hold: ``json.dumps(value, cls=RedBeatJSONEncoder)``.

    Raises:
        TypeError: a value of a type that cannot be stored; the message says where it is.
        ValueError: a value that cannot be stored, such as an interval of zero.
    """

    def encode(self, o: Any) -> str:
        """The JSON text of ``o``."""
        try:
            return super().encode(_with_signatures_tagged(o))
        except RecursionError:
            raise ValueError("nested too deeply to be stored") from None
        except TypeError as error:

            def cannot_be_stored(part: Any) -> bool:
                is_plain = isinstance(part, (str, int, float, bool, dict, list, tuple))
                return not (is_plain or part is None) and _codec_for(type(as_ours(part))) is None

            raise _placed(error, o, cannot_be_stored) from error

    def default(self, o: Any) -> Fields:
        """The tagged fields of an object that JSON does not know."""
        o = as_ours(o)
        codec = _codec_for(type(o))
        if codec is None:
            name = type(o).__qualname__
            raise TypeError(
                f"a schedule of type {name} has no codec; add one by redbeat.decoder.register_codec"
                if isinstance(o, BaseSchedule)
                else f"a value of type {name} cannot be stored as JSON"
            )
        try:
            return {"__type__": codec.tag, **codec.encode(o)}
        except OverflowError as error:
            raise ValueError(f"{shown(o)} is out of range: {error}") from error


class RedBeatJSONDecoder(json.JSONDecoder):
    """Reads what entries hold: ``json.loads(text, cls=RedBeatJSONDecoder)``.

    Raises:
        ValueError: the text is not JSON, or describes something that cannot be; the message says
            what.
    """

    def __init__(self, **kwargs: Any) -> None:
        is_overridden = type(self).dict_to_object is not _DICT_TO_OBJECT
        hook = (
            {"object_hook": self.dict_to_object}
            if is_overridden
            else {"object_pairs_hook": _object_from_pairs}
        )
        super().__init__(**{**hook, **kwargs})

    def dict_to_object(self, fields: Fields) -> Any:
        """What a JSON object describes; the dict itself if its ``__type__`` is not known.

        Subclasses override it to read types of their own, as with 2.x. ``register_codec`` does
        more.
        """
        return _object_from_pairs(list(fields.items()))

    def decode(self, s: str, *args: Any) -> Any:
        """The object that the JSON text describes."""
        try:
            return super().decode(s, *args)
        except RecursionError:
            raise ValueError("nested too deeply to be read") from None


#: The original: somebody may patch it on the class.
_DICT_TO_OBJECT = RedBeatJSONDecoder.dict_to_object


def to_timestamp(moment: datetime) -> int:
    """Whole seconds since the epoch, rounded down; naive means UTC."""
    return (as_utc(moment) - EPOCH) // SECOND


def from_timestamp(seconds: float, tz_minutes: float = 0) -> datetime:
    """The aware datetime ``seconds`` after the epoch, at an offset of ``tz_minutes`` from UTC.

    Raises:
        ValueError: there is no such time or offset.
    """
    return _instant("timestamp", seconds).astimezone(_offset("tz_minutes", tz_minutes, MINUTE))


def get_utcoffset_minutes(moment: datetime) -> float:
    """The offset of ``moment`` from UTC in minutes; 0 if it is naive."""
    offset = moment.utcoffset()
    return offset.total_seconds() / 60 if offset else 0


# From and to JSON objects


def _object_from_pairs(pairs: list[tuple[str, Any]]) -> Any:
    fields = dict(pairs)
    tag: Any = fields.get("__type__")
    codec = _BY_TAG.get(tag) if isinstance(tag, str) else None
    if codec is None:
        is_escaped = _is_taken(tag) and tag.startswith(ESCAPE)
        return {**fields, "__type__": tag[1:]} if is_escaped else fields
    if len(fields) != len(pairs):
        # Of a `dtstart_tz` or `until_tz` that is given twice, the one that is a name counts.
        fields.update(
            (name, value)
            for name, value in pairs
            if name.endswith("_tz") and isinstance(value, str)
        )
    del fields["__type__"]
    try:
        return codec.decode(fields)
    except Exception as error:
        raise ValueError(f"{shown(fields)} is not a valid {codec.tag}: {error}") from error


def _placed(error: Exception, value: Any, is_at_fault: Callable[[Any], bool]) -> Exception:
    """The error with the path to the first part of ``value`` that is at fault."""
    paths = (path for path, part in _walk(value) if is_at_fault(part))
    path = next(paths, "").lstrip(".")
    # Not the class of the error itself, which a codec may raise with a constructor of its own.
    kind = next(each for each in (TypeError, ValueError, Exception) if isinstance(error, each))
    return kind(f"{path}: {error}" if path else str(error))


def _walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            name = f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"
            yield from _walk(item, path + name)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _walk(item, f"{path}[{number}]")


def _with_signatures_tagged(value: Any) -> Any:
    """``value`` with every Celery signature, which JSON takes for a dict, as a tagged dict."""
    if not isinstance(value, (dict, list, tuple)) or not value:
        return value
    if isinstance(value, Signature):
        value = {"__type__": "signature", **value}
    if isinstance(value, dict):
        return {key: _with_signatures_tagged(item) for key, item in value.items()}
    return [_with_signatures_tagged(item) for item in value]


# Arguments and options

#: Stands before the tag of a dict that only looks like an object of ours.
ESCAPE = "="

#: The most levels of lists and dicts in the arguments of an entry: whoever reads them may already
#: have used up a part of Python's recursion limit.
DEEPEST = 200

#: Two halves of a character, which JSON reads as that character.
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def as_data(value: Any) -> Any:
    """Arguments or options in a form that reads back as they are.

    Except for what JSON does not distinguish: tuples come back as lists, and keys as text.

    Raises:
        TypeError: a key that JSON cannot hold; the message says where it is.
        ValueError: something that would read back differently, or not at all.
    """
    try:
        return _as_data(value, DEEPEST)
    except RecursionError:
        raise ValueError("nested too deeply to be stored") from None
    except (TypeError, ValueError) as error:
        raise _placed(error, value, lambda part: _fault(part) is not None) from None


def _as_data(value: Any, levels: int) -> Any:
    fault = _fault(value)
    if fault is not None:
        raise fault
    if not isinstance(value, (dict, list, tuple)):
        return value
    if not levels:
        raise RecursionError
    if not isinstance(value, dict):
        return [_as_data(item, levels - 1) for item in value]
    items = {key: _as_data(item, levels - 1) for key, item in value.items()}
    if isinstance(value, Signature):
        return Signature(items)
    tag: Any = items.get("__type__")
    if _is_taken(tag):
        items["__type__"] = ESCAPE + tag
    return items


def _is_taken(tag: Any) -> bool:
    """Whether reading makes something else of a dict with this tag."""
    return isinstance(tag, str) and tag.lstrip(ESCAPE) in _BY_TAG


def _fault(value: Any) -> Exception | None:
    """Why JSON cannot give this value back, whatever is in it."""
    if isinstance(value, str) and _joins_halves(value):
        return ValueError("it holds two surrogates that JSON reads as one character")
    texts: dict[str, Any] = {}
    for key in value if isinstance(value, dict) else ():
        if not isinstance(key, (str, int, float, bool, type(None))):
            return TypeError(f"a key must be text, got {shown(key)}")
        text = key if isinstance(key, str) else next(iter(json.loads(json.dumps({key: 0}))))
        if _joins_halves(text):
            return ValueError(
                "one of its keys holds two surrogates that JSON reads as one character"
            )
        if text in texts:
            return ValueError(
                f"JSON cannot tell its keys {shown(texts[text])} and {shown(key)} apart"
            )
        texts[text] = key
    return None


def _joins_halves(text: str) -> bool:
    return not text.isascii() and _HALVES.search(text) is not None


# The codecs


def _encode_interval(schedule: interval) -> Fields:
    every = schedule.run_every.total_seconds()
    fields = {"every": _positive_seconds(every), "relative": bool(schedule.relative)}
    # Only a relative one looks at a clock. 2.x ignores the field.
    return {**fields, **_zone_of(schedule)} if schedule.relative else fields


def _zone_of(schedule: interval | celery_crontab) -> Fields:
    zone = own_zone(schedule)
    return {} if zone is None else {"tz": _zone_or_seconds(zone, EPOCH)}


def _decode_interval(fields: Fields) -> interval:
    every = _positive_seconds(_required(fields, "every"))
    schedule = interval(timedelta(seconds=every), relative=bool(fields.get("relative", False)))
    if schedule.relative and "tz" in fields:
        schedule.tz = _zone(fields["tz"])
    return schedule


def _positive_seconds(every: Any) -> float:
    seconds = _number("every", every)
    if not 0 < seconds <= timedelta.max.total_seconds() or timedelta(seconds=seconds) <= NOTHING:
        raise ValueError(f"every must be a number of seconds above 0, got {shown(every)}")
    return seconds


#: The order in which 2.x writes the fields of a crontab, which is that of Celery's parameters.
CRONTAB_FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


def _encode_crontab(schedule: celery_crontab) -> Fields:
    fields = {name: _cron_field(getattr(schedule, f"_orig_{name}")) for name in CRONTAB_FIELDS}
    return {**fields, **_zone_of(schedule)}


def _cron_field(given: Any) -> Any:
    if isinstance(given, (str, int)):
        return given
    return _whole_numbers("a field of a crontab", _listed(given))


def _listed(given: Any) -> list[Any]:
    return sorted(given) if isinstance(given, (set, frozenset)) else list(given)


def _decode_crontab(fields: Fields) -> celery_crontab:
    tz = _zone(fields.pop("tz")) if "tz" in fields else None
    _known(fields, CRONTAB_FIELDS)
    given = [_cron_given(name, fields.get(name, "*")) for name in CRONTAB_FIELDS]
    if tz is not None:
        return crontab(*given, tz=tz)
    if not all(isinstance(field, (str, int)) for field in given):
        return celery_crontab(*given)
    schedule = celery_crontab.__new__(celery_crontab)
    vars(schedule).update(vars(_parsed_crontab(*given)))
    return schedule


def _cron_given(name: str, field: Any) -> Any:
    if isinstance(field, int):
        return field
    if not isinstance(field, (str, list)) or not field:
        raise ValueError(f"{name} must be a number, a text or a list, got {shown(field)}")
    if len(field) > LONGEST_FIELD:
        raise ValueError(f"{name} is longer than {LONGEST_FIELD}")
    return field if isinstance(field, str) else _whole_numbers(name, field)


def _whole_numbers(name: str, given: list[Any]) -> list[int]:
    for number in given:
        if not isinstance(number, int):
            raise ValueError(f"{name} must consist of whole numbers, got {shown(number)}")
    return given


@lru_cache(maxsize=1_000, typed=True)
def _parsed_crontab(*fields: str | int) -> celery_crontab:
    # Celery takes ten times as long to parse a crontab as all the rest of an entry takes.
    return celery_crontab(*fields)


#: The moments of an rrule, and its other fields in the order in which 2.x writes them.
RRULE_MOMENTS = ("dtstart", "until")
RRULE_FIELDS = tuple(name for name in RULE_PARAMETERS if name not in RRULE_MOMENTS)


def _encode_rrule(rule: rrule) -> Fields:
    fields = {name: getattr(rule, name) for name in RRULE_FIELDS}
    for name, given in fields.items():
        if given is not None and not isinstance(given, (int, weekday)):
            fields[name] = _listed(given)
    zones = {name: zone for name, (*_, zone) in zones_of(rule).items()}
    start = _encode_moment("dtstart", rule.dtstart)
    if rule.until is None:
        return {**fields, **start, **({"until_tz": zones["dtstart"]} if zones else {})}
    fields.update({f"{name}_zone": zone for name, zone in zones.items()})
    return {**fields, **start, **_encode_moment("until", rule.until)}


def zones_of(schedule: Any) -> dict[str, tuple[int, float, str]]:
    """The zones of a rule that an offset cannot express.

    By ``dtstart`` and ``until``: the moment as it is in the definition, in seconds and in minutes
    from UTC, and the name of its zone. So a zone is never given to a moment that was written later.
    """
    if not isinstance(schedule, rrule):
        return {}
    moments = {name: getattr(schedule, name) for name in RRULE_MOMENTS}
    return {
        name: (to_timestamp(moment), get_utcoffset_minutes(moment), str(zone_name(moment.tzinfo)))
        for name, moment in moments.items()
        if moment is not None
        and not has_one_offset(moment.tzinfo)
        and zone_name(moment.tzinfo) is not None
    }


def without_zones(schedule: Any) -> Any:
    """The schedule as 2.x can read it: a rule with ``until`` has offsets in place of zones."""
    if not zones_of(schedule) or schedule.until is None:
        return schedule
    parameters = schedule.parameters()
    for name in zones_of(schedule):
        offset = parameters[name].utcoffset()
        parameters[name] = parameters[name].astimezone(timezone(offset))
    return rrule(**parameters)


def with_zones(schedule: Any, zones: Mapping[str, Any]) -> Any:
    """The schedule with the zones that ``zones_of`` gave, if it still has the same moments.

    Raises:
        ValueError: ``zones`` are not what ``zones_of`` gives, or there is no such zone.
    """
    if not isinstance(schedule, rrule):
        return schedule
    parameters, found = schedule.parameters(), {}
    for name in RRULE_MOMENTS:
        moment, given = parameters[name], zones.get(name)
        if moment is None or given is None or not has_one_offset(moment.tzinfo):
            continue
        if not isinstance(given, (list, tuple)) or len(given) != 3:
            raise ValueError(f"the zone of {name} must be [seconds, minutes, name], got {given!r}")
        if (to_timestamp(moment), get_utcoffset_minutes(moment)) == tuple(given[:2]):
            found[name] = moment.astimezone(named_zone(given[2]))
    return rrule(**{**parameters, **found}, nowfun=schedule.nowfun) if found else schedule


def _encode_moment(name: str, moment: datetime) -> Fields:
    return {name: to_timestamp(moment), f"{name}_tz": get_utcoffset_minutes(moment)}


def _decode_rrule(fields: Fields) -> rrule:
    # A start that was never written must be the same at every reading.
    if fields.get("until") is None and isinstance(fields.get("until_tz"), str):
        fields.setdefault("dtstart_zone", fields.pop("until_tz"))
    dtstart = _decode_moment("dtstart", fields) or EPOCH
    until = _decode_moment("until", fields)
    return rrule(dtstart=dtstart, until=until, **_known(fields, RRULE_FIELDS))


def _decode_moment(name: str, fields: Fields) -> datetime | None:
    seconds, zone = fields.pop(name, None), fields.pop(f"{name}_tz", None)
    zone = fields.pop(f"{name}_zone", zone)
    if seconds is None:
        return None
    minutes = 0 if zone is None else zone
    tz = named_zone(zone) if isinstance(zone, str) else _offset(name, minutes, MINUTE)
    return _instant(name, seconds).astimezone(tz)


def _encode_weekday(day: weekday) -> Fields:
    return {"wkday": day.weekday} if day.n is None else {"wkday": day.weekday, "n": day.n}


def _decode_weekday(fields: Fields) -> weekday:
    day = _required(fields, "wkday")
    if type(day) is not int or not 0 <= day <= 6:
        raise ValueError(f"wkday must be 0 to 6, got {shown(day)}")
    return weekday(**_known(fields, ("wkday", "n")))


def _encode_datetime(moment: datetime) -> Fields:
    name = zone_name(moment.tzinfo)
    if name is not None and not isinstance(moment.tzinfo, ZoneInfo):
        moment = moment.astimezone(ZoneInfo(name))
    fields: Fields = {part: getattr(moment, part) for part in DATETIME_PARTS}
    fields["timezone"] = _zone_or_seconds(moment.tzinfo, moment)
    if moment.fold:
        fields["fold"] = moment.fold
    return fields


DATETIME_PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond")
DATETIME_FIELDS = {*DATETIME_PARTS, "fold"}


def _zone_or_seconds(zone: tzinfo | None, moment: datetime) -> str | float:
    if zone is None:
        return "UTC"
    return zone_name(zone) or (moment.astimezone(zone).utcoffset() or NOTHING).total_seconds()


def _decode_datetime(fields: Fields) -> datetime:
    zone = _zone(fields.pop("timezone", "UTC"))
    return datetime(**_known(fields, DATETIME_FIELDS), tzinfo=zone)


def _encode_solar(schedule: solar) -> Fields:
    return {"event": schedule.event, **_place(schedule.lat, schedule.lon)}


def _decode_solar(fields: Fields) -> solar:
    place = _place(_required(fields, "lat"), _required(fields, "lon"))
    return solar(**{**_known(fields, ("event", "lat", "lon")), **place})


def _place(lat: Any, lon: Any) -> Fields:
    return {"lat": _number("lat", lat), "lon": _number("lon", lon)}


SIGNATURE_FIELDS = {"task": str, "args": list, "kwargs": dict, "options": dict}


def _decode_signature(fields: Fields) -> Signature:
    for name, type_ in SIGNATURE_FIELDS.items():
        if not isinstance(fields.get(name), type_):
            raise ValueError(f"{name} must be of type {type_.__name__}")
    fields["args"] = tuple(fields["args"])
    return Signature.from_dict(fields)


class StoredLazyFunc(BeatLazyFunc):  # type: ignore[misc]  # Celery has no types
    """What is stored of a ``celery.beat.BeatLazyFunc``: that there is one, and its function's name.

    Calling it raises ``ValueError``. The function is in the code that stored the entry.
    """

    def __init__(self, function: str) -> None:
        super().__init__(None)
        self.function = function

    @classmethod
    def of(cls, value: Any) -> Any:
        """``value``, or what is stored of it if it is a ``BeatLazyFunc``."""
        if not isinstance(value, BeatLazyFunc) or isinstance(value, cls):
            return value
        function = value._func  # noqa: SLF001  # Celery shows it nowhere else
        name = getattr(function, "__qualname__", type(function).__qualname__)
        module = getattr(function, "__module__", None)
        return cls(f"{module}.{name}" if module else name)

    def delay(self) -> Any:
        """Raise an error that says what to do."""
        raise ValueError(
            f"one of its arguments is computed by {self.function} whenever it is sent, and the "
            "beat_schedule of this beat does not say how. Start beat with the code that has the "
            "entry, or save or delete the entry."
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredLazyFunc) and other.function == self.function

    __hash__ = None  # type: ignore[assignment]  # as a list of arguments has none

    def __repr__(self) -> str:
        return f"<computed by {self.function}>"


def _attributes(*names: str) -> Callable[[Any], Fields]:
    return lambda value: {name: getattr(value, name) for name in names}


#: For the arguments of entries only: what Celery computes whenever they are sent.
LAZY = "beat_lazy_func"

CODECS = (
    Codec("datetime", datetime, _encode_datetime, _decode_datetime),
    Codec("interval", interval, _encode_interval, _decode_interval),
    Codec("crontab", celery_crontab, _encode_crontab, _decode_crontab),
    Codec("rrule", rrule, _encode_rrule, _decode_rrule),
    Codec("weekday", weekday, _encode_weekday, _decode_weekday),
    Codec("rruleset", rruleset, _attributes("text"), lambda f: rruleset(**_known(f, ("text",)))),
    Codec("once", once, _attributes("at"), lambda f: once(**_known(f, ("at",)))),
    Codec("solar", solar, _encode_solar, _decode_solar),
    Codec("date", date, _attributes("year", "month", "day"), lambda f: date(**f)),
    Codec(
        "timedelta",
        timedelta,
        _attributes("days", "seconds", "microseconds"),
        lambda f: timedelta(**f),
    ),
    Codec("uuid", UUID, _attributes("hex"), lambda f: UUID(**f)),
    Codec("decimal", Decimal, lambda value: {"text": str(value)}, lambda f: Decimal(f["text"])),
    Codec(
        "bytes",
        bytes,
        lambda value: {"base64": b64encode(value).decode()},
        lambda f: b64decode(f["base64"], validate=True),
    ),
    Codec("signature", Signature, dict, _decode_signature),
)

_BY_TAG: dict[str, Codec] = {}
_BY_TYPE: dict[type, Codec] = {}
_WARNED: set[type] = set()


def _add(codec: Codec) -> None:
    _BY_TAG[codec.tag] = codec
    _BY_TYPE[codec.type] = codec


def _codec_for(type_: type) -> Codec | None:
    """The codec of the type, or of the nearest base that has one."""
    if type_ in _BY_TYPE:
        return _BY_TYPE[type_]
    base = next((base for base in type_.__mro__ if base in _BY_TYPE), None)
    if base is None:
        return None
    if issubclass(type_, BaseSchedule) and type_ not in _WARNED:
        _WARNED.add(type_)
        logger.warning(
            "beat: Schedules of type %s have no codec and are stored as %s",
            type_.__qualname__,
            base.__qualname__,
        )
    return _BY_TYPE[base]


for _codec in CODECS:
    _add(_codec)
_add(Codec("crontab", crontab, _encode_crontab, _decode_crontab))
_add(
    Codec(
        LAZY,
        StoredLazyFunc,
        _attributes("function"),
        lambda f: StoredLazyFunc(str(_required(_known(f, ("function",)), "function"))),
    )
)


# Checked values


def _required(fields: Fields, name: str) -> Any:
    if name not in fields:
        raise ValueError(f"{name} is missing")
    return fields[name]


def _known(fields: Fields, names: Collection[str]) -> Fields:
    unknown = [name for name in fields if name not in names]
    if unknown:
        raise ValueError(f"it has unknown fields {shown(sorted(unknown))}")
    return fields


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        is_finite = is_number and isfinite(value)
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    number: float = value
    return number


def _instant(name: str, seconds: Any) -> datetime:
    try:
        return EPOCH + timedelta(seconds=_number(name, seconds))
    except OverflowError as error:
        raise ValueError(f"{name} is out of range, got {shown(seconds)}") from error


def _zone(given: Any) -> tzinfo:
    if isinstance(given, str):
        return named_zone(given)
    return _offset("timezone", given, SECOND)


def _offset(name: str, number: Any, unit: timedelta) -> timezone:
    try:
        return timezone(_number(name, number) * unit)
    except OverflowError as error:
        raise ValueError(f"the offset of {name} is out of range: {shown(number)}") from error
