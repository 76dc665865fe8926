"""Settings that Celery looks up for each message: found at once, and the same as before."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app.utils import Settings

from redbeat.beat.publishing import LOOKED_UP_PER_MESSAGE, settle_settings
from support.apps import make_app

MANY = 10


def application(settings: dict[str, Any], namespace: str | None = None) -> Celery:
    """One whose configuration has been read, as that of a beat that starts."""
    app = Celery("proj", set_as_current=False)
    app.config_from_object(SimpleNamespace(**settings), namespace=namespace)
    assert app.conf.task_protocol
    return app


@pytest.mark.parametrize(
    "app",
    [
        application({}),
        application({"task_default_queue": "mine", "task_always_eager": False}),
        application({"CELERY_DEFAULT_QUEUE": "mine", "CELERY_SEND_TASK_SENT_EVENT": True}),
        application({"CELERY_TASK_DEFAULT_QUEUE": "mine"}, namespace="CELERY"),
    ],
    ids=["defaults", "new names", "old names", "a namespace"],
)
def test_settled_settings_have_the_values_that_they_had(app: Celery) -> None:
    """In whatever style the application wrote them."""
    before = {name: app.conf.get(name) for name in LOOKED_UP_PER_MESSAGE}
    settle_settings(app.conf)
    assert {name: app.conf.get(name) for name in LOOKED_UP_PER_MESSAGE} == before
    assert before.items() <= {**dict.fromkeys(before), **app.conf.changes}.items()


def test_a_setting_that_is_set_later_counts() -> None:
    """Settling is no freezing."""
    app = application({"task_default_queue": "mine"})
    settle_settings(app.conf)
    app.conf.task_default_queue = "yours"
    assert app.conf.task_default_queue == "yours"


def test_an_old_name_that_is_set_later_counts_no_more() -> None:
    """The limit of it: Celery finds the new name first."""
    app = application({"task_default_queue": "mine"})
    settle_settings(app.conf)
    app.conf.CELERY_DEFAULT_QUEUE = "yours"
    assert app.conf.task_default_queue == "mine"


def test_a_setting_that_this_version_of_celery_does_not_know_is_left_alone() -> None:
    """Nothing makes it up."""
    conf = {"task_default_queue": "mine"}
    settle_settings(conf)
    assert conf == {"task_default_queue": "mine"}


def test_what_celery_looks_up_for_each_message_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that asks for one more setting would pay for it, so it is to join the list."""
    app = make_app()
    look_up = Settings.__getitem__
    asked: Counter[str] = Counter()

    def counting(conf: Settings, name: str) -> Any:
        asked[name] += 1
        return look_up(conf, name)

    monkeypatch.setattr(Settings, "__getitem__", counting)
    with app.producer_pool.acquire() as producer:
        app.send_task("first", producer=producer)
        asked.clear()
        for _ in range(MANY):
            app.send_task("another", producer=producer)
    per_message = {name for name, times in asked.items() if times >= MANY}
    assert "task_always_eager" in per_message
    assert per_message <= {*LOOKED_UP_PER_MESSAGE}
