"""The code blocks of the documentation, and the program that its Redis commands are typed into."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from support.ports import LOOPBACK
from support.servers import RedisServer, find_server

ROOT = Path(__file__).parents[2]
CLI_PROGRAMS = ("redis-cli", "valkey-cli")


class Block(NamedTuple):
    """A fenced code block: the language that its first line names, and its content."""

    language: str
    text: str


def pages() -> list[Path]:
    """All pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in their order."""
    parts = page.read_text().split("\n```")
    return [Block(*part.partition("\n")[::2]) for part in parts[1::2]]


def type_into_redis_cli(server: RedisServer, text: str) -> str:
    """Type commands at the prompt of the real `redis-cli`; gives what it answers.

    Raises:
        AssertionError: a command was refused.
    """
    command = [_find_cli(), "-h", LOOPBACK, "-p", str(server.port), "--no-raw"]
    completed = subprocess.run(
        command, input=text, check=True, capture_output=True, text=True, timeout=30
    )
    assert "(error)" not in completed.stdout, f"{text}\n{completed.stdout}"
    return completed.stdout


def _find_cli() -> str:
    found = next(filter(None, map(shutil.which, CLI_PROGRAMS)), None)
    return found or str(Path(find_server()).with_name(CLI_PROGRAMS[0]))
