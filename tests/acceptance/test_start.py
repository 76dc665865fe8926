"""A real beat that starts while Redis is away."""

import pytest
import redis

from support.messages import read_messages
from support.programs import MakeProject
from support.servers import StartRedis
from support.waiting import wait_until

STATIC = {"static": {"task": "proj.add", "schedule": 1, "args": [1, 2]}}


@pytest.mark.parametrize("options", [{}, {"max_connections": 1}, {"cluster": True}])
def test_beat_logs_single_lines_while_redis_is_unavailable_and_starts_once_it_is_there(
    make_project: MakeProject,
    start_redis: StartRedis,
    broker: redis.Redis,
    options: dict[str, object],
) -> None:
    """No traceback, and one line from the hook."""
    server = start_redis()
    server.stop()
    project = make_project(
        beat_schedule=STATIC, redbeat_redis_url=server.url(), redbeat_redis_options=options
    )
    beat = project.beat()
    beat.wait_for_line("Nothing is lost; trying again")
    assert "Traceback" not in beat.log
    assert "Signal handler" not in beat.log
    assert beat.log.count("This beat stands by and tries again") == 1
    if "cluster" not in options:
        server.start()
        wait_until(lambda: read_messages(broker), 30, "a run")
    assert beat.terminate() == 0
    assert "Traceback" not in beat.log
