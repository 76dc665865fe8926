"""A large JSON object, read one value at a time: no more text than that of one value is held."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import EntryError

#: What may follow a name or a value in an object.
BEHIND = frozenset(" \t\n\r:,}")

WHITE_SPACE = re.compile(r"[ \t\n\r]*")


def read_pairs(pieces: Iterable[str], decoder: json.JSONDecoder) -> Iterator[tuple[str, Any]]:
    """The names and values of the JSON object that a text is, in its order.

    `pieces` are those of the text; the next one is taken when it is needed. Raises `EntryError` (a
    `ValueError`) where the text is no such JSON, with the place, and where `decoder` refuses a
    value, with the name.
    """
    text = _Text(pieces)
    if text.peek() != "{":
        raise EntryError("Line 1, column 1: expected is an object with an entry under each name.")
    text.take("{")
    if text.peek() != "}":
        yield _read_pair(text, decoder)
        while text.peek() == ",":
            text.take(",")
            yield _read_pair(text, decoder)
    text.take("}")
    if text.peek():
        raise text.error("Extra data")


def _read_pair(text: _Text, decoder: json.JSONDecoder) -> tuple[str, Any]:
    if text.peek() != '"':
        raise text.error("Expecting a name in double quotes")
    name = text.value(_PLAIN)
    text.take(":")
    try:
        return name, text.value(decoder)
    except (EntryError, UnicodeError):
        raise
    except ValueError as exc:
        raise EntryError(f"Entry {name!r}: {exc}") from exc
    except RecursionError as exc:
        raise EntryError(f"Entry {name!r}: nested too deeply to be read") from exc


_PLAIN = json.JSONDecoder()


class _Text:
    """A text of which what was taken is forgotten."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._held = ""
        #: Up to here what is held was taken.
        self._at = 0
        #: The place of the first character that is held.
        self._line = self._column = 1

    def peek(self) -> str:
        """The next character that is no white space, left where it is; empty at the end."""
        while True:
            space = WHITE_SPACE.match(self._held, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._held) or not self._read_on():
                return self._held[self._at : self._at + 1]

    def take(self, character: str) -> None:
        """Take this character, which must be the next one."""
        if self.peek() != character:
            raise self.error(f"Expecting {character!r}")
        self._at += 1

    def value(self, decoder: json.JSONDecoder) -> Any:
        """Take the next value."""
        self.peek()
        while True:
            try:
                value, end = decoder.raw_decode(self._held, self._at)
            except json.JSONDecodeError as exc:
                # What is cut off looks like what is wrong.
                if not self._read_on():
                    raise self.error(exc.msg, exc.pos) from exc
            else:
                # A number that is cut off looks like one that ends there.
                if self._held[end : end + 1] in BEHIND or not self._read_on():
                    self._at = end
                    return value

    def error(self, what: str, at: int | None = None) -> EntryError:
        """What is wrong with the text, by default at what is next."""
        line, column = self._place(self._at if at is None else at)
        return EntryError(
            f"Line {line}, column {column}: {what}. Expected is JSON as `celery redbeat export` "
            "writes it."
        )

    def _place(self, at: int) -> tuple[int, int]:
        before = self._held[:at]
        lines = before.count("\n")
        column = at - before.rindex("\n") if lines else self._column + at
        return self._line + lines, column

    def _read_on(self) -> bool:
        """Forget what was taken, and hold twice of what was not; `False` at the end."""
        rest = len(self._held) - self._at
        more = []
        while (piece := next(self._pieces, None)) is not None:
            more.append(piece)
            rest -= len(piece)
            if rest <= 0:
                break
        if not more:
            return False
        self._line, self._column = self._place(self._at)
        self._held = self._held[self._at :] + "".join(more)
        self._at = 0
        return True
