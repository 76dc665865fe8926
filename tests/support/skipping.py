"""Tests on a machine that lacks a server."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from support.servers import ServerNotFoundError

#: Whether a test that finds no server fails, where it would be skipped.
STRICT = bool(os.environ.get("REDBEAT_TEST_STRICT"))


@contextlib.contextmanager
def skipping_without_server() -> Iterator[None]:
    """Skip the test if what it needs is not on this machine, or let it fail in strict mode."""
    try:
        yield
    except ServerNotFoundError as error:
        if STRICT:
            raise
        pytest.skip(str(error))
