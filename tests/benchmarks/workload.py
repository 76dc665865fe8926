"""A process that does what is measured."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.workloads.stage import READY

TESTS = Path(__file__).parents[1]


class WorkloadError(Exception):
    """A workload ended without its figures; what it wrote to its error stream says why."""


class Workload:
    """A module of `benchmarks.workloads`, run by an interpreter; it is ready when it is made.

    Args:
        python: The interpreter, whose environment holds the package that is measured.
        module: The name of the module.
        counter: A command that runs another one and counts something, in parts.
        job: What it is to do; passed on as JSON.
    """

    def __init__(self, python: str, module: str, *counter: str, **job: Any) -> None:
        self._process = subprocess.Popen(
            [*counter, python, "-m", f"benchmarks.workloads.{module}", json.dumps(job)],
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if counter else None,
            text=True,
        )
        try:
            self._expect(READY)
        except BaseException:
            self._end()
            raise

    def start(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("start\n")
        self._process.stdin.flush()

    def figures(self) -> dict[str, Any]:
        """Wait for what it measured."""
        figures: dict[str, Any] = json.loads(self._read())
        return figures

    def finish(self) -> str:
        """Wait until it has ended; what it and its counter wrote to the error stream."""
        _, errors = self._process.communicate()
        return errors or ""

    def __enter__(self) -> "Workload":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _expect(self, word: str) -> None:
        line = self._read()
        if line != word:
            raise WorkloadError(f"expected {word!r}, got {line!r}")

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkloadError(f"exit status {self._process.wait()}")
        return line.strip()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


def measure(python: str, module: str, **job: Any) -> dict[str, Any]:
    """Start a workload at once; gives its figures."""
    with Workload(python, module, **job) as workload:
        workload.start()
        return workload.figures()
