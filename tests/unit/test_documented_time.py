"""The Python on the pages about time runs from top to bottom, and its assertions hold."""

from pathlib import Path
from typing import Any

import pytest

from support.documents import ROOT, read_blocks

PAGES = [
    ROOT / "docs" / "explanation" / "time.md",
    ROOT / "docs" / "how-to" / "time-zones.md",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_the_page_hold(page: Path) -> None:
    namespace: dict[str, Any] = {}
    blocks = [block.text for block in read_blocks(page) if block.language == "python"]
    for block in blocks:
        exec(compile(block, page.name, "exec"), namespace)
    assert "".join(blocks).count("assert ") >= 8
