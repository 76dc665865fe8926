"""What others wrote, made fit for a line of a log, of a terminal or of JSON.

Names, arguments and error texts may come from anybody who may write to the schedule. Printed as
they are, they could end a line and begin another one that looks like ours, or steer the terminal
that shows it. So every character that is not printable is shown as an escape: control characters,
line separators, those that change the direction of writing, and lone surrogates.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import celery.apps.beat
import celery.beat


def one_line(text: str) -> str:
    """Text fit for one line: what is not a printable character is written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def printable_json(text: str) -> str:
    """JSON that means the same, with all but its line breaks printable, and fit for UTF-8."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else _json_escape(char) for char in text
    )


def _json_escape(char: str) -> str:
    # JSON lets DEL stand as it is, and so do its writers.
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]


class Lines(str):
    """Text of several lines that are ours: in a log they stay lines."""

    __slots__ = ()


def escape_log(logger: logging.Logger) -> None:
    """Let what this package, and Celery's beat, log there be escaped in whatever handler shows it.

    A record keeps its arguments and its error as they are: only its text is escaped. Records of
    others on the same logger are left alone.
    """
    logger.addFilter(_EscapingFilter())


def _package_directory(code: CodeType) -> str:
    return str(Path(code.co_filename).parents[1] / "_").removesuffix("_")


#: Where the records are made whose text is escaped, as they name the place.
OWN_PLACES = (
    _package_directory(one_line.__code__),
    celery.beat.Service.start.__code__.co_filename,
    celery.apps.beat.Beat.run.__code__.co_filename,
)


class _EscapingFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if record.pathname.startswith(OWN_PLACES) and not isinstance(record, _Escaped):
            # The handlers meet the same error, and know what to do with it.
            with suppress(Exception):
                _escape(record)
        return True


def _escape(record: logging.LogRecord) -> None:
    if not record.getMessage().isprintable():
        # A class is hashable, whatever mypy makes of the `__hash__` of its instances.
        record.__class__ = _escaped(type(record))  # type: ignore[arg-type]
    exc = record.exc_info[1] if record.exc_info else None
    if exc is not None and any(not line.isprintable() for line in _last_lines(exc)):
        # A formatter takes a text that is there for that of the error.
        record.exc_text = traceback_of(exc)


class _Escaped(logging.LogRecord):
    """A record whose message shows its arguments escaped."""

    def getMessage(self) -> str:  # noqa: N802 - the name is that of the standard library
        shown = self.__copy__()
        shown.args = _shown_arguments(self.args)
        text: str = super(_Escaped, shown).getMessage()
        return "\n".join(map(one_line, text.split("\n")))

    def __copy__(self) -> _Escaped:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which may not have this package: a record of the usual kind."""
        fields = self.__dict__ | {"msg": self.getMessage(), "args": None, "exc_info": None}
        return logging.makeLogRecord, (fields,)


@lru_cache(maxsize=8)
def _escaped(record_class: type[logging.LogRecord]) -> type[logging.LogRecord]:
    """The class of a record, which programs may choose, with escaped messages."""
    return type(f"Escaped{record_class.__name__}", (_Escaped, record_class), {})


class _Shown:
    """An argument of a message, escaped in whichever way the message shows it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        if isinstance(self._value, Lines):
            return self._value
        return one_line(str(self._value))

    def __repr__(self) -> str:
        return one_line(repr(self._value))


def _shown_arguments(arguments: Any) -> Any:
    if isinstance(arguments, dict):
        return {name: _shown(value) for name, value in arguments.items()}
    return tuple(map(_shown, arguments or ()))


def _shown(value: Any) -> Any:
    # What is formatted as a number must stay one.
    return value if isinstance(value, (int, float)) else _Shown(value)


def traceback_of(exc: BaseException) -> str:
    """The traceback of an error and of what caused it, what each of them says in one line."""
    return "\n\n".join(_tracebacks(exc))


def _tracebacks(exc: BaseException) -> Iterator[str]:
    chain = list(_causes(exc))
    for cause, follows in zip(reversed(chain), [*reversed(chain[:-1]), None], strict=True):
        places = "".join(traceback.format_tb(cause.__traceback__))
        heading = f"Traceback (most recent call last):\n{places}" if places else ""
        yield heading + "\n".join(_describe(cause))
        if follows is not None:
            is_cause = follows.__cause__ is cause
            yield CAUSED if is_cause else HANDLED


#: As Python says it.
CAUSED = "The above exception was the direct cause of the following exception:"
HANDLED = "During handling of the above exception, another exception occurred:"


def _last_lines(exc: BaseException) -> Iterator[str]:
    for cause in _causes(exc):
        yield _text_of(cause)
        yield from _notes(cause)


def _describe(exc: BaseException) -> Iterator[str]:
    name = type(exc).__qualname__
    module = type(exc).__module__
    text = _text_of(exc)
    full = name if module in ("builtins", "__main__") else f"{module}.{name}"
    yield one_line(f"{full}: {text}" if text else full)
    yield from (f"  {one_line(note)}" for note in _notes(exc))


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return "<exception str() failed>"


def _notes(exc: BaseException) -> list[str]:
    notes = getattr(exc, "__notes__", None)
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, each once, as far as a traceback tells of it."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        is_told = exc.__cause__ is None and not exc.__suppress_context__
        exc = exc.__context__ if is_told else exc.__cause__
