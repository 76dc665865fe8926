"""Commands on a terminal of their own, as a person runs them."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SIZE = os.terminal_size((80, 50))


class Shown(NamedTuple):
    """What a command wrote to its terminal, and its exit code."""

    text: str
    code: int


def run_on_a_terminal(
    command: list[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
    *,
    size: os.terminal_size = SIZE,
    timeout: float = 60,
) -> Shown:
    """Run a command to its end; it is killed after `timeout` seconds."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", size.lines, size.columns, 0, 0))
    with subprocess.Popen(
        command, cwd=directory, env=environment, stdin=its, stdout=its, stderr=its
    ) as program:
        os.close(its)
        ends = threading.Timer(timeout, program.kill)
        ends.start()
        output = b"".join(iter(lambda: _read(ours), b""))
        code = program.wait()
        ends.cancel()
    os.close(ours)
    return Shown(output.decode(), code)


def _read(terminal: int) -> bytes:
    """What was written next, nothing at the end: Linux then says that the terminal has gone."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
