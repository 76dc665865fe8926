"""The scheduler patched on the class, as error trackers do."""

from typing import Any

from redbeat import RedBeatScheduler

from .witness import note

_maybe_due = RedBeatScheduler.maybe_due
_apply_async = RedBeatScheduler.apply_async


def traced_maybe_due(*args: Any, **kwargs: Any) -> Any:
    """Give each run a header."""
    _, entry = args
    headers = entry.options.pop("headers", {})
    headers["monitor"] = "traced"
    entry.options["headers"] = headers
    return _maybe_due(*args, **kwargs)


def traced_apply_async(*args: Any, **kwargs: Any) -> Any:
    """Count each run that is sent."""
    _, entry = args
    note("sent", entry.name)
    return _apply_async(*args, **kwargs)


# Patching is the point.
RedBeatScheduler.maybe_due = traced_maybe_due  # type: ignore[method-assign]
RedBeatScheduler.apply_async = traced_apply_async  # type: ignore[method-assign]
