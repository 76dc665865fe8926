"""Programs that patch the interpreter, and installations that lack something."""

import pytest
import redis

from support.messages import read_messages
from support.programs import MakeProject
from support.waiting import wait_until

STATIC = {"each-second": {"task": "proj.add", "schedule": 1, "args": [1, 2]}}

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", PATCHES)
@pytest.mark.parametrize("way", ["terminate", "interrupt"])
def test_a_beat_patched_by_gevent_or_eventlet_exits_with_0(
    make_project: MakeProject,
    redis_client: redis.Redis,
    broker: redis.Redis,
    library: str,
    way: str,
) -> None:
    """Its signal handler runs in an event loop, which must not block."""
    project = make_project(beat_schedule=STATIC, beat_max_loop_interval=None)
    module = project.directory / "proj.py"
    module.write_text(f"{PATCHES[library]}\n{module.read_text()}")
    beat = project.beat()
    wait_until(lambda: len(read_messages(broker)) > 1, 30, "two runs")
    assert getattr(beat, way)() == 0
    assert not redis_client.exists("redbeat::lock")
    assert "Traceback" not in beat.log


def test_a_standby_patched_by_gevent_exits_with_0(
    make_project: MakeProject, redis_client: redis.Redis
) -> None:
    redis_client.set("redbeat::lock", "another")
    project = make_project()
    module = project.directory / "proj.py"
    module.write_text(f"{PATCHES['gevent']}\n{module.read_text()}")
    beat = project.beat()
    beat.wait_for_line("Waiting for the lock")
    assert beat.terminate() == 0


@pytest.mark.parametrize(
    ("broker_url", "told"),
    [
        ("mongodb://localhost/db", r"'mongodb'.*pymongo.*pip install \"kombu\[mongodb\]\""),
        ("consul://localhost", r"'consul'.*pip install \"kombu\[consul\]\""),
        ("nonsense://localhost", "No such transport: nonsense"),
    ],
)
def test_a_transport_that_cannot_be_imported_ends_beat(
    make_project: MakeProject, broker_url: str, told: str
) -> None:
    """This is not a temporary outage: the last line says what to install."""
    beat = make_project(broker_url=broker_url).quiet_beat()
    assert beat.wait_for_exit() == 1
    assert beat.wait_for_line(f"Error: .*{told}")
    assert "trying again" not in beat.log
