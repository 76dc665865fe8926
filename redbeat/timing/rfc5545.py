"""RFC 5545 recurrence text, read line by line into the parameters of rules and into dates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from dateutil import rrule as recurrence

from .instants import UTC, as_utc
from .parameters import PARTS, RULE_PARAMETERS, shown
from .zones import has_one_offset, named_zone, zone_name

#: Characters in the text of a recurrence: room for 60,000 dates.
LONGEST_TEXT = 1_000_000


class Line(NamedTuple):
    """One content line (RFC 5545, section 3.1)."""

    name: str
    parameters: dict[str, str]
    value: str


class Lines:
    """RFC 5545 recurrence text, line by line, read in the zone of its ``DTSTART``."""

    NAMES = ("DTSTART", "RRULE", "RDATE", "EXRULE", "EXDATE")

    def __init__(self, text: str, zone: tzinfo, now: datetime) -> None:
        self.zone = zone
        self.lines = [_content_line(line) for line in _unfolded(text)]
        unknown = [line.name for line in self.lines if line.name not in self.NAMES]
        if unknown or not self.lines:
            names = ", ".join(self.NAMES)
            raise ValueError(f"a recurrence consists of {names}, not of {shown(unknown)}")
        self.start = self._read_start(now)
        body = [line for line in _unfolded(text) if _content_line(line).name != "DTSTART"]
        self.text = "\n".join([_start_line(self.start), *body])

    @property
    def names(self) -> list[str]:
        """The names of the lines, in their order."""
        return [line.name for line in self.lines]

    @property
    def is_floating(self) -> bool:
        """Whether the zone in which the text is read decides on when it starts."""
        return not any(
            "TZID" in line.parameters or line.value.strip().upper().endswith("Z")
            for line in self.lines
            if line.name == "DTSTART"
        )

    def rules(self, name: str) -> list[dict[str, Any]]:
        """What ``rrule`` takes, for each line of that name."""
        lines = [line for line in self.lines if line.name == name]
        return [{"dtstart": self.start, **self._read_rule(line.value)} for line in lines]

    def dates(self, name: str) -> list[datetime]:
        """The moments in all lines of that name."""
        lines = [line for line in self.lines if line.name == name]
        return [
            self._read_moment(text, line.parameters)
            for line in lines
            for text in line.value.split(",")
        ]

    def _read_start(self, now: datetime) -> datetime:
        starts = [line for line in self.lines if line.name == "DTSTART"]
        if len(starts) > 1:
            raise ValueError("a recurrence has one DTSTART at most")
        if not starts:
            # Without a rule nothing would begin now but a run that nobody asked for.
            dates = [] if "RRULE" in self.names else self.dates("RDATE")
            return min(dates, default=now.replace(microsecond=0)).astimezone(self.zone)
        start = self._read_moment(starts[0].value, starts[0].parameters)
        self.zone = start.tzinfo or UTC
        return start

    def _read_moment(self, text: str, parameters: Mapping[str, str]) -> datetime:
        """A DATE or DATE-TIME (RFC 5545, sections 3.3.4 and 3.3.5)."""
        if parameters.get("VALUE", "DATE-TIME").upper() not in ("DATE", "DATE-TIME"):
            raise ValueError(f"VALUE={parameters['VALUE']} is not supported, only dates and times")
        zone = named_zone(parameters["TZID"]) if "TZID" in parameters else self.zone
        return _moment(text.strip().upper(), zone)

    def _read_rule(self, value: str) -> dict[str, Any]:
        parts = [part.partition("=") for part in value.strip(";").split(";")]
        read = {}
        for name, _, text in parts:
            parameter = RULE_PART_NAMES.get(name.strip().upper())
            if parameter is None or parameter in read:
                raise ValueError(f"{shown(name)} is no part of a rule, or is there twice")
            read[parameter] = self._read_part(parameter, text.strip().upper())
        if "freq" not in read:
            raise ValueError("a rule needs FREQ")
        return read

    def _read_part(self, parameter: str, text: str) -> Any:
        if parameter == "freq":
            return text
        if parameter == "until":
            return _moment(text, self.zone)
        if parameter in ("byweekday", "wkst"):
            days = [_weekday(day) for day in text.split(",")]
            return days if parameter == "byweekday" else days[0]
        numbers = [_number(parameter, number) for number in text.split(",")]
        return numbers if parameter in PARTS else numbers[0]


RULE_PART_NAMES = {
    "BYDAY": "byweekday",
    **{name.upper(): name for name in RULE_PARAMETERS if name != "dtstart"},
}
WEEKDAYS: dict[str, recurrence.weekday] = {
    day: getattr(recurrence, day) for day in ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
}


def _unfolded(text: str) -> list[str]:
    if not isinstance(text, str):
        raise ValueError(f"a recurrence must be text, got {shown(text)}")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a recurrence of {len(text)} characters is longer than {LONGEST_TEXT}")
    lines = text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "").split("\n")
    return [line.strip() for line in lines if line.strip()]


def _content_line(line: str) -> Line:
    head, colon, value = line.partition(":")
    if not colon:
        head, value = "RRULE", line
    name, *parameters = head.split(";")
    pairs = [parameter.partition("=") for parameter in parameters]
    return Line(name.strip().upper(), {key.upper(): text for key, _, text in pairs}, value)


def _start_line(start: datetime) -> str:
    if start.tzinfo is not None and not has_one_offset(start.tzinfo):
        return f"DTSTART;TZID={zone_name(start.tzinfo)}:{start:%Y%m%dT%H%M%S}"
    return f"DTSTART:{as_utc(start):%Y%m%dT%H%M%SZ}"


def _moment(text: str, zone: tzinfo) -> datetime:
    for form in ("%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y%m%d"):
        try:
            moment = datetime.strptime(text, form)
        except ValueError:
            continue
        return moment.replace(tzinfo=UTC if form.endswith("Z") else zone)
    raise ValueError(f"{shown(text)} is no date or time such as 19970902T090000Z")


def _weekday(text: str) -> recurrence.weekday:
    day, number = WEEKDAYS.get(text[-2:]), text[:-2]
    if day is None:
        raise ValueError(f"{shown(text)} is no weekday such as MO or -1FR")
    return recurrence.weekday(day.weekday, _number("byweekday", number)) if number else day


def _number(parameter: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{parameter} must be whole numbers, got {shown(text)}") from error
