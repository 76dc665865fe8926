"""The checks of the server, given its answers."""

import logging
from typing import Any

import pytest
import redis
import redis.sentinel
from redis.exceptions import RedisClusterException

from redbeat.checks import LOWEST_REDIS, RedBeatKeyExpiryError, check_key_expiry, check_version
from redbeat.errors import UnsupportedServerError


class Server:
    """Answers CONFIG GET, or refuses to."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.asked: list[str] = []

    def config_get(self, pattern: str) -> Any:
        self.asked.append(pattern)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def settings(maxmemory: str, policy: str) -> dict[str, str]:
    return {"maxmemory": maxmemory, "maxmemory-policy": policy, "maxmemory-samples": "5"}


def test_a_server_that_may_evict_any_key_is_a_finding() -> None:
    """One question; the finding names both settings."""
    server = Server(settings("1000", "allkeys-lru"))
    (finding,) = check_key_expiry(server)
    assert "1000" in finding
    assert "allkeys-lru" in finding
    assert server.asked == ["maxmemory*"]


@pytest.mark.parametrize(
    ("maxmemory", "policy"),
    [("0", "allkeys-lru"), ("1000", "volatile-lru"), ("1000", "noeviction"), ("lots", "allkeys-x")],
)
def test_a_server_that_keeps_our_keys_is_not_a_finding(maxmemory: str, policy: str) -> None:
    """No limit, a limit that is not a number, or a policy that keeps keys without an expiry."""
    assert check_key_expiry(Server(settings(maxmemory, policy))) == []


def test_the_nodes_of_a_cluster_are_grouped_by_their_settings() -> None:
    """One finding for each pair of limit and policy, naming its nodes."""
    cluster = {
        "a:1": settings("1000", "allkeys-lru"),
        "b:2": settings("1000", "allkeys-lru"),
        "c:3": settings("2000", "allkeys-lru"),
        "d:4": settings("0", "allkeys-lru"),
    }
    pair, single = check_key_expiry(Server(cluster))
    assert "on nodes a:1, b:2" in pair
    assert "on node c:3" in single


def test_ignore_asks_nothing() -> None:
    """No round trip."""
    server = Server(settings("1000", "allkeys-lru"))
    assert check_key_expiry(server, "ignore") == []
    assert server.asked == []


@pytest.mark.parametrize(("mode", "level"), [("warn", logging.WARNING), ("error", logging.ERROR)])
def test_findings_are_logged_at_the_level_of_the_mode(
    mode: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """``warn`` at warning, ``error`` at error."""
    findings = check_key_expiry(Server(settings("1000", "allkeys-lru")), mode)
    (record,) = caplog.records
    assert record.levelno == level
    assert findings[0] in record.getMessage()


def test_raising_stops_beat_with_the_findings() -> None:
    """The error is a ``RuntimeError``."""
    with pytest.raises(RedBeatKeyExpiryError, match="allkeys-lru") as error:
        check_key_expiry(Server(settings("1000", "allkeys-lru")), "raise")
    assert isinstance(error.value, RuntimeError)


def test_an_unreadable_configuration_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Managed services refuse CONFIG."""
    assert check_key_expiry(Server(redis.ResponseError("unknown command 'CONFIG'"))) == []
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "CONFIG" in record.getMessage()


def test_an_unreadable_configuration_raises_where_findings_would() -> None:
    """A finding would have stopped beat, and might be missed otherwise."""
    with pytest.raises(RedBeatKeyExpiryError, match="CONFIG"):
        check_key_expiry(Server(redis.ResponseError("unknown command 'CONFIG'")), "raise")


@pytest.mark.parametrize("reply", [None, [], OSError("closed"), AttributeError("config_get")])
def test_a_stand_in_that_answers_nonsense_is_a_warning(
    reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not keep beat from starting."""
    assert check_key_expiry(Server(reply)) == []
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


class Informed:
    """Answers INFO, or refuses to."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.asked: list[str] = []

    def info(self, section: str) -> Any:
        self.asked.append(section)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


@pytest.mark.parametrize("version", ["6.0.20", "5.0.14", "2.8.0"])
def test_an_old_server_is_refused(version: str) -> None:
    """The error is a ``RuntimeError`` and names both versions; one question."""
    client = Informed({"redis_version": version})
    with pytest.raises(UnsupportedServerError, match=version) as error:
        check_version(client)
    assert ".".join(map(str, LOWEST_REDIS)) in str(error.value)
    assert isinstance(error.value, RuntimeError)
    assert client.asked == ["server"]


@pytest.mark.parametrize(
    "reply",
    [
        {"redis_version": "6.2.0"},
        {"redis_version": "10.0.1"},
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.0"},
        {"redis_version": "unknown"},
        {"redis_version": None},
        {},
        "nonsense",
        redis.ResponseError("NOPERM"),
        redis.ConnectionError("refused"),
        AttributeError("info"),
    ],
)
def test_a_server_that_is_recent_or_does_not_tell_its_version_passes(reply: Any) -> None:
    """So do Valkey and stand-ins for a client."""
    check_version(Informed(reply))


@pytest.mark.parametrize(
    ("reply", "has_answered"),
    [
        ({"redis_version": "7.0.15"}, True),
        ({}, True),
        (redis.ResponseError("NOPERM"), True),
        (AttributeError("info"), True),
        (redis.ConnectionError("refused"), False),
        (redis.TimeoutError("slow"), False),
        (redis.AuthenticationError("wrong password"), False),
        (redis.sentinel.MasterNotFoundError("no master"), False),
        (RedisClusterException("Redis Cluster cannot be connected"), False),
    ],
)
def test_a_server_that_was_away_differs_from_one_that_does_not_tell_its_version(
    reply: Any, has_answered: bool
) -> None:
    """Only the former is asked again."""
    assert check_version(Informed(reply)) is has_answered


def test_a_reply_in_bytes_is_read_like_text() -> None:
    """A client without ``decode_responses`` returns one."""
    reply = {b"maxmemory": b"5", b"maxmemory-policy": b"allkeys-lru"}
    (finding,) = check_key_expiry(Server(reply))
    assert "maxmemory is 5 with maxmemory-policy allkeys-lru" in finding
    (finding,) = check_key_expiry(Server({b"A": reply, b"B": reply}))
    assert "on nodes A, B" in finding


def test_numbers_and_text_of_the_same_value_are_one_finding() -> None:
    replies = {"A": settings("100", "allkeys-lru"), "B": settings("100", "allkeys-lru")}
    replies["A"]["maxmemory"] = 100  # type: ignore[assignment]  # the point of it
    (finding,) = check_key_expiry(Server(replies))
    assert "on nodes A, B" in finding
