"""What a workload says to the benchmark, and hears from it."""

import json
import sys
from typing import Any

READY = "ready"


def read_job() -> dict[str, Any]:
    """What the benchmark has ordered."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    return job


def await_start() -> None:
    """Tell the benchmark that all is prepared, and wait for its word."""
    print(READY, flush=True)
    sys.stdin.readline()


def report(**figures: Any) -> None:
    """Hand over what was measured."""
    print(json.dumps(figures), flush=True)
