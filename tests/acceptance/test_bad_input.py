"""Messages of a beat that cannot start say what is wrong and where, and never a password."""

import re

import pytest

from support.ports import LOOPBACK, free_port
from support.programs import MakeProject, Program
from support.servers import StartRedis

PASSWORD = "hunter2-is-secret"


def assert_says(beat: Program, pattern: str) -> None:
    """One line of the log says so, and no password appears anywhere.

    If a `beat_init` hook fails, Celery adds the traceback of that hook; there must be no other.
    """
    beat.wait_for_line(rf"(ERROR|CRITICAL)/MainProcess\].*{pattern}")
    beat.kill()
    assert PASSWORD not in beat.log
    assert beat.log.count("Traceback") <= 1
    assert "redis/connection.py" not in beat.log


def test_an_unreachable_redis_is_named(make_project: MakeProject) -> None:
    """Nothing listens there; the message has the address."""
    port = free_port()
    project = make_project(redbeat_redis_url=f"redis://:{PASSWORD}@{LOOPBACK}:{port}/0")
    assert_says(project.beat(), rf"\b{port}\b")


@pytest.mark.parametrize("password", [PASSWORD, ""])
def test_a_wrong_or_missing_password_is_named(
    make_project: MakeProject, start_redis: StartRedis, password: str
) -> None:
    """The message says so, and which server it is."""
    server = start_redis(requirepass="right")
    credentials = f":{password}@" if password else ""
    project = make_project(redbeat_redis_url=f"redis://{credentials}{LOOPBACK}:{server.port}/0")
    assert_says(project.beat(), rf"(?=.*(?i:password|auth)).*\b{server.port}\b")


def test_an_unknown_scheduler_is_named(make_project: MakeProject) -> None:
    """Beat ends with an error that repeats the name given with `-S`."""
    beat = make_project().beat(scheduler="nosuch")
    assert beat.wait_for_exit() != 0
    assert re.search("nosuch", beat.log)


def test_a_broker_other_than_redis_needs_redbeat_redis_url(make_project: MakeProject) -> None:
    """Without `redbeat_redis_url` the message names that setting, and beat ends with an error."""
    broker_url = f"amqp://user:{PASSWORD}@{LOOPBACK}:{free_port()}//"
    beat = make_project(broker_url=broker_url, redbeat_redis_url=None).beat()
    assert beat.wait_for_exit() != 0
    assert re.search(r"^Error: redbeat_redis_url must be .* Set redbeat_redis_url", beat.log, re.M)
    assert PASSWORD not in beat.log
    assert "Traceback" not in beat.log
