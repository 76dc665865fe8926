"""The addresses of nodes and of sentinels in the options: bad ones are refused by their place."""

import re
from typing import Any
from unittest import mock

import pytest
from celery import Celery

from redbeat.errors import SettingError
from redbeat.schedulers import get_redis

PASSWORD = "hunter2"
NODE = {"host": "a.invalid", "port": 7000}
SENTINEL = ("a.invalid", 26379)


def make_app(url: str, **options: Any) -> Celery:
    app = Celery("proj", set_as_current=False)
    app.conf.update(redbeat_redis_url=url, redbeat_redis_options=options)
    return app


def nodes_of(url: str, startup_nodes: Any) -> Any:
    """The nodes that the client of a cluster is given."""
    with mock.patch("redis.cluster.RedisCluster") as cluster:
        get_redis(make_app(url, startup_nodes=startup_nodes))
    return cluster.call_args.kwargs["startup_nodes"]


def refusal(url: str, **options: Any) -> str:
    """The text of the refusal of these options, which never shows a password."""
    with pytest.raises(SettingError) as error:
        get_redis(make_app(url, **options))
    assert PASSWORD not in str(error.value)
    assert error.value.__context__ is None or error.value.__suppress_context__
    return str(error.value)


# Nodes of a cluster


@pytest.mark.parametrize(
    ("url", "node", "expected"),
    [
        ("redis-cluster://", {"host": "a.invalid"}, {"host": "a.invalid", "port": 30001}),
        ("redis-cluster://", {"port": "7000"}, {"host": "localhost", "port": 7000}),
        ("redis-cluster://", {}, {"host": "localhost", "port": 30001}),
        ("redis-cluster://h.invalid:7001", {"port": 7000}, {"host": "h.invalid", "port": 7000}),
        ("redis-cluster://h.invalid:7001", {"host": "b"}, {"host": "b", "port": 7001}),
    ],
)
def test_the_url_completes_a_node(url: str, node: dict[str, Any], expected: dict[str, Any]) -> None:
    """And the documented default completes the URL."""
    assert nodes_of(url, [NODE, node]) == [NODE, expected]


@pytest.mark.parametrize("nodes", [None, [], ()])
def test_without_nodes_the_url_is_the_node(nodes: Any) -> None:
    """An empty list counts as none."""
    assert nodes_of("redis-cluster://h.invalid:1", nodes) == [{"host": "h.invalid", "port": 1}]


def test_nodes_may_be_a_tuple_and_have_other_keys() -> None:
    """Those are for other programs that read the same file."""
    assert nodes_of("redis-cluster://", (NODE | {"zone": "a"},)) == [NODE]


@pytest.mark.parametrize(
    ("nodes", "shown"),
    [
        (f"redis://:{PASSWORD}@a.invalid:7000", "a str"),
        ("", "a str"),
        (NODE | {"password": PASSWORD}, "a dict"),
        (7000, "an int"),
        (False, "a bool"),
    ],
)
def test_nodes_that_are_not_a_list_are_refused(nodes: Any, shown: str) -> None:
    """By the name of the option; the error says what it must be."""
    text = refusal("redis-cluster://", startup_nodes=nodes)
    assert text.startswith("redbeat_redis_options['startup_nodes'] must be a list of ")
    assert "{'host': 'node-1', 'port': 6379}" in text
    assert text.endswith(f"got {shown}")


@pytest.mark.parametrize(
    "node",
    [
        ("a.invalid", 7000),
        f"redis://:{PASSWORD}@a.invalid:7000",
        "a.invalid:7000",
        None,
        {"hots": "a.invalid", "port": 7000},
        {"url": f"redis://:{PASSWORD}@a.invalid:7000"},
    ],
)
def test_a_value_that_is_not_a_node_is_refused_by_its_place(node: Any) -> None:
    """With a misspelled ``host`` or ``port`` it would otherwise be on localhost."""
    text = refusal("redis-cluster://", startup_nodes=[NODE, node])
    assert text.startswith("redbeat_redis_options['startup_nodes'][1] must be ")
    assert "'host'" in text
    assert "'port'" in text


@pytest.mark.parametrize(
    "host", [None, "", 5, b"a.invalid", ["a.invalid"], f"redis://:{PASSWORD}@a", f":{PASSWORD}@a"]
)
def test_a_host_that_is_not_a_name_is_refused_by_its_place(host: Any) -> None:
    """Including a URL, which may hold a password."""
    text = refusal("redis-cluster://", startup_nodes=[{"host": host, "port": 7000}])
    assert text.startswith("redbeat_redis_options['startup_nodes'][0]['host'] must be ")


@pytest.mark.parametrize("port", [None, "", "abc", "70 00", 0, -1, 65536, 7000.5, True, b"7", [7]])
def test_a_port_that_is_not_a_number_is_refused_by_its_place(port: Any) -> None:
    """A number may be text."""
    text = refusal("redis-cluster://", startup_nodes=[NODE, NODE | {"port": port}])
    assert text.startswith("redbeat_redis_options['startup_nodes'][1]['port'] must be ")


# Sentinels


@pytest.mark.parametrize("url", ["redis-sentinel://", "sentinel://", "sentinel://b.invalid:1"])
@pytest.mark.parametrize("sentinels", [[SENTINEL], (list(SENTINEL),), [("a.invalid", "26379")]])
def test_sentinels_are_pairs_of_host_and_port(url: str, sentinels: Any) -> None:
    """As lists or as tuples, whether from JSON or from Python."""
    app = make_app(url, sentinels=sentinels, master_name="m")
    get_redis(app)
    (sentinel,) = app.redbeat_sentinel.sentinels
    connection = sentinel.connection_pool.make_connection()
    assert (connection.host, connection.port) == SENTINEL


@pytest.mark.parametrize(
    "sentinels",
    [
        f"sentinel://:{PASSWORD}@a.invalid:26379",
        "ab",
        "",
        b"ab",
        {"host": "a.invalid", "password": PASSWORD},
        26379,
    ],
)
def test_sentinels_that_are_not_a_list_are_refused(sentinels: Any) -> None:
    """Including text of two letters, which could pass for a host and a port."""
    text = refusal("redis-sentinel://", sentinels=sentinels)
    assert text.startswith("redbeat_redis_options['sentinels'] must be a list of ")
    assert "('sentinel-1', 26379)" in text


@pytest.mark.parametrize(
    "sentinel",
    [
        "a.invalid:26379",
        f"redis://:{PASSWORD}@a.invalid:26379",
        "ab",
        ("a.invalid",),
        ("a.invalid", 26379, PASSWORD),
        {"host": "a.invalid", "port": 26379},
        {"a.invalid", 26379},
        26379,
        None,
    ],
)
def test_a_sentinel_that_is_not_a_pair_is_refused_by_its_place(sentinel: Any) -> None:
    """The error shows how to write it."""
    text = refusal("redis-sentinel://", sentinels=[SENTINEL, sentinel])
    assert text.startswith("redbeat_redis_options['sentinels'][1] must be ")
    assert "('sentinel-1', 26379)" in text


@pytest.mark.parametrize(
    ("sentinel", "part"),
    [((None, 1), 0), ((f"redis://:{PASSWORD}@a", 1), 0), (("a.invalid", "abc"), 1), (("a", 0), 1)],
)
def test_a_bad_part_of_a_sentinel_is_refused_by_its_place(
    sentinel: tuple[Any, Any], part: int
) -> None:
    """Like that of a node."""
    text = refusal("sentinel://", sentinels=[sentinel], master_name="m")
    assert text.startswith(f"redbeat_redis_options['sentinels'][0][{part}] must be ")


@pytest.mark.parametrize("name", ["service_name", "master_name"])
@pytest.mark.parametrize("value", [5, b"schedule", ["schedule"], True])
def test_a_name_of_the_master_that_is_not_text_is_refused(name: str, value: Any) -> None:
    """By the name under which it was given."""
    text = refusal("redis-sentinel://", sentinels=[SENTINEL], **{name: value})
    assert text.startswith(f"redbeat_redis_options['{name}'] must be text")


@pytest.mark.parametrize("kwargs", [f"password={PASSWORD}", [("password", PASSWORD)], 5, True])
def test_options_of_sentinels_that_are_not_a_dict_are_refused(kwargs: Any) -> None:
    """Without showing them: they may hold a password."""
    text = refusal("redis-sentinel://", sentinels=[SENTINEL], sentinel_kwargs=kwargs)
    assert re.match(
        r"redbeat_redis_options\['sentinel_kwargs'\] must be a dict.*, got an? \w+$", text
    )
