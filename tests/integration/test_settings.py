"""Settings, wherever they come from: plain Celery, Django, a Flask application factory."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import get_redis
from support.apps import disconnect
from support.programs import Program
from support.projects.describe import describe
from support.projects.flask_factory import create_app
from support.servers import RedisServer

PROJECTS = Path(__file__).parent.parent / "support" / "projects"

#: The settings that ``django_project/settings.py`` has as well.
SETTINGS: dict[str, Any] = {
    "result_expires": None,
    "beat_schedule": {"hello": {"task": "tasks.hello", "schedule": 1}},
    "broker_url": "redis://broker.invalid:6379/1",
    "broker_transport_options": {"visibility_timeout": 3},
    "redbeat_key_prefix": "mine:",
    "redbeat_lock_key": "leader",
    "redbeat_lock_timeout": 70,
    "redbeat_key_expiry_check": "loud",
    "redbeat_claim_timeout": 20,
}

#: The names in Celery 3 that are not just the upper case of today's.
OLD_NAMES = {"beat_schedule": "CELERYBEAT_SCHEDULE", "result_expires": "CELERY_TASK_RESULT_EXPIRES"}

Make = Callable[[dict[str, Any]], Celery]


def as_object(settings: dict[str, Any]) -> Any:
    return type("Settings", (), settings)


def with_prefix(settings: dict[str, Any]) -> dict[str, Any]:
    return {f"CELERY_{name.upper()}": value for name, value in settings.items()}


def in_old_spelling(settings: dict[str, Any]) -> dict[str, Any]:
    return {OLD_NAMES.get(name, name.upper()): value for name, value in settings.items()}


def configured(source: Any, namespace: str | None = None) -> Celery:
    app = Celery("proj", set_as_current=False)
    app.config_from_object(source, namespace=namespace)
    return app


def updated(settings: dict[str, Any]) -> Celery:
    app = Celery("proj", set_as_current=False)
    app.conf.update(settings)
    return app


def updated_in_upper_case(settings: dict[str, Any]) -> Celery:
    """Only our own settings: Celery's are lower case there."""
    return updated(
        {
            name.upper() if name.startswith("redbeat_") else name: value
            for name, value in settings.items()
        }
    )


def of_flask(settings: dict[str, Any]) -> Celery:
    app: Celery = create_app(settings).extensions["celery"]
    return app


FORMS: dict[str, Make] = {
    "app.conf, upper case": updated_in_upper_case,
    "a dict": configured,
    "an object": lambda settings: configured(as_object(settings)),
    "an object of Celery 3": lambda settings: configured(as_object(in_old_spelling(settings))),
    "a namespace": lambda settings: configured(as_object(with_prefix(settings)), "CELERY"),
    "a dict with a namespace": lambda settings: configured(with_prefix(settings), "CELERY"),
    "config_source": lambda settings: Celery("proj", set_as_current=False, config_source=settings),
    "a Flask application factory": of_flask,
}

CASES: dict[str, dict[str, Any]] = {
    "inherited from the broker": SETTINGS,
    "set for redbeat": SETTINGS
    | {
        "redbeat_redis_url": "rediss://schedule.invalid/2",
        "redbeat_redis_options": {"socket_timeout": 5},
        "redbeat_redis_use_ssl": {"ssl_ca_certs": "ca.pem"},
        "redbeat_key_expiry_check": "WARN",
        "redbeat_failover_timeout": 8,
        "redbeat_stall_timeout": 40,
        "redbeat_poll_interval": 2,
        "redbeat_batch_size": 7,
    },
    "without a lock": SETTINGS | {"redbeat_lock_key": None},
    "empty": {"broker_url": "redis://broker.invalid", "redbeat_redis_options": {}},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_settings_gives_the_same_configuration_and_warnings(
    form: str, case: str
) -> None:
    """The same as ``app.conf`` in lower case."""
    assert describe(FORMS[form](CASES[case])) == describe(updated(CASES[case]))


def test_the_cases_are_not_all_the_same() -> None:
    """The first warns of two fallbacks and an unknown mode, each once."""
    inherited, own, no_lock, _ = (describe(updated(case)) for case in CASES.values())
    assert [category for category, _ in inherited["warnings"]] == [
        "DeprecationWarning",
        "DeprecationWarning",
        "UserWarning",
    ]
    assert len(inherited["log"]) == 2
    assert own["warnings"] == []
    assert own["attributes"]["redis_url"] == "rediss://schedule.invalid/2"
    assert own["attributes"]["batch_size"] == 7
    assert no_lock["attributes"]["lock_key"] is None


def test_a_django_project_gives_the_same_configuration_and_warnings() -> None:
    """In its own process: Django has one configuration per process."""
    child = subprocess.run(
        [sys.executable, "-m", "describe", "django_project:celery_app"],
        cwd=PROJECTS,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(child.stdout) == describe(updated(SETTINGS))


def test_beat_runs_the_schedule_of_a_django_project(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Celery's own command, and set up as in Celery's guide for Django."""
    monkeypatch.setenv("BROKER_URL", redis_server.url())
    celery = [sys.executable, "-m", "celery", "-A", "django_project", "beat", "-l", "info"]
    beat = Program(
        [*celery, "-S", "redbeat.RedBeatScheduler", "--pidfile="], PROJECTS, tmp_path / "log"
    )
    try:
        beat.wait_for_line("Scheduler: Sending due task hello")
        with contextlib.closing(redis_server.client()) as client:
            assert client.exists("mine:hello", "mine:leader") == 2
    finally:
        beat.kill()


def test_entries_are_saved_by_a_flask_application(redis_server: RedisServer) -> None:
    """Two applications of one factory do not share a client."""
    flasks = [
        create_app(
            {
                "broker_url": "memory://",
                "redbeat_redis_url": redis_server.url(db),
                "redbeat_redis_options": {},
            }
        )
        for db in (1, 2)
    ]
    for number, flask in enumerate(flasks, 1):
        with flask.app_context():
            app = flask.extensions["celery"]
            RedBeatSchedulerEntry(f"entry-{number}", "tasks.hello", 60, app=app).save()
            disconnect(get_redis(app))
    for number in (1, 2):
        with contextlib.closing(redis_server.client(number)) as client:
            assert client.zrange("redbeat::schedule", 0, -1) == [f"redbeat:entry-{number}"]
