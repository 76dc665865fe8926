"""The settings: where they are read from, what stands in for them, what is refused."""

import logging
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from redbeat.errors import RedBeatError, SettingError
from redbeat.schedulers import RedBeatConfig, ensure_conf

URL = {"redbeat_redis_url": "redis://schedule.invalid/0"}


def config(**settings: Any) -> RedBeatConfig:
    app = Celery("proj", set_as_current=False)
    app.conf.update(settings)
    return RedBeatConfig(app)


def test_the_defaults_are_those_of_the_contract() -> None:
    """Nothing but the URL needs to be set."""
    conf = config(**URL)
    assert conf.redis_url == "redis://schedule.invalid/0"
    assert conf.key_prefix == "redbeat:"
    assert conf.schedule_key == "redbeat::schedule"
    assert conf.channel == "redbeat::changed"
    assert conf.statics_key == "redbeat::statics"
    assert conf.lock_key == "redbeat::lock"
    assert conf.lock_timeout is None
    assert conf.redis_use_ssl is False
    assert conf.redbeat_redis_options == {}
    assert conf.key_expiry_check == "error"


def test_the_broker_stands_in_for_a_missing_url_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warning names the setting to add, in Python and in the log."""
    with pytest.warns(DeprecationWarning, match="redbeat_redis_url"):
        conf = config(broker_url="redis://broker.invalid")
    assert conf.redis_url == "redis://broker.invalid"
    assert "redbeat_redis_url" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_options_of_the_broker_stand_in_with_a_warning_of_their_own() -> None:
    """They are marked as inherited, for not all of them mean the same to us."""
    with pytest.warns(DeprecationWarning, match="redbeat_redis_options"):
        conf = config(broker_transport_options={"visibility_timeout": 3}, **URL)
    assert conf.redbeat_redis_options == {"visibility_timeout": 3}
    assert conf.options_are_inherited


def test_options_of_our_own_win_even_when_they_are_empty() -> None:
    """An empty dict is an answer, so nothing is inherited and nothing warned of."""
    conf = config(
        redbeat_redis_options={}, broker_transport_options={"visibility_timeout": 3}, **URL
    )
    assert conf.redbeat_redis_options == {}


def test_ssl_options_of_the_broker_stand_in() -> None:
    """Silently, as the broker's certificates mostly serve both."""
    assert config(broker_use_ssl={"ssl_ca_certs": "ca.pem"}, **URL).redis_use_ssl == {
        "ssl_ca_certs": "ca.pem"
    }


@pytest.mark.parametrize(
    ("key", "expected"),
    [("mine", "redbeat:mine"), ("redbeat:mine", "redbeat:mine"), (None, None), ("", None)],
)
def test_the_lock_key_gets_the_prefix_and_none_disables_it(
    key: str | None, expected: str | None
) -> None:
    """An explicit `None` is not the same as no setting."""
    assert config(redbeat_lock_key=key, **URL).lock_key == expected


def test_upper_case_settings_give_the_same_configuration() -> None:
    """Configurations of old are written that way."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(
        REDBEAT_REDIS_URL="redis://schedule.invalid/0",
        REDBEAT_KEY_PREFIX="p:",
        REDBEAT_LOCK_KEY=None,
        REDBEAT_LOCK_TIMEOUT=7,
    )
    conf = RedBeatConfig(app)
    assert (conf.key_prefix, conf.lock_key, conf.lock_timeout) == ("p:", None, 7)


def test_a_namespace_gives_the_same_configuration() -> None:
    """Django projects prefix all settings with `CELERY_`."""

    class Settings:
        CELERY_REDBEAT_REDIS_URL = "redis://schedule.invalid/0"
        CELERY_REDBEAT_KEY_PREFIX = "p:"
        CELERY_REDBEAT_LOCK_KEY = None
        CELERY_REDBEAT_LOCK_TIMEOUT = 7

    app = Celery("proj", set_as_current=False)
    app.config_from_object(Settings, namespace="CELERY")
    conf = RedBeatConfig(app)
    assert (conf.key_prefix, conf.lock_key, conf.lock_timeout) == ("p:", None, 7)


def test_asking_for_an_upper_case_name_warns_and_answers() -> None:
    """Code of old does so."""
    conf = config(redbeat_lock_timeout=7, **URL)
    with pytest.warns(UserWarning, match="REDBEAT_LOCK_TIMEOUT"):
        assert conf.either_or("REDBEAT_LOCK_TIMEOUT") == 7
    assert conf.either_or("redbeat_no_such_thing", 3) == 3


def test_none_that_is_set_is_a_value() -> None:
    """Only what is not set has the default."""
    conf = config(redbeat_of_somebody_else=None, **URL)
    assert conf.either_or("redbeat_of_somebody_else", 3) is None


def test_defaults_given_before_the_configuration_is_loaded_survive() -> None:
    """The prefix is the first key that is read, as set-ups of 2.x rely on."""
    read: list[str] = []

    class Conf(dict[str, Any]):
        def first(self, *names: str) -> Any:
            read.append(names[0])
            return "redis://schedule.invalid/0" if "url" in names[0] else None

        broker_use_ssl = broker_transport_options = None

    RedBeatConfig(SimpleNamespace(conf=Conf()))
    assert read[0] == "redbeat_key_prefix"


@pytest.mark.parametrize("mode", ["IGNORE", "Warn", "error", "raise"])
def test_the_expiry_check_is_spelled_in_any_case(mode: str) -> None:
    """All four modes are known."""
    assert config(redbeat_key_expiry_check=mode, **URL).key_expiry_check == mode.lower()


def test_an_unknown_expiry_check_warns_and_means_the_default() -> None:
    """The warning quotes the value."""
    with pytest.warns(UserWarning, match="'loud'"):
        conf = config(redbeat_key_expiry_check="loud", **URL)
    assert conf.key_expiry_check == "error"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redbeat_lock_timeout", "soon"),
        ("redbeat_lock_timeout", -1),
        ("redbeat_lock_timeout", 0),
        ("redbeat_lock_timeout", True),
        ("redbeat_lock_timeout", float("nan")),
        ("redbeat_key_prefix", 5),
        ("redbeat_lock_key", 5),
        ("redbeat_redis_options", ["a"]),
        ("redbeat_redis_use_ssl", "yes"),
        ("redbeat_claim_timeout", -3),
        ("redbeat_batch_size", 0),
        ("redbeat_batch_size", 1.5),
    ],
)
def test_a_bad_value_is_refused_by_its_name(name: str, value: Any) -> None:
    """The error says which setting, what it must be, and what it got."""
    with pytest.raises(SettingError, match=f"{name} must be .*, got ") as error:
        config(**URL, **{name: value})
    assert isinstance(error.value, (RedBeatError, ValueError))


def test_the_schedule_is_that_of_the_application() -> None:
    """Reading and writing go to `beat_schedule`."""
    conf = config(beat_schedule={"a": {}}, **URL)
    assert conf.schedule == {"a": {}}
    conf.schedule = {"b": {}}
    assert conf.app.conf.beat_schedule == {"b": {}}


def test_the_configuration_is_made_once() -> None:
    """It is kept as `app.redbeat_conf`."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(URL)
    conf = ensure_conf(app)
    assert conf is ensure_conf(app) is app.redbeat_conf


def test_no_url_is_refused_before_a_client_is_made_from_it() -> None:
    """Whether it can be used shows in `get_redis`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert config(broker_url="amqp://broker.invalid").redis_url == "amqp://broker.invalid"
        assert config().redis_url is None


@pytest.mark.parametrize("name", ["redbeat_redis_options", "redbeat_redis_use_ssl"])
def test_a_refused_setting_that_may_hold_a_password_is_not_quoted(name: str) -> None:
    """Only its type is."""
    with pytest.raises(SettingError, match=name) as error:
        config(**(URL | {name: [("password", "hunter2")]}))
    assert "hunter2" not in str(error.value)
