"""The settings: where they are read from, their fallbacks, what is refused."""

import logging
import ssl
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from redbeat import RedBeatScheduler
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


def test_options_of_the_broker_stand_in_with_their_own_warning() -> None:
    """They are marked as inherited: not all of them mean the same to us."""
    with pytest.warns(DeprecationWarning, match="redbeat_redis_options"):
        conf = config(broker_transport_options={"visibility_timeout": 3}, **URL)
    assert conf.redbeat_redis_options == {"visibility_timeout": 3}
    assert conf.options_are_inherited


def test_our_own_options_win_even_if_they_are_empty() -> None:
    """An empty dict is a value, so nothing is inherited, without a warning."""
    conf = config(
        redbeat_redis_options={}, broker_transport_options={"visibility_timeout": 3}, **URL
    )
    assert conf.redbeat_redis_options == {}


def test_ssl_options_of_the_broker_stand_in() -> None:
    """Silently: the broker's certificates usually serve both."""
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
    """An explicit ``None`` is not the same as no setting."""
    assert config(redbeat_lock_key=key, **URL).lock_key == expected


def test_upper_case_settings_give_the_same_configuration() -> None:
    """Old configurations are written that way."""
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
    """Django projects prefix all settings with ``CELERY_``."""

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
    """Old code does so."""
    conf = config(redbeat_lock_timeout=7, **URL)
    with pytest.warns(UserWarning, match="REDBEAT_LOCK_TIMEOUT"):
        assert conf.either_or("REDBEAT_LOCK_TIMEOUT") == 7
    assert conf.either_or("redbeat_no_such_thing", 3) == 3


def test_an_explicit_none_is_a_value() -> None:
    """Only what is not set has the default."""
    conf = config(redbeat_of_somebody_else=None, **URL)
    assert conf.either_or("redbeat_of_somebody_else", 3) is None


def test_defaults_given_before_the_configuration_is_loaded_survive() -> None:
    """The prefix is the first key that is read; set-ups of 2.x rely on it."""
    read: list[str] = []

    class Conf(dict[str, Any]):
        def first(self, *names: str) -> Any:
            read.append(names[0])
            return "redis://schedule.invalid/0" if "url" in names[0] else None

        broker_use_ssl = broker_transport_options = None

    RedBeatConfig(SimpleNamespace(conf=Conf()))
    assert read[0] == "redbeat_key_prefix"


@pytest.mark.parametrize("mode", ["IGNORE", "Warn", "error", "raise"])
def test_the_expiry_check_may_be_written_in_any_case(mode: str) -> None:
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
        ("redbeat_lock_timeout", True),
        ("redbeat_lock_timeout", float("nan")),
        ("redbeat_key_prefix", 5),
        ("redbeat_lock_key", 5),
        ("redbeat_redis_options", ["a"]),
        ("redbeat_redis_use_ssl", 2),
        ("redbeat_claim_timeout", -3),
        ("redbeat_batch_size", 0),
        ("redbeat_batch_size", 1.5),
        ("redbeat_identify_runs", "yes"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    """The error says which setting, what it must be, and what it got."""
    with pytest.raises(SettingError, match=f"{name} must be .*, got ") as error:
        config(**URL, **{name: value})
    assert isinstance(error.value, (RedBeatError, ValueError))


BROKER = {
    "BROKER_URL": ("redis://a.invalid", "redis://b.invalid"),
    "BROKER_TRANSPORT_OPTIONS": ({"a": 1}, {"b": 2}),
    "BROKER_USE_SSL": ({"ssl_ca_certs": "a"}, {"ssl_ca_certs": "b"}),
}


def fallbacks(app: Celery) -> tuple[Any, Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        conf = RedBeatConfig(app)
    return conf.redis_url, conf.redbeat_redis_options, conf.redis_use_ssl


FIRST, SECOND = (tuple(values[index] for values in BROKER.values()) for index in (0, 1))


@pytest.fixture
def url_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that Celery's property ``broker_url`` prefers to any setting."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://environment.invalid")


@pytest.mark.usefixtures("url_in_environment")
@pytest.mark.parametrize("spell", [str.lower, str.upper], ids=["lower", "UPPER"])
@pytest.mark.parametrize(
    "give",
    [
        lambda app, settings: app.conf.update(settings),
        lambda app, settings: app.config_from_object(settings),
        lambda app, settings: app.config_from_object(type("Settings", (), settings)),
        lambda app, settings: app.add_defaults(settings),
        lambda app, settings: app.add_defaults(lambda: settings),
    ],
    ids=["update", "dict", "object", "defaults", "later defaults"],
)
def test_what_is_configured_for_the_broker_stands_in_and_not_the_environment(
    give: Any, spell: Any
) -> None:
    """In any spelling, however it was given: a schedule must not move with a variable."""
    app = Celery("proj", set_as_current=False)
    give(app, {spell(name): values[0] for name, values in BROKER.items()})
    assert fallbacks(app) == FIRST


@pytest.mark.usefixtures("url_in_environment")
def test_a_broker_that_the_constructor_or_a_namespace_names_stands_in() -> None:
    """Before the environment, too."""
    app = Celery("proj", broker="redis://a.invalid", set_as_current=False)
    assert fallbacks(app)[0] == "redis://a.invalid"
    app = Celery("proj", set_as_current=False)
    given = {f"CELERY_{name}": values[0] for name, values in BROKER.items()}
    app.config_from_object(type("Settings", (), given), namespace="CELERY")
    assert fallbacks(app) == FIRST


@pytest.mark.usefixtures("url_in_environment")
@pytest.mark.parametrize("is_read_between", [False, True], ids=["pending", "read"])
@pytest.mark.parametrize("source", [dict, lambda settings: type("Settings", (), settings)])
def test_the_broker_that_was_set_last_stands_in(source: Any, is_read_between: bool) -> None:
    """A change after the configuration was given wins, whether or not it had been read."""
    app = Celery("proj", set_as_current=False)
    app.config_from_object(source({name.lower(): values[0] for name, values in BROKER.items()}))
    if is_read_between:
        assert app.conf.timezone is None
    app.conf.update({name: values[1] for name, values in BROKER.items()})
    assert fallbacks(app) == SECOND


@pytest.mark.usefixtures("url_in_environment")
@pytest.mark.parametrize("settings", [{}, {"broker_url": None}, {"broker_url": ""}])
def test_the_environment_names_the_broker_where_no_setting_does(settings: dict[str, Any]) -> None:
    """As in Celery."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(settings)
    assert fallbacks(app)[0] == "redis://environment.invalid"


def test_tls_options_set_to_none_are_not_inherited() -> None:
    """As in 2.x, an explicit ``None`` means no."""
    conf = config(**URL, redbeat_redis_use_ssl=None, broker_use_ssl={"ssl_ca_certs": "ca.pem"})
    assert (conf.redis_use_ssl, conf.ssl_is_inherited) == (False, False)


@pytest.mark.parametrize(
    ("value", "meant"), [(0, False), (1, True), (False, False), (True, True), ({}, {})]
)
def test_numbers_say_whether_to_use_tls(value: Any, meant: Any) -> None:
    """An environment variable is often read as one."""
    assert config(**URL, redbeat_redis_use_ssl=value).redis_use_ssl == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("true", True),
        ("True", True),
        (" FALSE ", False),
        ("required", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("None", {"ssl_cert_reqs": ssl.CERT_NONE}),
    ],
)
def test_four_words_say_whether_to_use_tls_with_a_warning(
    text: str, meant: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """In Python and in the log."""
    with pytest.warns(UserWarning, match=f"is read as '{text.strip().lower()}'"):
        assert config(**URL, redbeat_redis_use_ssl=text).redis_use_ssl == meant
    assert "redbeat_redis_use_ssl is text" in caplog.text


@pytest.mark.parametrize("text", ["", "hunter2", "yes", "optional"])
def test_other_text_has_no_effect_on_tls_except_a_warning(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in 2.x; the setting of the broker does not count either. The text may be a password."""
    with pytest.warns(UserWarning, match="redbeat_redis_use_ssl is text, and has no effect"):
        conf = config(
            **URL, redbeat_redis_use_ssl=text, broker_use_ssl={"ssl_certfile": "broker.pem"}
        )
    assert conf.redis_use_ssl is False
    assert "has no effect" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("nothing", [0, 0.0, False, ""])
def test_an_empty_lock_timeout_means_the_default(nothing: Any) -> None:
    """As in 2.x."""
    assert config(**URL, redbeat_lock_timeout=nothing).lock_timeout is None


def make_scheduler(configured: Any, **arguments: Any) -> RedBeatScheduler:
    app = Celery("proj", set_as_current=False)
    settings = {"redbeat_lock_key": None, "redbeat_key_expiry_check": "ignore"}
    app.conf.update(URL | settings | {"redbeat_lock_timeout": configured})
    return RedBeatScheduler(app, lazy=True, **arguments)


@pytest.mark.parametrize("value", ["soon", -1, 0.01])
def test_a_lock_timeout_is_not_checked_without_a_lock(value: Any) -> None:
    """Nothing uses it; the scheduler has its default."""
    assert make_scheduler(value).lock_timeout == 1500
    with pytest.raises(SettingError, match="redbeat_lock_timeout must be"):
        make_scheduler(value, lock_key="redbeat:mine")


@pytest.mark.parametrize("nothing", [None, 0])
def test_an_empty_lock_timeout_argument_means_the_setting(nothing: Any) -> None:
    """The setting also counts for a lock key that is assigned later."""
    assert make_scheduler(70, lock_timeout=nothing).lock_timeout == 70
    assert make_scheduler(0, lock_timeout=nothing).lock_timeout == 1500


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("redbeat_redis_ur", "redbeat_redis_url"),
        ("redbeat_poll_intervall", "redbeat_poll_interval"),
        ("REDBEAT_LOCKKEY", "redbeat_lock_key. Here it is written REDBEAT_LOCK_KEY"),
        ("REDBEAT_PREFIX", "redbeat_key_prefix. Here it is written REDBEAT_KEY_PREFIX"),
        ("redbeat_redis_ssl", "redbeat_redis_use_ssl"),
        ("redbeat_Redis_Options", "redbeat_redis_options"),
    ],
)
def test_the_warning_of_a_misspelled_setting_names_the_right_one(
    key: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In Python and in the log; its value is not shown."""
    expected = f"no setting {key}, .* Did you mean {meant.replace('. Here', '[?] Here')}"
    with pytest.warns(UserWarning, match=expected):
        config(**URL, **{key: "hunter2"})
    assert key in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("namespace", "key", "spelled"),
    [
        ("CELERY", "CELERY_REDBEAT_REDIS_UR", "CELERY_REDBEAT_REDIS_URL"),
        ("CELERY", "CELERY_redbeat_redis_url", "CELERY_REDBEAT_REDIS_URL"),
        ("celery_", "celery_redbeat_redis_ur", "celery_redbeat_redis_url"),
        ("CELERY", "REDBEAT_REDIS_UR", "REDBEAT_REDIS_URL"),
    ],
)
def test_a_misspelled_setting_is_found_under_a_namespace(
    namespace: str, key: str, spelled: str
) -> None:
    """The suggestion is the key that works there, namespace included."""
    app = Celery("proj", set_as_current=False)
    settings = {
        f"{namespace.rstrip('_')}_BROKER_URL": "redis://b.invalid",
        key: "redis://s.invalid",
    }
    app.config_from_object(type("Settings", (), settings), namespace=namespace)
    with (
        pytest.warns(DeprecationWarning, match="redbeat_redis_url"),
        pytest.warns(UserWarning, match=f"no setting {key}.*redbeat_redis_url.*written {spelled}"),
    ):
        RedBeatConfig(app)


@pytest.mark.parametrize(
    "name",
    [
        "redbeat_heartbeat_file",
        "redbeat_web_url",
        "redbeat_redis_db",
        "redbeat_redis_password",
        "redbeat_enabled",
        "redbeat_",
        "redbeat",
        "redis_ur",
        "my_redbeat_redis_ur",
    ],
)
def test_settings_of_others_do_not_count_as_misspelled(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Extensions have their own settings, and configurations have other keys."""
    app = Celery("proj", set_as_current=False)
    app.conf.update({**URL, name: 1})
    RedBeatConfig(app)
    assert not caplog.records


def test_the_schedule_is_that_of_the_application() -> None:
    """Reading and writing go to ``beat_schedule``."""
    conf = config(beat_schedule={"a": {}}, **URL)
    assert conf.schedule == {"a": {}}
    conf.schedule = {"b": {}}
    assert conf.app.conf.beat_schedule == {"b": {}}


def test_the_configuration_is_made_once() -> None:
    """It is kept as ``app.redbeat_conf``."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(URL)
    conf = ensure_conf(app)
    assert conf is ensure_conf(app) is app.redbeat_conf


def test_any_url_is_accepted_until_a_client_is_made_from_it() -> None:
    """``get_redis`` finds out whether it can be used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert config(broker_url="amqp://broker.invalid").redis_url == "amqp://broker.invalid"
        assert config().redis_url is None


@pytest.mark.parametrize("name", ["redbeat_redis_options", "redbeat_redis_use_ssl"])
def test_the_refusal_of_a_setting_that_may_hold_a_password_does_not_quote_it(name: str) -> None:
    """It names only the type."""
    with pytest.raises(SettingError, match=name) as error:
        config(**(URL | {name: [("password", "hunter2")]}))
    assert "hunter2" not in str(error.value)
