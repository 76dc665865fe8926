"""Reading the file of an export, in its present and its old form."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redbeat.errors import EntryError
from redbeat.tools.backup import read_file

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.text().filter(lambda field: field != "name"), VALUES)
ENTRIES = st.dictionaries(st.text(), FIELDS)


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(written.text) for written in read_file(io.StringIO(text))]


def named(entries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**fields, "name": name} for name, fields in entries.items()]


@given(ENTRIES.filter(bool), st.booleans())
def test_each_line_is_an_entry(entries: dict[str, dict[str, Any]], ascii_only: bool) -> None:
    lines = [json.dumps(entry, ensure_ascii=ascii_only) for entry in named(entries)]
    assert read("\n".join(lines)) == named(entries)


@given(ENTRIES, st.sampled_from([None, 0, 2]), st.booleans())
def test_an_object_with_entries_under_their_names_is_the_old_form(
    entries: dict[str, dict[str, Any]], indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(entries, indent=indent, ensure_ascii=ascii_only)
    assert read(f"\n {text}\n") == named(entries)


def test_blank_lines_are_skipped_and_counted() -> None:
    text = '\n{"name": "a"}\n\n  \n{"name": "b"}\n'
    found = [
        (written.place, json.loads(written.text)["name"])
        for written in read_file([*text.splitlines(keepends=True)])
    ]
    assert found == [("Line 2", "a"), ("Line 5", "b")]


def test_an_entry_named_name_is_read_in_either_form() -> None:
    assert read('{"name": "name"}') == [{"name": "name"}]
    assert read('{"name": {"task": "t"}}') == [{"name": "name", "task": "t"}]


def test_lines_are_read_one_by_one() -> None:
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield f'{{"name": "{number}"}}\n'

    assert next(read_file(lines())).place == "Line 1"
    assert taken == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The file is empty"),
        (" \n\n", "The file is empty"),
        ("{", "Line 1, column 2: "),
        ("[\n]", "Line 1: Expected one JSON object per line"),
        ('{"a": {}', "Line 1, column 9: "),
        ('{\n"a": {},\n"b": [1,\n  ?]}', "Line 4, column 3: "),
        ('{\n"a": {},\n  3: 2}', "Line 3, column 3: "),
        ('{\n"a": {}}\n\nx', "Line 4, column 1: "),
        ('{\n"a": {}, "a": {}}', "'a' is in an object twice"),
        ('{\n"name": "a",\n"task": "t"}', "Line 1: Expected one JSON object per line"),
        ('{"deep": ' + "[" * 200_000, "The file is nested too deeply"),
    ],
)
def test_a_file_that_has_neither_form_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(EntryError, match=f"^{message}"):
        read(text)
