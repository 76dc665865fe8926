"""Celery's own programs as processes, on a project in a directory of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.waiting import wait_until

RUNS_KEY = "runs"

PROJECT = """
import redis
from celery import Celery

app = Celery({main!r})
app.conf.update({settings!r})


@app.task(name="proj.record")
def record(text, **kwargs):
    with redis.Redis.from_url(app.conf.broker_url) as client:
        client.rpush({runs_key!r}, text)


@app.task(name="proj.add")
def add(x, y):
    return x + y
"""


def environment(**variables: str) -> dict[str, str]:
    """That of this process, with more variables, for programs that import what tests write.

    Without bytecode: a module that is rewritten within a second, at the same length, passes for
    the one that it was compiled from. Without a buffer: a log has what a killed program printed.
    """
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return os.environ | settings | variables


class Program:
    """A running process whose output goes to a file.

    Args:
        arguments: The command line.
        directory: Where the process works; Celery finds the project there.
        log_path: The file that takes both output streams.
        variables: The whole environment; by default what `environment` gives.
    """

    def __init__(
        self,
        arguments: list[str],
        directory: Path,
        log_path: Path,
        variables: dict[str, str] | None = None,
    ) -> None:
        self._log_path = log_path
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                arguments,
                cwd=directory,
                env=variables or environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process; its children are in the process group of the same number."""
        return self._process.pid

    @property
    def log(self) -> str:
        """All output so far."""
        return self._log_path.read_text(errors="replace")

    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def wait_for_line(self, pattern: str, timeout: float = 30) -> str:
        """The first line of output in which `pattern` (a regular expression) is found."""
        wait_until(lambda: self._find_line(pattern) or not self.is_running(), timeout, pattern)
        line = self._find_line(pattern)
        assert line, f"the program ended without {pattern!r}:\n{self.log}"
        return line

    def wait_for_exit(self, timeout: float = 30) -> int:
        """The exit status of a process that ends without a signal from the test."""
        return self._process.wait(timeout)

    def terminate(self, timeout: float = 30) -> int:
        """Ask the process to end, as a service manager does; gives its exit status."""
        self._process.terminate()
        return self._process.wait(timeout)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, and do not wait."""
        self._process.send_signal(number)

    def interrupt(self, timeout: float = 30) -> int:
        """Ask the process to end, as Ctrl-C does; gives its exit status."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout)

    def kill(self) -> None:
        """End the process and its children where they stand."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Hold the process and its children."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def _find_line(self, pattern: str) -> str:
        return next(filter(re.compile(pattern).search, self.log.splitlines()), "")


class Project:
    """A directory with a module `proj.py` that holds a Celery application and its tasks.

    Args:
        directory: An empty directory.
        main: The name of the application; its module and its tasks are those of `proj`.
        settings: The Celery settings; they must survive `repr`.
    """

    def __init__(self, directory: Path, main: str | None = "proj", **settings: Any) -> None:
        self.directory = directory
        self.main = main
        self._programs: list[Program] = []
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """Rewrite the module; programs that start later see it."""
        self.settings = settings
        source = PROJECT.format(main=self.main, settings=settings, runs_key=RUNS_KEY)
        (self.directory / "proj.py").write_text(source)

    def beat(
        self,
        *options: str,
        scheduler: str = "redbeat.RedBeatScheduler",
        python: str = sys.executable,
        level: str = "info",
        prefix: Sequence[str] = (),
    ) -> Program:
        """Start `celery beat`, which waits for nobody's pid file; `prefix` is what starts it."""
        arguments = ("beat", "-S", scheduler, "-l", level, "--pidfile=", *options)
        return self._start(python, *arguments, prefix=prefix)

    def quiet_beat(self) -> Program:
        """Start `celery --quiet beat`, whose banner does not ask the broker's transport."""
        arguments = ("--quiet", "beat", "-S", "redbeat.RedBeatScheduler", "-l", "info")
        return self._start(sys.executable, *arguments, "--pidfile=")

    def worker(self, *options: str) -> Program:
        """Start `celery worker` with one process for the tasks."""
        return self._start(sys.executable, "worker", "-l", "info", "-c", "1", *options)

    def redbeat(self, *arguments: str) -> Program:
        """Start a command of ours."""
        return self._start(sys.executable, "redbeat", *arguments)

    def script(self, source: str, python: str = sys.executable) -> str:
        """Run Python code that may import from `proj`; gives what it prints."""
        completed = subprocess.run(
            [python, "-c", source],
            cwd=self.directory,
            env=environment(),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        return completed.stdout

    def close(self) -> None:
        """End all that still runs."""
        for program in self._programs:
            program.kill()

    def _start(self, python: str, *arguments: str, prefix: Sequence[str] = ()) -> Program:
        name = arguments[0].lstrip("-")
        log_path = self.directory / f"{name}-{len(self._programs)}.log"
        command = [*prefix, python, "-m", "celery", "-A", "proj", *arguments]
        self._programs.append(Program(command, self.directory, log_path))
        return self._programs[-1]


MakeProject = Callable[..., Project]
