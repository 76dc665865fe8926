"""Text from outside, in a log, on a terminal and in JSON."""

import copy
import io
import json
import logging
import pickle
from collections.abc import Iterator
from typing import Any

import celery.beat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redbeat import schedulers
from redbeat.errors import EntryError
from redbeat.store.escaping import one_line, printable_json
from redbeat.tools.terminal import to_json

FORGED = "x\n[2026-01-01 00:00:00: CRITICAL/MainProcess] FORGED\x1b[2J"

#: One of each kind: C0, DEL, C1, bidi controls, line separators, lone surrogates.
UNPRINTABLE = [
    *"\x00\x07\b\t\n\v\f\r\x1b\x7f\x80\x85\x9b\x9f",
    *map(chr, [0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]),
    *"\u2028\u2029\ud800\udcff\U000e0001",
]


@pytest.fixture
def shown() -> Iterator[io.StringIO]:
    """What a handler with Celery's format shows of the log."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    schedulers.logger.addHandler(handler)
    yield stream
    schedulers.logger.removeHandler(handler)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The logger, with records as if they came from this package."""
    make = schedulers.logger.makeRecord

    def make_ours(name: str, level: int, place: str, *rest: Any, **options: Any) -> Any:
        return make(name, level, schedulers.__file__, *rest, **options)

    logger: logging.Logger = schedulers.logger
    monkeypatch.setattr(logger, "makeRecord", make_ours)
    return logger


@pytest.mark.parametrize("char", UNPRINTABLE)
def test_an_unprintable_character_becomes_an_escape(char: str) -> None:
    for text in (one_line(f"größe {char}時計 🕰"), to_json([f"größe {char}時計 🕰"])):
        assert text.isprintable()
        assert "größe \\" in text
        assert "時計 🕰" in text


def test_text_stays_on_one_line() -> None:
    assert one_line("a\nb\tc\x1b[31m größe\udc80") == r"a\nb\tc\x1b[31m größe\udc80"


@given(
    st.recursive(
        st.text(st.characters(codec=None))
        | st.integers()
        | st.none()
        | st.sampled_from(UNPRINTABLE),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
def test_escaped_json_means_the_same(value: Any) -> None:
    """On one line and on several."""
    for indent in (None, 2):
        text = printable_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert json.loads(text) == value
        assert text.replace("\n", "").isprintable()
        text.encode()


def test_a_name_cannot_write_lines_of_its_own(ours: logging.Logger, shown: io.StringIO) -> None:
    """However the message shows it, or an object that contains it."""
    ours.warning("%s, %r, %s and %d", FORGED, FORGED, ValueError(FORGED), 7)
    ours.warning("%(name)s", {"name": FORGED})
    first, second = shown.getvalue().splitlines()
    assert first.count(r"\n[2026-01-01") == 3
    assert first.endswith(" and 7")
    assert second.startswith(r"WARNING x\n[2026")
    assert all(line.isprintable() for line in (first, second))


def test_a_record_keeps_its_message_arguments_and_error(
    ours: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """Error trackers read them."""
    error = EntryError(FORGED)
    ours.error("%s failed", FORGED, exc_info=error)
    (record,) = caplog.records
    assert record.msg == "%s failed"
    assert record.args == (FORGED,)
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    for other in (copy.copy(record), pickle.loads(pickle.dumps(record))):
        assert other.getMessage() == f"{one_line(FORGED)} failed"


def test_a_record_without_anything_to_escape_is_not_changed(
    ours: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    ours.error("%s failed", "größe", exc_info=ValueError("größe"))
    (record,) = caplog.records
    assert type(record) is logging.LogRecord
    assert record.getMessage() == "größe failed"


def fail() -> None:
    try:
        raise KeyError(FORGED)
    except KeyError as exc:
        raise EntryError(f"first\n{FORGED}") from exc


def test_a_traceback_stays_readable_and_its_errors_on_one_line_each(
    ours: logging.Logger, shown: io.StringIO
) -> None:
    """With what caused them."""
    try:
        fail()
    except EntryError:
        ours.exception("%s", FORGED)
    lines = shown.getvalue().splitlines()
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if line.startswith("[2026")]
    assert lines[1] == "Traceback (most recent call last):"
    assert lines.count("Traceback (most recent call last):") == 2
    assert lines[2].startswith(f'  File "{__file__}", line ')
    assert "direct cause" in shown.getvalue()
    assert lines[-1].startswith(r"redbeat.errors.EntryError: first\nx\n[2026")


def test_what_celerys_beat_logs_is_escaped_as_well(
    shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subclass may send the way Celery's scheduler does, which writes its own log."""

    class Refusing(celery.beat.Scheduler):  # type: ignore[misc]  # Celery has no types
        def __init__(self) -> None:
            """Nothing that a scheduler needs."""

        def apply_async(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError(FORGED)

    entry = celery.beat.ScheduleEntry(FORGED, FORGED, schedule=1)
    Refusing().apply_entry(entry)
    lines = shown.getvalue().splitlines()
    assert len(lines) > 2
    assert not [line for line in lines if line.startswith("[2026") or not line.isprintable()]


def test_log_records_of_others_are_not_changed(shown: io.StringIO) -> None:
    schedulers.logger.warning("%s\tand\n%s", "two", "lines")
    assert shown.getvalue() == "WARNING two\tand\nlines\n"
