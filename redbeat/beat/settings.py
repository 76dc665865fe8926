"""The settings: the table that declares them, and how they are read from Celery's configuration."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from celery.app import app_or_default
from celery.utils.log import get_logger

from ..checks import DEFAULT_KEY_EXPIRY_CHECK, KEY_EXPIRY_CHECK_MODES
from ..errors import EntryError
from ..store.keys import OwnKeys
from ..store.options import Setting, is_a, is_positive

logger = get_logger("celery.beat")


def _seconds(name: str, default: float | None, meaning: str, at_least: float = 0) -> Setting:
    limit = f", {at_least} or more" if at_least else ""
    return Setting(
        name,
        default,
        f"a positive number of seconds{limit}",
        lambda value: is_positive(value) and value >= at_least,
        meaning,
    )


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(
            "redbeat_redis_url",
            None,
            "text",
            is_a(object),
            "URL of the Redis that keeps the schedule; default: broker_url.",
        ),
        Setting(
            "redbeat_redis_options",
            None,
            "a dict",
            is_a(Mapping),
            "Options for the Redis client, and our own; default: broker_transport_options.",
            is_secret=True,
        ),
        Setting(
            "redbeat_redis_use_ssl",
            None,
            "True, False or a dict of ssl_* options",
            # Environment variables are often read as numbers.
            lambda value: isinstance(value, (bool, Mapping)) or value in (0, 1),
            "TLS options for rediss:// URLs; default: broker_use_ssl.",
            is_secret=True,
        ),
        Setting("redbeat_key_prefix", "redbeat:", "text", is_a(str), "What every key starts with."),
        Setting(
            "redbeat_lock_key",
            ":lock",
            "text, or None for no lock",
            is_a(str),
            "The key of the leader's lock, after the prefix; None: beats share the work.",
        ),
        _seconds(
            "redbeat_lock_timeout",
            None,
            "Time to live of the lock; None or 0: five times the longest sleep between ticks.",
            at_least=0.1,
        ),
        Setting(
            "redbeat_key_expiry_check",
            DEFAULT_KEY_EXPIRY_CHECK,
            f"one of {', '.join(KEY_EXPIRY_CHECK_MODES)}",
            is_a(object),
            "What to do if Redis may evict the schedule.",
        ),
        _seconds(
            "redbeat_failover_timeout",
            15,
            "How long a leader may be silent before a standby takes over.",
        ),
        _seconds(
            "redbeat_stall_timeout",
            60,
            "How long a leader's main thread may hang before it gives up the lead.",
        ),
        Setting(
            "redbeat_exit_when_stalled",
            True,
            "True or False",
            is_a(bool),
            "Whether a beat whose main thread hangs exits if no other beat takes over.",
        ),
        _seconds(
            "redbeat_poll_interval",
            5,
            "How soon a sleeping beat notices a change that was not announced to it.",
        ),
        _seconds(
            "redbeat_claim_timeout",
            30,
            "How long a beat may hold a due entry before another may run it.",
            at_least=0.1,
        ),
        Setting(
            "redbeat_batch_size",
            500,
            "a positive whole number",
            lambda value: isinstance(value, int) and is_positive(value),
            "How many due entries, at most, are claimed, published and committed together.",
        ),
        Setting(
            "redbeat_identify_runs",
            False,
            "True or False",
            is_a(bool),
            "Whether a run has a task id and headers that follow from its entry and its slot.",
        ),
    )
}

#: What text means as ``redbeat_redis_use_ssl``; any other has no effect.
USE_SSL_IN_TEXT: dict[str, bool | dict[str, Any]] = {
    "true": True,
    "false": False,
    "required": {"ssl_cert_reqs": ssl.CERT_REQUIRED},
    "none": {"ssl_cert_reqs": ssl.CERT_NONE},
}

#: What the names of all our settings start with.
OWN_PREFIX = "redbeat_"

#: Two names at least this much alike (0 to 1) may be the same one, misspelled.
LIKENESS = 0.75


class Settings:
    """The settings of one application, read once.

    Warns, in Python and in the log, where a setting of the broker is used instead of one of ours,
    and of settings that have no effect.

    Raises:
        SettingError: A value cannot work. The message names the setting.
    """

    def __init__(self, app: Any = None) -> None:
        self.app = app_or_default(app)
        self._unlogged: list[str] = []
        # Read first of all keys: Celery swaps a pending configuration in at the first.
        self.key_prefix: str = self._read("redbeat_key_prefix")
        self.schedule_key = f"{self.key_prefix}:schedule"
        self.statics_key = f"{self.key_prefix}:statics"
        self.reports_key = f"{self.key_prefix}:reports"
        self.zone_key = f"{self.key_prefix}:zone"
        self.failing_key = f"{self.key_prefix}:failing"
        self.lost_key = f"{self.key_prefix}:lost"
        self.channel = f"{self.key_prefix}:changed"
        self.redis_url: Any = self._read("redbeat_redis_url")
        if self.redis_url is None:
            self.redis_url = self._read_of_broker("broker_url")
            self._warn_of_fallback("redbeat_redis_url", "broker_url")
        #: Whether TLS was set up for the broker and not for the schedule.
        self.ssl_is_inherited = not self.is_key_in_conf("redbeat_redis_use_ssl")
        self.redis_use_ssl: Any = self._read_use_ssl()
        options = self._read("redbeat_redis_options")
        #: Whether the options were set for the broker and not for the schedule.
        self.options_are_inherited = options is None
        if options is None:
            options = self._read_of_broker("broker_transport_options") or {}
            if options:
                self._warn_of_fallback("redbeat_redis_options", "broker_transport_options")
        self.redbeat_redis_options: dict[str, Any] = options
        self.lock_key = self._read_lock_key()
        # Checked only if there is a lock; 0 is the default.
        lock_timeout: float | None = self.either_or("redbeat_lock_timeout") or None
        if self.lock_key is not None:
            SETTINGS["redbeat_lock_timeout"].check(lock_timeout)
        self.lock_timeout = lock_timeout
        self.key_expiry_check = self._read_key_expiry_check()
        self.failover_timeout: float = self._read("redbeat_failover_timeout")
        self.stall_timeout: float = self._read("redbeat_stall_timeout")
        self.exit_when_stalled: bool = self._read("redbeat_exit_when_stalled")
        self.poll_interval: float = self._read("redbeat_poll_interval")
        self.claim_timeout: float = self._read("redbeat_claim_timeout")
        self.batch_size: int = self._read("redbeat_batch_size")
        self.identify_runs: bool = self._read("redbeat_identify_runs")
        self._warn_of_misspelled()

    @property
    def own_keys(self) -> OwnKeys:
        """The keys of this schedule in Redis that are not entries."""
        return OwnKeys.of(self)

    @property
    def options_are_namespaced(self) -> bool:
        """Whether ``redbeat_redis_options`` was set under Celery's namespace only."""
        return not {"redbeat_redis_options", "REDBEAT_REDIS_OPTIONS"}.intersection(self.app.conf)

    def refuse_own_key(self, name: str, key: str) -> None:
        """Raise :exc:`~redbeat.errors.EntryError` if the key of the entry ``name`` is ours."""
        if key in self.own_keys:
            raise EntryError(
                f"Entry {name!r} can be neither stored nor removed: its key would be {key}, which "
                "redbeat itself uses. Choose another name."
            )

    def usable_lock_timeout(self, lock_key: str | None) -> float | None:
        """The timeout of the lock at ``lock_key``; without a lock, a bad value counts as none."""
        setting = SETTINGS["redbeat_lock_timeout"]
        if lock_key:
            setting.check(self.lock_timeout)
        return self.lock_timeout if setting.accepts(self.lock_timeout) else None

    @property
    def schedule(self) -> dict[str, Any]:
        """``app.conf.beat_schedule``, read and written there."""
        schedule: dict[str, Any] = self.app.conf.beat_schedule
        return schedule

    @schedule.setter
    def schedule(self, value: dict[str, Any]) -> None:
        self.app.conf.beat_schedule = value

    def either_or(self, name: str, default: Any = None) -> Any:
        """The value under ``name`` in lower or upper case, else ``default``."""
        if name == name.upper():
            warnings.warn(
                f"{name} is how Celery 3 spelled this setting; write {name.lower()}",
                UserWarning,
                stacklevel=2,
            )
        value = self.app.conf.first(name.lower(), name.upper())
        return value if value is not None or self.is_key_in_conf(name) else default

    def is_key_in_conf(self, name: str) -> bool:
        """Whether ``name`` is set in lower or upper case, even if to ``None``."""
        return name.lower() in self.app.conf or name.upper() in self.app.conf

    def warn(
        self, message: str, category: type[Warning] = UserWarning, is_logged: bool = True
    ) -> None:
        """Warn in Python and in the log; :meth:`repeat_warnings` logs what was too early for it.

        Python's warning names the caller of the caller's caller as its place.
        """
        warnings.warn(message, category, stacklevel=4)
        if is_logged:
            self.log(message)
        if not self._is_logging_set_up:
            self._unlogged.append(message)

    def repeat_warnings(self) -> None:
        """Log again the warnings from before Celery had set up the log of this process."""
        if self._is_logging_set_up:
            unlogged, self._unlogged = self._unlogged, []
            for message in unlogged:
                self.log(message)

    def log(self, message: str) -> None:
        """Log a warning."""
        logger.warning("beat: %s", message)

    @property
    def _is_logging_set_up(self) -> bool:
        # Making `app.log` would fix the formats of the configuration too early.
        return bool(getattr(vars(self.app).get("log"), "already_setup", False))

    def _read(self, name: str) -> Any:
        setting, value = SETTINGS[name], self.either_or(name)
        return setting.default if value is None else setting.check(value)

    def _read_of_broker(self, name: str) -> Any:
        """What is configured for the broker, as 2.x reads it: the old name finds either spelling.

        The property of this name is read only if nothing is configured: that of the URL follows
        an environment variable, and the schedule must not move with it.
        """
        configured = self.app.conf.get(name.upper())
        return getattr(self.app.conf, name) if configured in (None, "") else configured

    def _warn_of_fallback(self, name: str, fallback: str) -> None:
        message = f"{name} is not set, so redbeat uses {fallback}. Set {name}."
        self.warn(message, DeprecationWarning)

    def _read_use_ssl(self) -> Any:
        if self.ssl_is_inherited:
            return self._read_of_broker("broker_use_ssl") or False
        setting = SETTINGS["redbeat_redis_use_ssl"]
        value = self.either_or(setting.name)
        if not isinstance(value, str):
            return False if value is None else setting.check(value)
        word = value.strip().lower()
        # Any other word may be a password.
        effect = f"is read as {word!r}" if word in USE_SSL_IN_TEXT else "has no effect"
        message = f"{setting.name} is text, and {effect}. Set it to {setting.type}."
        self.warn(message)
        return USE_SSL_IN_TEXT.get(word, False)

    def _read_lock_key(self) -> str | None:
        setting = SETTINGS["redbeat_lock_key"]
        key: str | None = setting.check(self.either_or(setting.name))
        if key:
            return key if key.startswith(self.key_prefix) else self.key_prefix + key
        # An empty key, as from an unset environment variable, is no lock in 2.x.
        is_set = self.is_key_in_conf(setting.name)
        return None if is_set else f"{self.key_prefix}{setting.default}"

    def _read_key_expiry_check(self) -> str:
        setting = SETTINGS["redbeat_key_expiry_check"]
        value = self._read(setting.name)
        mode = str(value).lower()
        if mode in KEY_EXPIRY_CHECK_MODES:
            return mode
        message = (
            f"redbeat_key_expiry_check must be {setting.type}, got {value!r}; "
            f"using {DEFAULT_KEY_EXPIRY_CHECK!r}"
        )
        self.warn(message, is_logged=False)
        return DEFAULT_KEY_EXPIRY_CHECK

    def _warn_of_misspelled(self) -> None:
        """Warn of settings that resemble one of ours, but have no effect."""
        namespace = (getattr(self.app.conf, "prefix", None) or "").lower()
        for key in sorted(key for key in self.app.conf if isinstance(key, str)):
            name = key.lower().removeprefix(namespace)
            meant = _meant(name)
            # Celery finds names that are all lower or all upper case, and no others.
            if meant is None or (meant == name and self.is_key_in_conf(name)):
                continue
            spelled = (key[: len(key) - len(name)] + meant).lower()
            spelled = spelled.upper() if key[0].isupper() else spelled
            hint = "" if spelled == meant else f" Here it is written {spelled}."
            message = f"There is no setting {key}, so it has no effect. Did you mean {meant}?"
            self.warn(message + hint)


def _meant(name: str) -> str | None:
    """The setting with this name, else one much like it, if there is one."""
    if name in SETTINGS:
        return name
    if not name.startswith(OWN_PREFIX):
        return None
    # The prefix, which all settings have, would make any two of them alike.
    names = [setting.removeprefix(OWN_PREFIX) for setting in SETTINGS]
    alike = get_close_matches(name.removeprefix(OWN_PREFIX), names, 1, LIKENESS)
    return OWN_PREFIX + alike[0] if alike else None


def application_name(app: Any) -> str:
    """The name by which others on the same prefix know an application; empty if it has none."""
    return "" if app.main in (None, "__main__") else str(app.main)
