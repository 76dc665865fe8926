"""Waiting for a condition, with a deadline: the only way in which a test lets time pass."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_INTERVAL = 0.02


def wait_until(
    condition: Callable[[], T], timeout: float = 10.0, message: str = "the condition"
) -> T:
    """Return the first true value of `condition`.

    Args:
        condition: Called until its result is true.
        timeout: Seconds until the wait is given up.
        message: What is waited for; the error says it.

    Raises:
        TimeoutError: The condition was still false at the deadline.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain for {message}")
        time.sleep(POLL_INTERVAL)
