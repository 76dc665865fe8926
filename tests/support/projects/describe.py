"""What redbeat makes of an application's settings, with all that it warns of, as JSON."""

import importlib
import json
import logging
import sys
import warnings
from typing import Any

from redbeat.schedulers import RedBeatConfig


class Recorder(logging.Handler):
    """Keeps the messages that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.messages.append(record.getMessage())


def describe(app: Any) -> dict[str, Any]:
    """The attributes of the application's `RedBeatConfig`, the warnings and the log."""
    recorder, log = Recorder(), logging.getLogger("celery.beat")
    log.addHandler(recorder)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            conf = RedBeatConfig(app)
    finally:
        log.removeHandler(recorder)
    attributes = {name: value for name, value in vars(conf).items() if name != "app"}
    return {
        "attributes": attributes,
        "schedule": sorted(conf.schedule),
        "warnings": [[each.category.__name__, str(each.message)] for each in caught],
        "log": recorder.messages,
    }


if __name__ == "__main__":
    module, name = sys.argv[1].split(":")
    print(json.dumps(describe(getattr(importlib.import_module(module), name))))
