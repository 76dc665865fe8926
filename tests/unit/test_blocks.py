"""A JSON object that is read piece by piece is the one that is read as a whole."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redbeat.errors import EntryError
from redbeat.tools.blocks import read_pairs

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.text(), VALUES)


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def read(text: str, size: int = 1 << 16) -> list[tuple[str, Any]]:
    return list(read_pairs(pieces(text, size), json.JSONDecoder()))


@given(OBJECTS, st.integers(1, 20), st.sampled_from([None, 1]), st.booleans())
def test_it_is_read_however_it_is_cut(
    whole: dict[str, Any], size: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only)
    assert read(f" {text}\n", size) == list(whole.items())


@given(OBJECTS, st.integers(1, 20), st.data())
def test_what_is_no_json_is_refused_however_it_is_cut(
    whole: dict[str, Any], size: int, data: st.DataObject
) -> None:
    """A character is lost, doubled or another one: it is read as the whole is, or not at all."""
    text = json.dumps(whole)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = (
        text[:at] + data.draw(st.sampled_from(["", text[at] * 2, *'{}[],:"0\\'])) + text[at:][1:]
    )
    try:
        expected = json.loads(changed, object_pairs_hook=tuple)
    except ValueError:
        expected = None
    if expected is None or not changed.strip().startswith("{"):
        with pytest.raises(EntryError):
            read(changed, size)
    else:
        decoder = json.JSONDecoder(object_pairs_hook=tuple)
        assert tuple(read_pairs(pieces(changed, size), decoder)) == expected


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "Line 1, column 1"),
        ("[]", "Line 1, column 1"),
        ("{", "Line 1, column 2"),
        ('{"a": 1', "Line 1, column 8"),
        ('{"a" 1}', "Line 1, column 6"),
        ('{"a": 1,}', "Line 1, column 9"),
        ('{"a": 1 "b": 2}', "Line 1, column 9"),
        ('{\n"a": 1,\n"b": [1,\n  ?]}', "Line 4, column 3"),
        ('{\n"a": 1,\n  3: 2}', "Line 3, column 3"),
        ('{"a": 1}\n\nx', "Line 3, column 1"),
        ('{"a": tru}', "Line 1, column 7"),
    ],
)
def test_the_place_of_an_error_is_told_in_lines_and_columns(
    text: str, place: str, size: int
) -> None:
    with pytest.raises(EntryError, match=f"^{place}: "):
        read(text, size)


def test_an_error_in_a_value_bears_its_name() -> None:
    def refuse(fields: dict[str, Any]) -> None:
        raise ValueError("no such hour")

    with pytest.raises(EntryError, match="'b': no such hour"):
        list(read_pairs(['{"a": 1, "b": {}}'], json.JSONDecoder(object_hook=refuse)))
    with pytest.raises(EntryError, match="'deep': nested too deeply"):
        read('{"deep": ' + "[" * 200_000)


def test_values_are_read_one_by_one() -> None:
    """The first one before the last piece; a long one without being begun over and over."""
    taken = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for piece in pieces(json.dumps({str(number): "x" * 90 for number in range(1000)}), 100):
            taken += 1
            yield piece

    assert next(read_pairs(counted(), json.JSONDecoder())) == ("0", "x" * 90)
    assert taken < 5

    class Counting(json.JSONDecoder):
        tries = 0

        def raw_decode(self, *args: Any) -> Any:
            self.tries += 1
            return super().raw_decode(*args)

    decoder, long = Counting(), "x" * 100_000
    assert list(read_pairs(pieces(json.dumps({"a": long}), 10), decoder)) == [("a", long)]
    assert decoder.tries < 50
