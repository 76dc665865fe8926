"""Schedulers, what they send, and each topology in turn with an application on it."""

from collections.abc import Iterator

import pytest
from celery import Celery

from redbeat import RedBeatScheduler
from support.apps import MakeApp
from support.sent import Sent, take_down_sent
from support.servers import RedisServer
from support.skipping import skipping_without_server
from support.topologies import TOPOLOGIES, StartTopology, Topology, running_topologies

BROKER_DB = 1


@pytest.fixture
def scheduler(client_app: Celery) -> RedBeatScheduler:
    """A scheduler without a lock, on each kind of storage in turn."""
    client_app.conf.redbeat_lock_key = None
    return RedBeatScheduler(client_app)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The tasks that schedulers have sent, in order; no broker gets them."""
    return take_down_sent(monkeypatch)


@pytest.fixture(scope="session")
def start_shared_topology(
    server_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartTopology]:
    """Start a topology for all tests of this process: `start_shared_topology("sentinel")`."""
    with running_topologies(tmp_path_factory.mktemp("topologies")) as start:
        yield start


@pytest.fixture(scope="session", params=TOPOLOGIES)
def shared_topology(
    request: pytest.FixtureRequest, start_shared_topology: StartTopology
) -> Topology:
    """Each topology in turn, on Debian's programs or those that `REDBEAT_TEST_SERVER` names."""
    name: str = request.param
    with skipping_without_server():
        return start_shared_topology(name)


@pytest.fixture
def topology(shared_topology: Topology) -> Topology:
    """Each topology in turn, empty."""
    shared_topology.empty()
    return shared_topology


@pytest.fixture
def make_topology_app(
    make_app_with: MakeApp, topology: Topology, redis_server: RedisServer
) -> MakeApp:
    """Make an application that keeps its schedule on the topology, and its queue elsewhere."""

    def make(**settings: object) -> Celery:
        broker_url = redis_server.url(BROKER_DB)
        return make_app_with(**{"broker_url": broker_url, **topology.settings, **settings})

    return make


@pytest.fixture
def topology_app(make_topology_app: MakeApp) -> Celery:
    """An application that keeps its schedule on the topology."""
    return make_topology_app()
