"""`celery -A proj redbeat`, run to its end in a project."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from support.programs import Project

Completed = subprocess.CompletedProcess[str]
Run = Callable[..., Completed]


def command(*arguments: str) -> list[str]:
    """The command line of a command of ours."""
    return [sys.executable, "-m", "celery", "-A", "proj", "redbeat", *arguments]


def run_in(project: Project, *arguments: str, **options: Any) -> Completed:
    """Run a command of ours; gives what it printed and its exit code."""
    return subprocess.run(
        command(*arguments),
        cwd=project.directory,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def good(completed: Completed) -> str:
    """What a command printed that went well."""
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def error_of(completed: Completed, code: int) -> str:
    """The one line that a command ended with."""
    assert completed.returncode == code, completed.stdout + completed.stderr
    return completed.stderr.splitlines()[-1]
