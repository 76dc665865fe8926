"""celery-redbeat 2.x in a virtual environment of its own."""

import fcntl
import subprocess
import sys
from pathlib import Path

VERSION = "2.4.2"
REQUIREMENTS = ["celery[redis]", f"celery-redbeat=={VERSION}"]


def peer_python(cache: Path) -> str:
    """The interpreter of an environment with the peer, made once and kept in `cache`."""
    python = f"python-{sys.version_info.major}.{sys.version_info.minor}"
    directory = cache / f"celery-redbeat-{VERSION}-{python}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            _build(directory)
    return str(directory / "bin" / "python")


def _build(directory: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    python = directory / "bin" / "python"
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    subprocess.run([python, *install, *REQUIREMENTS], check=True)
    (directory / "complete").touch()
