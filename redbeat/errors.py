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
    """A setting has a value that cannot work; the message names the setting and says what to do.

    The ``celery`` program, which is made with click, prints it as one line.
    """

    def __init__(self, message: str) -> None:
        click.ClickException.__init__(self, message)


class EntryError(RedBeatError, TypeError, ValueError):
    """An entry cannot be stored or built; the message names the entry and the argument."""


class MissingEntryError(RedBeatError, KeyError):
    """There is no entry at the key; the first argument is the key, as with any ``KeyError``."""

    def __init__(self, key: str | bytes, prefix: str) -> None:
        super().__init__(key)
        self.key = key
        self.prefix = prefix

    def __str__(self) -> str:
        name = self.key if isinstance(self.key, str) else self.key.decode("utf-8", "replace")
        if name.startswith(self.prefix):
            return repr(self.key)
        return f"{self.key!r}: no such key. Did you mean {self.prefix + name!r}?"

    def __reduce__(self) -> tuple[type[MissingEntryError], tuple[str | bytes, str]]:
        return type(self), (self.key, self.prefix)


class BeatInitError(RedBeatError, AttributeError):
    """A scheduler with a lock was ticked although its ``beat_init`` hook never ran."""


class RedBeatKeyExpiryError(RedBeatError, RuntimeError):
    """The Redis server may evict the schedule (``redbeat_key_expiry_check = 'raise'``)."""


class UnsupportedServerError(RedBeatError, RuntimeError, click.ClickException):
    """The Redis server is too old; the message names its version and the lowest supported one.

    The ``celery`` program prints it as one line.
    """

    def __init__(self, message: str) -> None:
        click.ClickException.__init__(self, message)
