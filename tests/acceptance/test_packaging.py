"""What is built from the repository."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def index_page() -> str:
    """The README as a package index shows it."""
    command = [sys.executable, "-m", "hatchling", "metadata", "readme"]
    completed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return completed.stdout


def test_every_link_on_the_page_of_an_index_leads_somewhere(index_page: str) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", index_page)

    assert targets
    assert all(target.startswith("https://") for target in targets)


def test_the_page_of_an_index_says_where_the_docs_are(index_page: str) -> None:
    """The README links them; on an index they are only named."""
    linked = re.findall(r"\[([^\]]+)\]\(docs/[^)]+\)", (ROOT / "README.md").read_text())

    assert linked
    assert [name for name in linked if f"*{name}*" not in index_page] == []
    assert "in the folder `docs` of the source distribution" in index_page
