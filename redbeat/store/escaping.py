"""Escapes for text from outside, before it goes to a log, a terminal or JSON.

Names, arguments and error texts may come from anybody who can write to the schedule. Printed as
they are, they could end a line and start another that looks like ours, or control the terminal. So
every character that is not printable becomes an escape: control characters, line separators,
characters that change the direction of writing, and lone surrogates.
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
    """The text on one line: characters that are not printable become escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def printable_json(text: str) -> str:
    """JSON of the same meaning: all but its line breaks printable, and encodable as UTF-8."""
    if text.isprintable():
        return text
    escaped = (
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )
    # JSON allows DEL as it is, and so does `json.dumps`.
    return "".join(escaped).replace("\x7f", "\\u007f")


class Lines(str):
    """Our own text of several lines, which stay lines in a log."""

    __slots__ = ()


def escape_log(logger: logging.Logger) -> None:
    """Escape what this package and Celery's beat log there, for every handler.

    A record keeps its arguments and its error; only its text is escaped. Records of others on the
    same logger are not changed.
    """
    logger.addFilter(_EscapingFilter())


def _package_directory(code: CodeType) -> str:
    return str(Path(code.co_filename).parents[1] / "_").removesuffix("_")


#: Where the records are made whose text is escaped: the start of their path names.
OWN_PLACES = (
    _package_directory(one_line.__code__),
    celery.beat.Service.start.__code__.co_filename,
    celery.apps.beat.Beat.run.__code__.co_filename,
)


class _EscapingFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not record.pathname.startswith(OWN_PLACES) or isinstance(record, _Escaped):
            return True
        # An error here also happens in the handlers, which report it.
        with suppress(Exception):
            if not record.getMessage().isprintable():
                # A class is hashable, whatever mypy makes of the `__hash__` of its instances.
                record.__class__ = _escaped_class(type(record))  # type: ignore[arg-type]
            exc = record.exc_info[1] if record.exc_info else None
            if exc is not None and not all(map(str.isprintable, _last_lines(exc))):
                # A formatter uses this text, if it is set, as that of the error.
                record.exc_text = traceback_of(exc)
        return True


class _Escaped(logging.LogRecord):
    """A record whose message shows its arguments escaped."""

    def getMessage(self) -> str:  # noqa: N802 - the name is that of the standard library
        shown = self.__copy__()
        if isinstance(self.args, dict):
            shown.args = {name: _shown(value) for name, value in self.args.items()}
        else:
            shown.args = tuple(map(_shown, self.args or ()))
        text: str = super(_Escaped, shown).getMessage()
        return "\n".join(map(one_line, text.split("\n")))

    def __copy__(self) -> _Escaped:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """A plain record, for another process, which may not have this package."""
        fields = self.__dict__ | {"msg": self.getMessage(), "args": None, "exc_info": None}
        return logging.makeLogRecord, (fields,)


@lru_cache(maxsize=8)
def _escaped_class(record_class: type[logging.LogRecord]) -> type[logging.LogRecord]:
    """A subclass of ``record_class``, which programs may choose, with escaped messages."""
    return type(f"Escaped{record_class.__name__}", (_Escaped, record_class), {})


class _Shown:
    """An argument of a message, escaped whether the message shows it by ``%s`` or ``%r``."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __str__(self) -> str:
        if isinstance(self._value, Lines):
            return self._value
        return one_line(str(self._value))

    def __repr__(self) -> str:
        return one_line(repr(self._value))


def _shown(value: Any) -> Any:
    # A number must stay one for formats such as `%d`.
    return value if isinstance(value, (int, float)) else _Shown(value)


def traceback_of(exc: BaseException) -> str:
    """The traceback of an error and of its causes, with the text of each on one line."""
    chain = list(_causes(exc))
    paragraphs: list[str] = []
    for cause, follows in zip(reversed(chain), [*reversed(chain[:-1]), None], strict=True):
        places = "".join(traceback.format_tb(cause.__traceback__))
        heading = f"Traceback (most recent call last):\n{places}" if places else ""
        paragraphs.append(heading + "\n".join(_describe(cause)))
        if follows is not None:
            paragraphs.append(CAUSED if follows.__cause__ is cause else HANDLED)
    return "\n\n".join(paragraphs)


#: In Python's own words.
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
    """An error and what led to it, each once, as far as a traceback shows it."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        follows_context = exc.__cause__ is None and not exc.__suppress_context__
        exc = exc.__context__ if follows_context else exc.__cause__
