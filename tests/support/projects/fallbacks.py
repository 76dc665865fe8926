"""What stands in for settings of redbeat, for each way of giving the broker's, as JSON.

Runs with 2.x as well.
"""

import itertools
import json
import logging
import os
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import celery

from redbeat.schedulers import RedBeatConfig

#: The broker's settings, with a value to set first and one to set later.
SETTINGS: dict[str, tuple[Any, Any]] = {
    "broker_url": ("redis://a.invalid/0", "redis://b.invalid/0"),
    "broker_transport_options": ({"socket_timeout": 1}, {"socket_timeout": 2}),
    "broker_use_ssl": ({"ssl_ca_certs": "a"}, {"ssl_ca_certs": "b"}),
}


def make_app(**options: Any) -> Any:
    return celery.Celery("proj", set_as_current=False, **options)


def given(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Applications with this setting, each with the way in which they were given it."""
    app = make_app()
    app.conf.update({name: value})
    yield "update", app
    yield "constructor", make_app(**{name.lower(): value})
    yield "changes", make_app(changes={name: value})
    yield "config_source", make_app(config_source={name: value})
    module = types.ModuleType(f"settings_{name}")
    setattr(module, name, value)
    sys.modules[module.__name__] = module
    for how, source in {
        "dict": {name: value},
        "object": type("Settings", (), {name: value}),
        "module": module.__name__,
    }.items():
        app = make_app()
        app.config_from_object(source)
        yield how, app
    for namespace, key in itertools.product(("CELERY", "celery"), (f"CELERY_{name}", name)):
        app = make_app()
        source = {key.upper() if namespace.isupper() else key.lower(): value}
        app.config_from_object(source, namespace=namespace)
        yield f"namespace {namespace}, {key}", app
    app = make_app()
    app.add_defaults({name: value})
    yield "defaults", app
    app = make_app()
    app.add_defaults(lambda: {name: value})
    yield "later defaults", app


def applications() -> Iterator[tuple[str, Any]]:
    """As above, and each changed afterwards, in either spelling, before and after it was read."""
    for name, (first, second) in SETTINGS.items():
        for spelled in (name, name.upper()):
            for how, app in given(spelled, first):
                yield f"{spelled}, {how}", app
            for later, is_read in itertools.product((name, name.upper()), (False, True)):
                for how, app in given(spelled, first):
                    if is_read:
                        app.conf.get("timezone")
                    app.conf[later] = second
                    yield f"{spelled}, {how}, read: {is_read}, then {later}", app


def describe(app: Any) -> list[Any]:
    try:
        conf = RedBeatConfig(app)
    except celery.exceptions.ImproperlyConfigured as exc:
        return [type(exc).__name__]
    return [conf.redis_url, conf.redbeat_redis_options, conf.redis_use_ssl]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    os.environ["CELERY_BROKER_URL"] = "redis://environment.invalid/0"
    print(json.dumps([celery.__version__, {how: describe(app) for how, app in applications()}]))
