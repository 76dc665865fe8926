"""The wire format: JSON exactly as celery-redbeat 2.4.2 wrote it into Redis."""

import json
from pathlib import Path

import pytest

from redbeat.decoder import RedBeatJSONDecoder, RedBeatJSONEncoder

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_what_2_x_wrote_is_read_and_written_back_byte_for_byte(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    read = json.loads(text, cls=RedBeatJSONDecoder)
    assert json.dumps(read, cls=RedBeatJSONEncoder) == text


def test_there_are_golden_files_of_definitions_and_of_meta() -> None:
    assert len(list(GOLDEN.glob("*.definition.json"))) >= 20
    assert len(list(GOLDEN.glob("*.meta.json"))) >= 5
