"""Clients: which kind the settings ask for, and how it is made, without a server."""

import copy
import logging
import ssl
import threading
import warnings
from typing import Any
from unittest import mock

import kombu.transport.redis
import pytest
import redis
import redis.cluster
import redis.sentinel
from celery import Celery
from kombu.transport.redis import SentinelChannel

from redbeat import RedBeatScheduler
from redbeat.errors import SettingError
from redbeat.schedulers import (
    RetryingConnection,
    get_redis,
    get_storage,
)
from redbeat.store.clients import StartupNode, check_options


def make_app(url: str, **settings: Any) -> Celery:
    app = Celery("proj", set_as_current=False)
    app.conf.update({"redbeat_redis_url": url, "redbeat_redis_options": {}} | settings)
    return app


def connection_options(client: Any) -> dict[str, Any]:
    options: dict[str, Any] = client.connection_pool.connection_kwargs
    return options


def test_a_client_is_made_once_and_kept_on_the_application() -> None:
    """Without a round trip: there is no server at this address."""
    app = make_app("redis://redis.invalid:6379/3")
    client = get_redis(app)
    assert client is get_redis(app) is app.redbeat_redis
    assert connection_options(client)["db"] == 3
    assert connection_options(client)["decode_responses"] is True


def test_an_injected_client_is_used_whatever_it_is() -> None:
    """Applications' tests inject fakes."""
    app = make_app("amqp://broker.invalid")
    app.redbeat_redis = injected = object()
    assert get_redis(app) is injected


def test_the_storage_follows_a_client_that_is_injected_later() -> None:
    """Tests swap the client between cases."""
    app = make_app("redis://redis.invalid")
    first = get_storage(app)
    assert get_storage(app) is first
    app.redbeat_redis = other = redis.Redis()
    assert get_storage(app).client is other


def test_a_unix_socket_is_reached_by_its_path() -> None:
    """As redis-py spells it."""
    client = get_redis(make_app("unix:///run/redis.sock?db=2"))
    assert connection_options(client)["path"] == "/run/redis.sock"


def test_tls_verifies_certificates_by_default() -> None:
    """``rediss://`` alone is enough."""
    options = connection_options(get_redis(make_app("rediss://redis.invalid")))
    assert options["ssl_cert_reqs"] == ssl.CERT_REQUIRED


def test_tls_options_are_passed_on() -> None:
    """A dict of redis-py's ``ssl_*`` options, which is not changed."""
    use_ssl = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_keyfile": "key.pem"}
    client = get_redis(make_app("rediss://redis.invalid", redbeat_redis_use_ssl=use_ssl))
    options = connection_options(client)
    assert options["ssl_cert_reqs"] == ssl.CERT_NONE
    assert options["ssl_keyfile"] == "key.pem"
    assert use_ssl == {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_keyfile": "key.pem"}


@pytest.mark.parametrize("value", ["CERT_NONE", "none"])
def test_certificate_checks_may_be_named(value: str) -> None:
    """As Celery's settings name them, or as redis-py does."""
    use_ssl = {"ssl_cert_reqs": value}
    client = get_redis(make_app("rediss://redis.invalid", redbeat_redis_use_ssl=use_ssl))
    assert client.connection_pool.make_connection().cert_reqs == ssl.CERT_NONE


@pytest.mark.parametrize("use_ssl", [True, {"ssl_certfile": "hunter2.pem"}])
@pytest.mark.parametrize("options", [{}, {"cluster": True}], ids=["single", "cluster"])
def test_tls_options_beside_a_url_without_tls_are_warned_of(
    use_ssl: Any, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Once, in Python and in the log: the user believes that the connection is encrypted."""
    app = make_app(
        "redis://:hunter2@redis.invalid",
        redbeat_redis_use_ssl=use_ssl,
        redbeat_redis_options=options,
    )
    with (
        mock.patch("redis.RedisCluster.from_url"),
        pytest.warns(UserWarning, match=r"redbeat_redis_use_ssl.*redbeat_redis_url.*rediss://"),
    ):
        get_redis(app)
    get_redis(app)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "rediss://" in record.getMessage()
    assert "hunter2" not in record.getMessage()


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("redis://redis.invalid", {"broker_use_ssl": True}),
        ("redis://redis.invalid", {"redbeat_redis_use_ssl": False}),
        ("redis://redis.invalid", {"redbeat_redis_use_ssl": {}}),
        ("redis://redis.invalid", {}),
        ("rediss://redis.invalid", {"redbeat_redis_use_ssl": True}),
        ("unix:///run/redis.sock", {"redbeat_redis_use_ssl": True}),
        ("redis+socket:///run/redis.sock", {"redbeat_redis_use_ssl": True}),
    ],
)
def test_tls_that_is_used_or_is_only_the_brokers_is_not_warned_of(
    url: str, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor where nothing leaves the machine."""
    get_redis(make_app(url, **settings))
    assert not caplog.records


def test_options_set_for_us_reach_the_client() -> None:
    """All but our own, and ``decode_responses`` stays true."""
    options = {"socket_timeout": 7, "decode_responses": False, "service_name": "x"}
    client = get_redis(make_app("redis://redis.invalid", redbeat_redis_options=options))
    assert connection_options(client)["socket_timeout"] == 7
    assert connection_options(client)["decode_responses"] is True
    assert "service_name" not in connection_options(client)


def test_options_of_the_broker_do_not_reach_a_single_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They mean something else there; a debug line names them."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(
        redbeat_redis_url="redis://redis.invalid",
        broker_transport_options={"visibility_timeout": 3, "max_retries": 5},
    )
    caplog.set_level(logging.DEBUG, "celery.beat")
    with pytest.warns(DeprecationWarning, match="redbeat_redis_options"):
        client = get_redis(app)
    assert "visibility_timeout" not in connection_options(client)
    assert "max_retries, visibility_timeout" in caplog.text


def test_options_of_the_broker_reach_a_cluster() -> None:
    """A broker on the same cluster has the right ones."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(
        redbeat_redis_url="redis-cluster://", broker_transport_options={"socket_timeout": 3}
    )
    with (
        mock.patch("redis.cluster.RedisCluster") as cluster,
        pytest.warns(DeprecationWarning, match="redbeat_redis_options"),
    ):
        get_redis(app)
    assert cluster.call_args.kwargs["socket_timeout"] == 3


def test_the_cluster_option_makes_a_cluster_client_from_the_url() -> None:
    """The class is looked up when it is called, since people patch it."""
    app = make_app("redis://redis.invalid:7000", redbeat_redis_options={"cluster": True, "a": 1})
    with mock.patch("redis.RedisCluster.from_url") as from_url:
        client = get_redis(app)
    from_url.assert_called_once_with("redis://redis.invalid:7000", decode_responses=True, a=1)
    assert client is from_url.return_value


@pytest.mark.parametrize("port", [7000, "7000"])
def test_startup_nodes_are_both_dicts_and_cluster_nodes(port: str | int) -> None:
    """Applications' tests compare them to dicts; redis-py wants ``ClusterNode``."""
    nodes = [{"host": "127.0.0.1", "port": port}]
    app = make_app("redis-cluster://", redbeat_redis_options={"startup_nodes": nodes})
    with mock.patch("redis.cluster.RedisCluster") as cluster:
        get_redis(app)
    given = cluster.call_args.kwargs["startup_nodes"]
    assert given == [{"host": "127.0.0.1", "port": 7000}]
    assert isinstance(given[0], redis.cluster.ClusterNode)
    assert given[0].name == "127.0.0.1:7000"
    assert nodes == [{"host": "127.0.0.1", "port": port}]


def test_a_cluster_without_startup_nodes_is_looked_for_on_localhost() -> None:
    """The documented default."""
    with mock.patch("redis.cluster.RedisCluster") as cluster:
        get_redis(make_app("redis-cluster://"))
    assert cluster.call_args.kwargs["startup_nodes"] == [{"host": "localhost", "port": 30001}]


def test_startup_nodes_are_hashable_by_their_address() -> None:
    """redis-py puts nodes into sets."""
    assert len({StartupNode("127.0.0.1", 1), StartupNode("127.0.0.1", "1")}) == 1


def test_sentinel_gives_the_master_of_the_service() -> None:
    """Credentials and TLS go to the data nodes, ``sentinel_kwargs`` to the sentinels."""
    app = make_app(
        "redis-sentinel://",
        redbeat_redis_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE},
        redbeat_redis_options={
            "sentinels": [("sentinel.invalid", 26379)],
            "service_name": "schedule",
            "password": "secret",
            "db": 4,
            "socket_timeout": 0.5,
            "sentinel_kwargs": {"password": "other"},
        },
    )
    client = get_redis(app)
    pool = client.connection_pool
    assert isinstance(pool, redis.sentinel.SentinelConnectionPool)
    assert pool.service_name == "schedule"
    assert pool.connection_kwargs["password"] == "secret"
    assert pool.connection_kwargs["ssl_cert_reqs"] == ssl.CERT_NONE
    assert pool.connection_kwargs["decode_responses"] is True
    (sentinel,) = app.redbeat_sentinel.sentinels
    assert connection_options(sentinel)["password"] == "other"


def test_the_master_service_is_called_master_by_default() -> None:
    """As in 2.x."""
    app = make_app(
        "redis-sentinel://", redbeat_redis_options={"sentinels": [("sentinel.invalid", 26379)]}
    )
    assert get_redis(app).connection_pool.service_name == "master"


@pytest.mark.parametrize("scheme", ["sentinel", "redis-sentinel"])
def test_the_url_may_name_the_sentinels(scheme: str) -> None:
    """As in Celery's broker URLs: credentials and database are for the data nodes."""
    app = make_app(
        f"{scheme}://me:p%40ss@a.invalid:1/3;{scheme}://b.invalid",
        redbeat_redis_options={"master_name": "mymaster", "sentinel_kwargs": {"password": "x"}},
    )
    pool = get_redis(app).connection_pool
    assert pool.service_name == "mymaster"
    assert pool.connection_kwargs["username"] == "me"
    assert pool.connection_kwargs["password"] == "p@ss"
    assert pool.connection_kwargs["db"] == 3
    sentinels = [connection_options(sentinel) for sentinel in app.redbeat_sentinel.sentinels]
    assert [(each["host"], each["port"]) for each in sentinels] == [
        ("a.invalid", 1),
        ("b.invalid", 26379),
    ]
    assert {each["password"] for each in sentinels} == {"x"}


def test_a_broker_url_of_sentinels_works_with_the_brokers_options() -> None:
    """Although its other options mean something else."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(
        broker_url="sentinel://:p@a.invalid:1/2;sentinel://b.invalid:2",
        broker_transport_options={
            "master_name": "mymaster",
            "sentinel_kwargs": {"password": "other"},
            "visibility_timeout": 3,
        },
    )
    with pytest.warns(DeprecationWarning, match="redbeat_redis"):
        pool = get_redis(app).connection_pool
    assert pool.service_name == "mymaster"
    assert pool.connection_kwargs["password"] == "p"
    assert pool.connection_kwargs["db"] == 2
    assert "visibility_timeout" not in pool.connection_kwargs


def test_options_win_over_a_url_of_sentinels() -> None:
    """They were written for the schedule."""
    options = {"sentinels": [("c.invalid", 3)], "service_name": "m", "password": "o", "db": 7}
    app = make_app("sentinel://:u@a.invalid/1", redbeat_redis_options=options)
    pool = get_redis(app).connection_pool
    assert (pool.connection_kwargs["password"], pool.connection_kwargs["db"]) == ("o", 7)
    (sentinel,) = app.redbeat_sentinel.sentinels
    assert connection_options(sentinel)["host"] == "c.invalid"


def test_options_replace_the_contents_of_a_sentinel_url_of_2x() -> None:
    """There the URL says only that it is Sentinel."""
    app = make_app(
        "redis-sentinel://:ignored@a.invalid/1",
        redbeat_redis_options={"sentinels": [("c.invalid", 3)]},
    )
    assert "password" not in connection_options(get_redis(app))


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("sentinel://:secret@a.invalid", {}),
        ("sentinel://", {"master_name": "m"}),
        ("redis-sentinel://", {}),
    ],
)
def test_sentinels_without_an_address_or_a_master_are_refused(
    url: str, options: dict[str, Any]
) -> None:
    """The error names the options."""
    with pytest.raises(SettingError, match=r"sentinels.*master_name") as error:
        get_redis(make_app(url, redbeat_redis_options=options))
    assert "secret" not in str(error.value)


def test_sentinels_have_their_own_tls_options() -> None:
    """From ``sentinel_kwargs``; ``redbeat_redis_use_ssl`` is for the data nodes."""
    app = make_app(
        "sentinel://a.invalid:1",
        redbeat_redis_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE},
        redbeat_redis_options={
            "master_name": "m",
            "socket_timeout": 0.5,
            "sentinel_kwargs": {"ssl": True, "ssl_ca_certs": "ca.pem"},
        },
    )
    pool = get_redis(app).connection_pool
    assert issubclass(pool.connection_class, redis.SSLConnection)
    assert pool.connection_kwargs["ssl_cert_reqs"] == ssl.CERT_NONE
    (sentinel,) = app.redbeat_sentinel.sentinels
    assert issubclass(sentinel.connection_pool.connection_class, redis.SSLConnection)
    assert connection_options(sentinel)["ssl_ca_certs"] == "ca.pem"
    assert connection_options(sentinel)["socket_timeout"] == 0.5


class Provider(redis.CredentialProvider):
    def get_credentials(self) -> tuple[str]:
        return ("token",)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://redis.invalid", {}),
        ("rediss://redis.invalid", {}),
        ("unix:///run/redis.sock", {}),
        ("sentinel://a.invalid", {"master_name": "m"}),
    ],
)
def test_credentials_come_from_a_provider_or_an_acl_user(url: str, options: dict[str, Any]) -> None:
    """Each kind of client takes either."""
    provider = Provider()
    with_provider = options | {"credential_provider": provider}
    client = get_redis(make_app(url, redbeat_redis_options=with_provider))
    assert connection_options(client)["credential_provider"] is provider
    with_user = options | {"username": "me", "password": "secret"}
    client = get_redis(make_app(url, redbeat_redis_options=with_user))
    assert connection_options(client)["username"] == "me"


def test_a_cluster_url_brings_its_credentials_and_its_node() -> None:
    """And TLS, if that was set up for the schedule."""
    with mock.patch("redis.cluster.RedisCluster") as cluster:
        get_redis(make_app("redis-cluster://me:p%40ss@h.invalid:7000/0"))
        get_redis(make_app("redis-cluster://h.invalid", redbeat_redis_use_ssl=True))
        get_redis(make_app("redis-cluster://h.invalid", broker_use_ssl=True))
    named, encrypted, inherited = [call.kwargs for call in cluster.call_args_list]
    assert named["startup_nodes"] == [{"host": "h.invalid", "port": 7000}]
    assert (named["username"], named["password"]) == ("me", "p@ss")
    assert "db" not in named
    assert encrypted["ssl"] is True
    assert encrypted["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert "ssl" not in inherited


def test_the_documented_cluster_url_and_option_go_together() -> None:
    """The URL decides on the class, whatever the option is."""
    app = make_app("redis-cluster://h.invalid:7000", redbeat_redis_options={"cluster": True})
    with mock.patch("redis.cluster.RedisCluster") as cluster:
        get_redis(app)
    assert cluster.call_args.kwargs["startup_nodes"] == [{"host": "h.invalid", "port": 7000}]


def test_celerys_url_of_a_unix_socket_is_understood() -> None:
    """It may be inherited from the broker."""
    options = connection_options(get_redis(make_app("redis+socket:///run/r.sock?virtual_host=2")))
    assert (options["path"], options["db"]) == ("/run/r.sock", 2)


def test_a_server_that_does_not_answer_times_out_within_seconds() -> None:
    """With any version of redis-py; options that are given win."""
    client = get_redis(make_app("redis://redis.invalid"))
    assert client.connection_pool.make_connection().socket_timeout == 5
    client = get_redis(make_app("redis://redis.invalid?socket_timeout=7"))
    assert client.connection_pool.make_connection().socket_timeout == 7
    app = make_app("sentinel://a.invalid", redbeat_redis_options={"master_name": "m"})
    assert get_redis(app).connection_pool.make_connection().socket_timeout == 5


@pytest.mark.parametrize(
    "url",
    [
        "redis://:se#cret@redis.invalid:6379/0",
        "redis://:secret@redis.invalid:port/0",
        "redis://:secret@a.invalid:1;redis://:secret@b.invalid:2",
        "sentinel://:secret@a.invalid:port",
        "redis-cluster://:secret@a.invalid:port",
    ],
)
def test_a_malformed_url_is_refused_without_its_password(url: str) -> None:
    """The URL parser's own error would quote a part of it."""
    with pytest.raises(SettingError, match=r"redbeat_redis_url .* cannot be used") as error:
        get_redis(make_app(url, redbeat_redis_options={"master_name": "m"}))
    assert "cret" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("redis://redis.invalid", {"redbeat_redis_options": {"sokcet_timeout": 5}}),
        ("redis://redis.invalid?sokcet_timeout=5", {}),
        ("rediss://redis.invalid", {"redbeat_redis_use_ssl": {"sokcet_timeout": 5}}),
    ],
    ids=["option", "query", "TLS"],
)
@pytest.mark.parametrize("retry", [{}, {"retry_period": 0}], ids=["plain", "retrying"])
def test_an_option_that_the_client_does_not_know_is_refused_without_a_round_trip(
    url: str, settings: dict[str, Any], retry: dict[str, Any]
) -> None:
    """By name; the client itself can be made, as in redis-py."""
    options = {**settings.get("redbeat_redis_options", {}), **retry}
    app = make_app(url, **{**settings, "redbeat_redis_options": options})
    assert get_redis(app) is not None
    with pytest.raises(SettingError, match=r"redbeat_redis_options.*sokcet_timeout"):
        check_options(get_redis(app))
    with pytest.raises(SettingError, match="sokcet_timeout"):
        RedBeatScheduler(app)


SENTINELS = {"sentinels": [("sentinel.invalid", 26379)], "service_name": "m"}

#: Options that people copy: some transport of kombu takes them, but no client of redis-py.
OF_TRANSPORTS = {
    "visibility_timeout": "hunter2",
    "fanout_prefix": True,
    "fanout_patterns": True,
    "global_keyprefix": "p",
    "queue_order_strategy": "priority",
    "priority_steps": [0, 5],
    "sep": ":",
    "polling_interval": 1,
    "max_retries": 3,
    "interval_start": 0,
    "interval_step": 0.2,
    "interval_max": 0.5,
}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://redis.invalid", {"master_name": "m", "min_other_sentinels": 1}),
        ("rediss://redis.invalid", {}),
        ("unix:///run/redis.sock", {}),
        ("redis-sentinel://", SENTINELS),
        ("sentinel://sentinel.invalid", {"master_name": "m"}),
        ("redis-cluster://redis.invalid", {}),
        ("redis://redis.invalid", {"cluster": True}),
    ],
)
def test_options_of_transports_are_ignored_with_one_warning(
    url: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names them all and shows no value; other options reach the client."""
    given = {**options, **OF_TRANSPORTS, "socket_timeout": 3}
    app = make_app(url, redbeat_redis_options=given)
    names = ".*".join(sorted(OF_TRANSPORTS))
    with (
        mock.patch("redis.cluster.RedisCluster") as cluster,
        mock.patch("redis.RedisCluster.from_url") as cluster_from_url,
        pytest.warns(UserWarning, match=names) as warned,
    ):
        client = get_redis(app)
    check_options(get_redis(app))
    assert get_redis(app) is client
    assert len(warned) == len(caplog.records) == 1
    assert "hunter2" not in caplog.text
    calls = [*cluster.call_args_list, *cluster_from_url.call_args_list]
    reached = calls[0].kwargs if calls else connection_options(client)
    assert reached["socket_timeout"] == 3
    assert not set(OF_TRANSPORTS).intersection(reached)
    assert given["visibility_timeout"] == "hunter2"


@pytest.mark.parametrize("transport", [kombu.transport.redis.Channel, SentinelChannel])
def test_no_option_of_a_redis_transport_is_refused(transport: Any) -> None:
    """Whatever this version of kombu takes is passed on or ignored."""
    options = dict.fromkeys(transport.from_transport_options)
    app = make_app("redis://redis.invalid", redbeat_redis_options=options)
    with pytest.warns(UserWarning, match="visibility_timeout"):
        check_options(get_redis(app))


@pytest.mark.parametrize("retry", [{}, {"retry_period": 0}], ids=["plain", "retrying"])
def test_an_unknown_option_beside_sentinel_is_ignored_with_a_warning(retry: dict[str, Any]) -> None:
    """As in 2.x; what the client knows is passed on."""
    unknown = {"sokcet_timeout": 5, "socket_foo": 1, "ssl_ca_certs": "ca.pem", "nonsense": {}}
    known = {"health_check_interval": 3, "max_connections": 4, "client_name": "beat"}
    app = make_app("redis-sentinel://", redbeat_redis_options=SENTINELS | unknown | known | retry)
    with pytest.warns(UserWarning, match="nonsense, socket_foo, sokcet_timeout, ssl_ca_certs"):
        client = get_redis(app)
    check_options(get_redis(app))
    assert client.connection_pool.max_connections == 4
    assert connection_options(client)["client_name"] == "beat"
    assert not set(unknown).intersection(connection_options(client))
    (sentinel,) = app.redbeat_sentinel.sentinels
    assert "socket_foo" not in connection_options(sentinel)


def test_options_of_tls_are_known_beside_sentinel_where_tls_is_used() -> None:
    """The option ``ssl`` asks for it, or our setting."""
    options = SENTINELS | {"ssl": True, "ssl_ca_certs": "ca.pem"}
    app = make_app("redis-sentinel://", redbeat_redis_options=options)
    assert connection_options(get_redis(app))["ssl_ca_certs"] == "ca.pem"
    check_options(get_redis(app))


@pytest.mark.parametrize("namespace", ["CELERY", "celery"])
@pytest.mark.parametrize(
    "url", ["redis://redis.invalid", "rediss://redis.invalid", "unix:///run/redis.sock"]
)
def test_an_unknown_option_under_a_namespace_is_ignored_with_a_warning(
    url: str, namespace: str
) -> None:
    """As in 2.x, which passes none of these on."""
    app = Celery("proj", set_as_current=False)
    options = {"sokcet_timeout": 5, "visibility_timeout": 3, "client_name": "beat"}
    settings = {"redbeat_redis_url": url, "redbeat_redis_options": options}
    in_case = str.upper if namespace.isupper() else str.lower
    app.config_from_object(
        {in_case(f"{namespace}_{name}"): value for name, value in settings.items()},
        namespace=namespace,
    )
    with pytest.warns(UserWarning, match="sokcet_timeout, visibility_timeout"):
        client = get_redis(app)
    check_options(get_redis(app))
    assert connection_options(client)["client_name"] == "beat"


@pytest.mark.parametrize("url", ["redis-sentinel://", "sentinel://sentinel.invalid"])
@pytest.mark.parametrize(
    ("settings", "is_encrypted"),
    [
        ({}, {"redis-sentinel": False, "sentinel": False}),
        ({"broker_use_ssl": True}, {"redis-sentinel": False, "sentinel": True}),
        ({"broker_use_ssl": "true"}, {"redis-sentinel": False, "sentinel": False}),
        ({"broker_use_ssl": {}}, {"redis-sentinel": False, "sentinel": False}),
        (
            {"broker_use_ssl": {"ssl_ca_certs": "ca.pem"}},
            {"redis-sentinel": True, "sentinel": True},
        ),
        ({"redbeat_redis_use_ssl": True}, {"redis-sentinel": True, "sentinel": True}),
        (
            {"redbeat_redis_use_ssl": None, "broker_use_ssl": {"ssl_ca_certs": "ca.pem"}},
            {"redis-sentinel": False, "sentinel": False},
        ),
    ],
)
def test_a_broker_with_tls_switches_sentinel_to_tls_only_by_options(
    url: str, settings: dict[str, Any], is_encrypted: dict[str, bool]
) -> None:
    """Except for the broker's own ``sentinel://`` URL."""
    client = get_redis(make_app(url, redbeat_redis_options=SENTINELS, **settings))
    is_tls = issubclass(client.connection_pool.connection_class, redis.SSLConnection)
    assert is_tls == is_encrypted[url.split(":")[0]]


@pytest.mark.parametrize("url", ["redis-sentinel://", "sentinel://sentinel.invalid"])
def test_service_name_wins_over_master_name(url: str) -> None:
    """It is the name of 2.x; the other is the broker's."""
    options = SENTINELS | {"master_name": "of the broker", "service_name": "of the schedule"}
    pool = get_redis(make_app(url, redbeat_redis_options=options)).connection_pool
    assert pool.service_name == "of the schedule"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://redis.invalid", {"visibility_timeout": 3, "decode_responses": False}),
        ("rediss://redis.invalid", {"retry_period": 3}),
        ("redis-sentinel://", SENTINELS | {"sentinel_kwargs": {"password": "x"}, "nonsense": 1}),
        ("sentinel://sentinel.invalid", {"master_name": "m", "socket_timeout": 3}),
        ("redis-cluster://", {"startup_nodes": [{"host": "h", "port": "1"}]}),
        ("redis://redis.invalid", {"cluster": True}),
    ],
)
@pytest.mark.parametrize("owner", ["redbeat_redis", "broker"])
@pytest.mark.filterwarnings("ignore:redbeat_redis_options is not set:DeprecationWarning")
def test_the_dicts_of_a_configuration_are_not_changed(
    url: str, options: dict[str, Any], owner: str
) -> None:
    """Neither ours nor the broker's: others read them too."""
    name = "redbeat_redis_options" if owner == "redbeat_redis" else "broker_transport_options"
    settings = {name: options, f"{owner}_use_ssl": {"ssl_cert_reqs": "CERT_NONE"}}
    before = copy.deepcopy(settings)
    app = Celery("proj", set_as_current=False)
    app.conf.update({"redbeat_redis_url": url} | settings)
    with (
        mock.patch("redis.cluster.RedisCluster"),
        mock.patch("redis.RedisCluster.from_url"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)
        get_redis(app)
    assert settings == before


@pytest.mark.parametrize("module", ["redbeat.schedulers", "redis"])
@pytest.mark.parametrize("url", ["redis://redis.invalid", "rediss://redis.invalid"])
def test_a_class_that_is_patched_in_either_module_makes_the_client(module: str, url: str) -> None:
    """Applications' tests patch the name in ``redbeat.schedulers``, as with 2.x."""
    with mock.patch(f"{module}.Redis") as client_class:
        assert get_redis(make_app(url)) is client_class.from_url.return_value


@pytest.mark.parametrize("module", ["redbeat.schedulers", "redis.sentinel"])
def test_a_patched_class_of_sentinels_makes_the_client(module: str) -> None:
    """Likewise."""
    with mock.patch(f"{module}.Sentinel") as sentinels:
        client = get_redis(make_app("redis-sentinel://", redbeat_redis_options=SENTINELS))
    assert client is sentinels.return_value.master_for.return_value
    sentinels.return_value.master_for.assert_called_once_with("m")


def test_a_patched_logger_hears_of_settings_and_options() -> None:
    """As with 2.x, the name in ``redbeat.schedulers`` counts."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(
        redbeat_redis_url="redis://redis.invalid",
        broker_transport_options={"visibility_timeout": 3},
    )
    with (
        mock.patch("redbeat.schedulers.logger") as logger,
        pytest.warns(DeprecationWarning, match="redbeat_redis_options"),
    ):
        get_redis(app)
    assert "redbeat_redis_options is not set" in str(logger.warning.call_args)
    assert "visibility_timeout" in str(logger.debug.call_args)


def test_a_patched_class_of_retrying_connections_wraps_the_client() -> None:
    app = make_app("redis://redis.invalid", redbeat_redis_options={"retry_period": 3})
    with mock.patch("redbeat.schedulers.RetryingConnection") as retrying:
        assert get_redis(app) is retrying.return_value
    period, wrapped = retrying.call_args.args
    assert period == 3
    assert isinstance(wrapped, redis.Redis)


@pytest.mark.parametrize(
    "name", ["socket_timeout", "socket_connect_timeout", "health_check_interval"]
)
def test_a_number_given_as_text_is_refused_by_name(name: str) -> None:
    """As it comes from environment variables."""
    app = make_app("redis://redis.invalid", redbeat_redis_options={name: "5"})
    with pytest.raises(SettingError, match=f"{name}'. must be a number of seconds, got a str$"):
        check_options(get_redis(app))


@pytest.mark.parametrize(
    "settings",
    [
        {"redbeat_redis_options": {"socket_timeout": "hunter2"}},
        {"redbeat_redis_options": {"protocol": "hunter2"}},
        {"redbeat_redis_use_ssl": {"ssl_cert_reqs": "hunter2"}},
    ],
)
def test_a_refused_value_is_not_shown(settings: dict[str, Any]) -> None:
    """It may be a password in the wrong place."""
    app = make_app("rediss://redis.invalid", **settings)
    with pytest.raises(SettingError) as refusal:
        check_options(get_redis(app))
    assert "hunter2" not in str(refusal.value)


def test_options_that_the_client_knows_are_accepted() -> None:
    """And any injected client."""
    app = make_app("redis://redis.invalid", redbeat_redis_options={"health_check_interval": 5})
    check_options(get_redis(app))
    for injected in (object(), mock.MagicMock(spec=redis.Redis)):
        app.redbeat_redis = injected
        check_options(get_redis(app))


@pytest.mark.parametrize(
    "options",
    [{"protocol": 5}, {"username": "me", "credential_provider": object()}],
    ids=["protocol", "two users"],
)
def test_a_value_that_the_client_refuses_is_a_setting_error(options: dict[str, Any]) -> None:
    """And not an outage of Redis."""
    app = make_app("redis://redis.invalid", redbeat_redis_options=options)
    with pytest.raises(SettingError, match="and their values"):
        check_options(get_redis(app))


@pytest.mark.parametrize("period", ["soon", -2, True, [1]])
def test_a_retry_period_that_is_not_a_number_is_refused(period: Any) -> None:
    """By name."""
    with pytest.raises(SettingError, match="retry_period"):
        get_redis(make_app("redis://h.invalid", redbeat_redis_options={"retry_period": period}))


def test_threads_that_race_get_one_client() -> None:
    """All of them ask at the same moment."""
    app = make_app("redis://redis.invalid")
    barrier, clients = threading.Barrier(16), []

    def ask() -> None:
        barrier.wait()
        clients.append(get_redis(app))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 16
    assert len(set(map(id, clients))) == 1


@pytest.mark.parametrize(
    "url", ["amqp://user:secret@broker.invalid", "sqs://key:secret@", "memory://", "", "localhost"]
)
def test_a_broker_that_is_not_redis_is_refused_with_the_setting_to_add(url: str) -> None:
    """The error is a ``ValueError`` without the password."""
    with pytest.raises(SettingError, match="Set redbeat_redis_url") as error:
        get_redis(make_app(url))
    assert isinstance(error.value, ValueError)
    assert "secret" not in str(error.value)


def test_a_missing_url_is_refused_with_the_setting_to_add() -> None:
    """Neither ours nor the broker's."""
    app = Celery("proj", set_as_current=False)
    with (
        pytest.warns(DeprecationWarning, match="redbeat_redis_url"),
        pytest.raises(SettingError, match="Set redbeat_redis_url"),
    ):
        get_redis(app)


class Flaky:
    """A client whose calls fail a few times."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.connection_pool = object()

    def get(self, key: str) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return f"value of {key}"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries end at once."""
    monkeypatch.setattr(RetryingConnection, "RETRY_MAX_WAIT", 0)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("refused"),
        redis.TimeoutError("slow"),
        redis.sentinel.MasterNotFoundError("no master"),
    ],
)
def test_a_call_is_retried_while_redis_is_away(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Each wait is a warning in the log."""
    client = Flaky(error, error)
    assert RetryingConnection(5, client).get("a") == "value of a"
    assert client.calls == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    "error", [redis.ResponseError("no such command"), redis.AuthenticationError("wrong password")]
)
def test_an_error_that_a_retry_cannot_fix_is_not_retried(error: Exception) -> None:
    """A wrong password stays wrong."""
    client = Flaky(error)
    with pytest.raises(type(error)):
        RetryingConnection(-1, client).get("a")
    assert client.calls == 1


@pytest.mark.usefixtures("no_waiting")
def test_retries_end_after_their_period_with_the_error_of_redis() -> None:
    """Not with one of the retry library."""
    client = Flaky(*[redis.ConnectionError("refused")] * 3)
    with pytest.raises(redis.ConnectionError):
        RetryingConnection(0, client).get("a")
    assert client.calls == 1


@pytest.mark.usefixtures("no_waiting")
def test_minus_one_retries_forever() -> None:
    """Even after two thousand failures in a row."""
    client = Flaky(*[redis.ConnectionError("refused")] * 2000)
    assert RetryingConnection(-1, client).get("a") == "value of a"


def test_attributes_are_those_of_the_client() -> None:
    """Monitoring reads the pool."""
    client = Flaky()
    assert RetryingConnection(1, client).connection_pool is client.connection_pool
    with pytest.raises(AttributeError):
        RetryingConnection(1, client).no_such_thing  # noqa: B018 - reading it is the test


def test_a_retry_period_wraps_the_client() -> None:
    """Whatever the client is."""
    app = make_app("redis://redis.invalid", redbeat_redis_options={"retry_period": 3})
    client = get_redis(app)
    assert isinstance(client, RetryingConnection)
    assert client.retry_period == 3


def test_a_mock_in_place_of_the_client_class_is_called() -> None:
    """Applications' tests patch the class as well as its methods."""
    with mock.patch("redis.Redis") as client_class:
        assert get_redis(make_app("redis://redis.invalid")) is client_class.from_url.return_value
