"""Warnings about settings are in beat's log, which is set up after they are read."""

from pathlib import Path
from typing import Any

import pytest

from support.programs import MakeProject
from support.waiting import wait_until

#: Settings that are warned of, and the words that the log has for each.
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "fallbacks": (
        {"redbeat_redis_url": None, "broker_transport_options": {"visibility_timeout": 3600}},
        [
            "redbeat_redis_url is not set, so redbeat uses broker_url",
            "redbeat_redis_options is not set, so redbeat uses broker_transport_options",
        ],
    ),
    "TLS that is not used": (
        {"redbeat_redis_use_ssl": True},
        ["the connection to Redis is not encrypted"],
    ),
    "misspelled, ignored, text": (
        {
            "redbeat_redis_ur": "redis://nowhere.invalid",
            "redbeat_redis_options": {"visibility_timeout": 3600},
            "redbeat_redis_use_ssl": "yes",
        },
        [
            "There is no setting redbeat_redis_ur, so it has no effect. "
            "Did you mean redbeat_redis_url?",
            "does not know these options in redbeat_redis_options: visibility_timeout.",
            "redbeat_redis_use_ssl is text, and has no effect",
        ],
    ),
}


def wait_for_lead(log: Path) -> list[str]:
    """The lines of a log once beat leads: what it says of its settings comes before that."""

    def leads() -> bool:
        return log.exists() and "beat: Acquired lock" in log.read_text()

    wait_until(leads, 30, "beat to lead")
    return log.read_text().splitlines()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("program", ["beat", "worker"])
def test_warnings_about_settings_are_in_the_log_of_beat_once(
    make_project: MakeProject, case: str, program: str
) -> None:
    """In its file, of `celery beat` and of a worker with beat inside."""
    settings, expected = CASES[case]
    project = make_project(**settings)
    log = project.directory / "celery.log"
    if program == "beat":
        project.beat("-f", str(log))
    else:
        project.worker("-B", "--scheduler", "redbeat.RedBeatScheduler", "-f", str(log))
    lines = wait_for_lead(log)
    for words in expected:
        # Where the log is set up by then, it has Python's own warnings as well.
        (line,) = [line for line in lines if words in line and "UserWarning:" not in line]
        assert "WARNING" in line


def test_a_setting_that_is_replaced_by_its_default_is_in_the_log_of_beat(
    make_project: MakeProject,
) -> None:
    """Although the settings are read before there is a log."""
    project = make_project(redbeat_key_expiry_check="loud")
    log = project.directory / "celery.log"
    project.beat("-f", str(log))
    told = "redbeat_key_expiry_check must be one of ignore, warn, error, raise, got 'loud'"
    assert sum(told in line for line in wait_for_lead(log)) == 1


def test_warnings_about_settings_are_on_the_screen_with_the_other_lines(
    make_project: MakeProject,
) -> None:
    """With a time and a level, as all that beat logs."""
    settings, expected = CASES["fallbacks"]
    beat = make_project(**settings).beat()
    beat.wait_for_line("beat: Acquired lock")
    for words in expected:
        logged = [line for line in beat.log.splitlines() if words in line and "WARNING/" in line]
        assert len(logged) == 1
