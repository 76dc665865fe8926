"""celery-redbeat 2.x in a virtual environment of its own."""

import fcntl
import subprocess
import sys
from pathlib import Path

VERSION = "2.4.2"
REQUIREMENTS = ["celery[redis]", f"celery-redbeat=={VERSION}"]

# Where this package is found by the variable, the peer would find it in place of 2.x.
PROGRAM = """#!/bin/sh
unset PYTHONPATH
exec "{python}" "$@"
"""


def peer_python(cache: Path) -> str:
    """A program that runs the interpreter of an environment with the peer.

    The environment is made once and kept in `cache`.
    """
    version = f"python-{sys.version_info.major}.{sys.version_info.minor}"
    directory = cache / f"celery-redbeat-{VERSION}-{version}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            _build(directory)
        program = directory / "peer"
        if not program.exists():
            program.write_text(PROGRAM.format(python=directory / "bin" / "python"))
            program.chmod(0o755)
    return str(program)


def _build(directory: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    python = directory / "bin" / "python"
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    subprocess.run([python, *install, *REQUIREMENTS], check=True)
    (directory / "complete").touch()
