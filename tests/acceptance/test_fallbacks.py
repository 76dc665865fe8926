"""The broker's settings are the default in the same way as in 2.x, so no schedule moves."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.programs import environment

SCRIPT = Path(__file__).parent.parent / "support" / "projects" / "fallbacks.py"


def fallbacks(python: str) -> tuple[str, dict[str, list[Any]]]:
    """The version of Celery, and what stands in for each way of giving settings."""
    child = subprocess.run(
        [python, SCRIPT],
        check=True,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    version, found = json.loads(child.stdout)
    return version, found


def test_the_schedule_is_where_2x_keeps_it_however_the_broker_was_configured(peer: str) -> None:
    """`CELERY_BROKER_URL` is set, and names the server only where 2.x finds no URL."""
    version, ours = fallbacks(sys.executable)
    peer_version, expected = fallbacks(peer)
    if version != peer_version:
        pytest.skip(f"2.x runs on Celery {peer_version}, and this is {version}")
    assert len(expected) > 300
    for values in expected.values():
        values[0] = values[0] or "redis://environment.invalid/0"
    assert ours == expected
