"""The errors of the package: one small tree, each also the class that callers already catch."""

from __future__ import annotations

import click
from celery.exceptions import ImproperlyConfigured


class RedBeatError(Exception):
    """The root of all errors that this package raises itself."""


class SettingError(
    RedBeatError,
    ImproperlyConfigured,  # type: ignore[misc]  # Celery has no types
    ValueError,
    click.ClickException,
):
    """A setting has a value that cannot work; the message names the setting and the mend.

    The ``celery`` program, which is made with click, prints it as one line.
    """

    def __init__(self, message: str) -> None:
        click.ClickException.__init__(self, message)


class EntryError(RedBeatError, TypeError, ValueError):
    """An entry cannot be stored or built; the message names the entry and the argument."""


class BeatInitError(RedBeatError, AttributeError):
    """A scheduler with a lock was ticked although its ``beat_init`` hook never ran."""


class RedBeatKeyExpiryError(RedBeatError, RuntimeError):
    """The Redis server may evict the schedule (``redbeat_key_expiry_check = 'raise'``)."""


class UnsupportedServerError(RedBeatError, RuntimeError, click.ClickException):
    """The Redis server is too old; the message names its version and the lowest that will do.

    The ``celery`` program prints it as one line.
    """

    def __init__(self, message: str) -> None:
        click.ClickException.__init__(self, message)
