"""RFC 5545 recurrence text, read line by line into the parameters of rules and into dates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from dateutil.rrule import weekday

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
    text: str


class Lines:
    """RFC 5545 recurrence text, line by line, read in the zone of its ``DTSTART``."""

    NAMES = ("DTSTART", "RRULE", "RDATE", "EXRULE", "EXDATE")

    def __init__(self, text: str, zone: tzinfo, now: datetime) -> None:
        self.zone = zone
        self.lines = _content_lines(text)
        #: The names of the lines, in their order.
        self.names = [line.name for line in self.lines]
        unknown = [name for name in self.names if name not in self.NAMES]
        if unknown or not self.lines:
            names = ", ".join(self.NAMES)
            raise ValueError(f"a recurrence consists of {names}, not of {shown(unknown)}")
        self.start = self._read_start(now)
        start, its_zone = f"DTSTART:{as_utc(self.start):%Y%m%dT%H%M%SZ}", self.start.tzinfo
        if not has_one_offset(its_zone):
            start = f"DTSTART;TZID={zone_name(its_zone)}:{self.start:%Y%m%dT%H%M%S}"
        body = [line.text for line in self.lines if line.name != "DTSTART"]
        #: The text with its ``DTSTART`` filled in.
        self.text = "\n".join([start, *body])

    @property
    def is_floating(self) -> bool:
        """Whether its start depends on the zone in which the text is read."""
        return not any(
            "TZID" in line.parameters or line.value.strip().upper().endswith("Z")
            for line in self.lines
            if line.name == "DTSTART"
        )

    def rules(self, name: str) -> list[dict[str, Any]]:
        """What ``rrule`` takes, for each line of that name."""
        return [
            {"dtstart": self.start, **self._read_rule(line.value)}
            for line in self.lines
            if line.name == name
        ]

    def dates(self, name: str) -> list[datetime]:
        """The moments in all lines of that name."""
        return [
            self._read_moment(text, line.parameters)
            for line in self.lines
            if line.name == name
            for text in line.value.split(",")
        ]

    def _read_start(self, now: datetime) -> datetime:
        starts = [line for line in self.lines if line.name == "DTSTART"]
        if len(starts) > 1:
            raise ValueError("a recurrence has at most one DTSTART")
        if not starts:
            # Dates without a rule start with the first: now would be a run that nobody asked for.
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
        read: dict[str, Any] = {}
        for part in value.strip(";").split(";"):
            name, _, text = part.partition("=")
            parameter = RULE_PART_NAMES.get(name.strip().upper())
            if parameter is None or parameter in read:
                raise ValueError(f"{shown(name)} is not a part of a rule, or occurs twice")
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
            days = []
            for day in text.split(","):
                if day[-2:] not in WEEKDAYS:
                    raise ValueError(f"{shown(day)} is not a weekday such as MO or -1FR")
                number = _number("byweekday", day[:-2]) if day[:-2] else None
                days.append(weekday(WEEKDAYS.index(day[-2:]), number))
            return days if parameter == "byweekday" else days[0]
        numbers = [_number(parameter, number) for number in text.split(",")]
        return numbers if parameter in PARTS else numbers[0]


RULE_PART_NAMES = {
    "BYDAY": "byweekday",
    **{name.upper(): name for name in RULE_PARAMETERS if name != "dtstart"},
}
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


def _content_lines(text: str) -> list[Line]:
    if not isinstance(text, str):
        raise ValueError(f"a recurrence must be text, got {shown(text)}")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a recurrence of {len(text)} characters is longer than {LONGEST_TEXT}")
    unfolded = text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "").split("\n")
    lines = []
    for line in filter(None, map(str.strip, unfolded)):
        head, value = line.split(":", 1) if ":" in line else ("RRULE", line)
        name, *parameters = head.split(";")
        pairs = [parameter.partition("=") for parameter in parameters]
        by_name = {key.upper(): given for key, _, given in pairs}
        lines.append(Line(name.strip().upper(), by_name, value, line))
    return lines


def _moment(text: str, zone: tzinfo) -> datetime:
    for form in ("%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y%m%d"):
        try:
            moment = datetime.strptime(text, form)
        except ValueError:
            continue
        return moment.replace(tzinfo=UTC if form.endswith("Z") else zone)
    raise ValueError(f"{shown(text)} is not a date or time such as 19970902T090000Z")


def _number(parameter: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{parameter} must be whole numbers, got {shown(text)}") from error
