"""URLs: what is read from them, and that logs show no password."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redbeat.store.urls import node_in, sanitized, scheme_of, sentinels_in, single_url

MARKER = "hunter2"
RAW_CHARACTERS = string.ascii_letters + string.digits + "/?#@:;=%!$+ ü"
RAW = st.text(RAW_CHARACTERS, max_size=8)
HOST = st.sampled_from(["redis.invalid", "127.0.0.1:6379", "[::1]:7000", ""])
SCHEME = st.sampled_from(
    [
        "redis",
        "rediss",
        "unix",
        "redis+socket",
        "redis-cluster",
        "redis-sentinel",
        "sentinel",
        "amqp",
        "sqs",
    ]
)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://redis.invalid:6379/1", "redis://redis.invalid:6379/1"),
        ("redis://:hunter2@redis.invalid:6379/1", "redis://:**@redis.invalid:6379/1"),
        ("rediss://me:hunter2@redis.invalid/1", "rediss://**:**@redis.invalid/1"),
        ("redis://h/0?password=hunter2&db=2", "redis://h/0?**"),
        ("unix://me:hunter2@/run/redis.sock?db=1", "unix://**:**@/run/redis.sock?**"),
        ("redis+socket:///r.sock?password=hunter2", "redis+socket:///r.sock?**"),
        (
            "sentinel://:hunter2@a:26379/0;sentinel://me:hunter2@b:26379",
            "sentinel://:**@a:26379/0;sentinel://**:**@b:26379",
        ),
        (["redis://:hunter2@a/0", "redis://:hunter2@b/0"], "redis://:**@a/0;redis://:**@b/0"),
        ("redis://me:?hunter2=@redis.invalid/0", "redis://**"),
        ("redis://redis.invalid/0?password=a@hunter2", "redis://**"),
        ("redis//:hunter2@redis.invalid:6379/1", "**"),
        (":hunter2@redis.invalid:6379", "**"),
        ("rediss:/:hunter2@redis.invalid", "**"),
        ("localhost", "**"),
        ("hunter2", "**"),
        ("redis:///:hunter2/0", "redis:///**"),
        ("redis:///me:hunter2", "redis:///**"),
        ("rediss:///me:hunter2:redis.invalid:6379/0", "rediss:///**"),
        ("redis:///3", "redis:///3"),
        ("unix:///run/a b", "unix:///**"),
        ("redis://me:hunter2:6379/1", "redis://**"),
        ("redis://me:hunter2", "redis://**"),
        ("redis://redis.invalid:99999?db=1", "redis://redis.invalid:99999?**"),
        ("redis://hunter2@redis.invalid:6379/1", "redis://**@redis.invalid:6379/1"),
        ("redis://hunter2@", "redis://**@"),
        ("redis://h/0?hunter2", "redis://h/0?**"),
        ("redis://h/0#hunter2", "redis://h/0#**"),
        ("amqp://hunter2@rabbit//", "amqp://**@rabbit//"),
        ("redis://[::1]:6379/1", "redis://[::1]:6379/1"),
        ("redis://[::1]:hunter2/1", "redis://**"),
        ("redis://a:6379,b:6380/0", "redis://a:6379,b:6380/0"),
        ("redis://h/hunter2", "redis://h/**"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        (None, "None"),
        (b"redis://:hunter2@a/0", "a bytes"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: object, shown: str) -> None:
    """In each form that a setting may have."""
    assert sanitized(url) == shown


@given(scheme=SCHEME, host=HOST, user=st.sampled_from(["", "me", "me%40home"]), a=RAW, b=RAW)
def test_no_password_before_the_host_is_shown(
    scheme: str, host: str, user: str, a: str, b: str
) -> None:
    """Not even one with characters that should have been quoted."""
    assert MARKER not in sanitized(f"{scheme}://{user}:{a}{MARKER}{b}@{host}/0")


@given(scheme=SCHEME, host=HOST, name=st.sampled_from(["password", "ssl_password", "token"]), a=RAW)
def test_no_password_in_the_query_is_shown(scheme: str, host: str, name: str, a: str) -> None:
    """Whatever the name of its parameter."""
    a = a.replace("&", "")
    assert MARKER not in sanitized(f"{scheme}://{host}/0?db=1&{name}={a}{MARKER}&protocol=3")
    assert MARKER not in sanitized(f"{scheme}://me:x@{host}/0?{name}={a}{MARKER}")


@given(
    scheme=SCHEME,
    separator=st.sampled_from(["://", ":/", "//", ":", "", ":///"]),
    user=st.sampled_from(["", "me"]),
    a=st.text(RAW_CHARACTERS, max_size=6),
    b=st.text(RAW_CHARACTERS, max_size=6),
    rest=st.text(RAW_CHARACTERS, max_size=6),
)
def test_no_password_in_a_malformed_url_is_shown(
    scheme: str, separator: str, user: str, a: str, b: str, rest: str
) -> None:
    """Whatever its separators are."""
    assert MARKER not in sanitized(f"{scheme}{separator}{user}:{a}{MARKER}{b}@{rest}")


@given(st.lists(st.tuples(SCHEME, st.sampled_from(["", "me"]), HOST), min_size=1, max_size=4))
def test_no_password_in_any_of_several_urls_is_shown(parts: list[tuple[str, str, str]]) -> None:
    """Joined by semicolons, or as a list."""
    urls = [f"{scheme}://{user}:{MARKER}@{host}/0" for scheme, user, host in parts]
    assert MARKER not in sanitized(";".join(urls))
    assert MARKER not in sanitized(urls)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [("redis://h", "redis"), ("REDISS://h", "rediss"), ("localhost", ""), ("", ""), (None, "")],
)
def test_the_scheme_is_what_comes_before_the_colon(url: object, scheme: str) -> None:
    """In lower case; other values have none."""
    assert scheme_of(url) == scheme


def test_celerys_form_of_a_unix_socket_is_read_as_redis_py_writes_it() -> None:
    """With its database and password."""
    assert single_url("redis+socket:///run/r.sock") == "unix:///run/r.sock?"
    assert (
        single_url("redis+socket://:p@/run/r.sock?virtual_host=3") == "unix://:p@/run/r.sock?db=3"
    )


@pytest.mark.parametrize("name", ["NONE", "OPTIONAL", "REQUIRED"])
def test_celerys_form_of_certificate_checks_is_read_as_redis_py_writes_it(name: str) -> None:
    """``rediss://`` brokers are often written this way."""
    url = single_url(f"rediss://h/0?ssl_cert_reqs=CERT_{name}")
    assert url == f"rediss://h/0?ssl_cert_reqs={name.lower()}"
    assert single_url("rediss://h/0?ssl_cert_reqs=none") == "rediss://h/0?ssl_cert_reqs=none"


def test_sentinels_are_read_as_celery_reads_them() -> None:
    """Credentials and database are those of the first part; the port is that of sentinels."""
    sentinels, options = sentinels_in("sentinel://me:p%40ss@a:1/3;sentinel://b;sentinel://c:2/0")
    assert sentinels == [("a", 1), ("b", 26379), ("c", 2)]
    assert options == {"username": "me", "password": "p@ss", "db": 3}
    assert sentinels_in("redis-sentinel://") == ([], {})


def test_a_node_has_host_port_and_credentials() -> None:
    """Missing parts are left out."""
    assert node_in("redis-cluster://me:p@h:7000") == {
        "host": "h",
        "port": 7000,
        "username": "me",
        "password": "p",
    }
    assert node_in("redis-cluster://") == {}


@pytest.mark.parametrize("read", [node_in, sentinels_in])
def test_a_malformed_url_is_a_value_error(read: object) -> None:
    """The caller knows which setting it is."""
    assert callable(read)
    with pytest.raises(ValueError, match=r"(?i)port"):
        read("redis://h:port")
