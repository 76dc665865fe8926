"""Fixtures for tests of the real programs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from support.peer import peer_python
from support.ports import free_port
from support.programs import MakeProject, Project
from support.servers import RedisServer
from support.skipping import skipping_without_server
from support.topologies import StartTopology, Topology, running_topologies

BROKER_DB = 1


@pytest.fixture
def make_project(tmp_path: Path, redis_server: RedisServer) -> Iterator[MakeProject]:
    """Write a project, with a broker beside the schedule: `make_project(**settings)`.

    A second one in a test has a directory of its own: `make_project("other", **settings)`.
    """
    defaults: dict[str, Any] = {
        "broker_url": redis_server.url(BROKER_DB),
        "redbeat_redis_url": redis_server.url(),
        "broker_connection_retry_on_startup": True,
        "beat_max_loop_interval": 1,
        "redbeat_lock_timeout": 5,
    }
    with contextlib.ExitStack() as stack:

        def make(directory_name: str = "project", **settings: Any) -> Project:
            directory = tmp_path / directory_name
            directory.mkdir()
            return stack.enter_context(
                contextlib.closing(Project(directory, **(defaults | settings)))
            )

        yield make


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    """A project without a static schedule."""
    return make_project()


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the broker's database."""
    with contextlib.closing(redis_server.client(BROKER_DB)) as client:
        yield client


@pytest.fixture
def unused_port() -> int:
    """A port at which nothing answers."""
    return free_port()


@pytest.fixture(scope="session")
def peer(request: pytest.FixtureRequest) -> str:
    """The Python interpreter of an environment that holds celery-redbeat 2.x."""
    return peer_python(request.config.cache.mkdir("peer"))


@pytest.fixture
def start_topology(server_program: str, tmp_path: Path) -> Iterator[StartTopology]:
    """Start servers of the test's own: `start_topology("sentinel")`; see `TOPOLOGIES`."""
    with running_topologies(tmp_path / "topologies") as start:

        def start_or_skip(name: str) -> Topology:
            with skipping_without_server():
                return start(name)

        yield start_or_skip
