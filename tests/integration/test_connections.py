"""The client on a real server: its connections, after a fork, over a socket."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedulers import get_redis, get_storage
from support.apps import MakeApp
from support.servers import RedisServer, StartRedis

# Python 3.12 warns of a fork in a process with threads, which prefork workers do.
forking = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def count_connections(server: RedisServer) -> int:
    """How many connections the server has ever accepted."""
    with server.client() as client:
        total: int = client.info("stats")["total_connections_received"]
    return total


def in_a_child(work: Callable[[], Any]) -> int:
    """Run ``work`` in a forked child and return its exit code: 0 if it succeeds."""
    pid = os.fork()
    if pid == 0:
        # The kernel ends a child that hangs.
        signal.alarm(30)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("options", [{}, {"retry_period": 5}], ids=["plain", "retrying"])
def test_a_thousand_reads_use_a_constant_number_of_connections(
    make_app_with: MakeApp, redis_server: RedisServer, options: dict[str, Any]
) -> None:
    """There is one client per application."""
    app = make_app_with(redbeat_redis_url=redis_server.url(), redbeat_redis_options=options)
    entry = RedBeatSchedulerEntry("a", "tasks.a", schedule(60), app=app).save()
    before = count_connections(redis_server)
    for _ in range(500):
        RedBeatSchedulerEntry.from_key(entry.key, app=app)
        get_redis(app).zcard("redbeat::schedule")
    # Plus the connection that counts.
    assert count_connections(redis_server) == before + 1


def test_refused_subscriptions_leave_no_connection_behind(
    start_redis: StartRedis, make_app_with: MakeApp
) -> None:
    """Beat tries again and again to listen."""
    server = start_redis(user=["guest on >pass ~* &* +@all -subscribe"])
    app = make_app_with(
        redbeat_redis_url=f"redis://guest:pass@127.0.0.1:{server.port}/0", redbeat_lock_key=None
    )
    scheduler = RedBeatScheduler(app)
    for _ in range(20):
        scheduler.redbeat_parts.rest.listen(0.01, before=0)
    with server.client() as client:
        assert len(client.client_list()) <= 4


@pytest.mark.parametrize("connections", [1, 2])
def test_threads_take_turns_when_connections_are_few(
    make_app_with: MakeApp, redis_server: RedisServer, connections: int
) -> None:
    """Without an error, and with no more connections than allowed."""
    app = make_app_with(
        redbeat_redis_url=redis_server.url(),
        redbeat_redis_options={"max_connections": connections},
    )
    before = count_connections(redis_server)
    failed: list[Exception] = []

    def save(thread: int) -> None:
        try:
            for number in range(20):
                RedBeatSchedulerEntry(f"{thread}-{number}", "tasks.a", schedule(60), app=app).save()
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert get_storage(app).count_members() == 160
    # Plus the connection that counts.
    assert count_connections(redis_server) <= before + connections + 1


@forking
def test_a_child_forked_during_the_turn_of_another_thread_has_its_own_turn(
    make_app_with: MakeApp, redis_server: RedisServer
) -> None:
    app = make_app_with(
        redbeat_redis_url=redis_server.url(), redbeat_redis_options={"max_connections": 1}
    )
    storage, has_turn, may_end = get_storage(app), threading.Event(), threading.Event()

    def hold() -> None:
        with storage.access.turn():
            has_turn.set()
            may_end.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_turn.wait(10)
    assert in_a_child(storage.count_members) == 0
    may_end.set()
    thread.join()


@forking
def test_a_forked_child_saves_after_its_parent_used_the_client(
    make_app_with: MakeApp, redis_server: RedisServer
) -> None:
    """Prefork workers save entries; neither reads the other's answers."""
    app = make_app_with(redbeat_redis_url=redis_server.url())
    RedBeatSchedulerEntry("parent", "tasks.a", schedule(60), app=app).save()

    def save() -> None:
        for number in range(20):
            RedBeatSchedulerEntry(f"child-{number}", "tasks.a", schedule(60), app=app).save()

    children = [threading.Thread(target=lambda: codes.append(in_a_child(save))) for _ in range(2)]
    codes: list[int] = []
    for child in children:
        child.start()
    for number in range(20):
        RedBeatSchedulerEntry(f"parent-{number}", "tasks.a", schedule(60), app=app).save()
    for child in children:
        child.join()
    assert codes == [0, 0]
    assert get_storage(app).count_members() == 41


@forking
def test_a_child_forked_while_a_client_is_being_made_makes_its_own(
    make_app_with: MakeApp, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that held the lock does not exist there to release it."""
    app = make_app_with(redbeat_redis_url=redis_server.url())
    parent, is_making, may_go_on = os.getpid(), threading.Event(), threading.Event()
    from_url = redis.Redis.from_url

    def slow_from_url(*args: Any, **kwargs: Any) -> Any:
        if os.getpid() == parent:
            is_making.set()
            may_go_on.wait(20)
        return from_url(*args, **kwargs)

    monkeypatch.setattr("redis.Redis.from_url", slow_from_url)
    thread = threading.Thread(target=get_redis, args=(app,))
    thread.start()
    assert is_making.wait(10)
    assert in_a_child(lambda: get_redis(app).ping()) == 0
    may_go_on.set()
    thread.join()


def test_a_server_is_reached_over_its_unix_socket(
    start_redis: StartRedis, make_app_with: MakeApp, tmp_path: Path
) -> None:
    """In redis-py's spelling and in Celery's, with a password and a database."""
    socket = tmp_path / "s"
    start_redis(unixsocket=socket, requirepass="secret")
    for url in (f"unix://:secret@{socket}?db=3", f"redis+socket://:secret@{socket}?virtual_host=3"):
        app = make_app_with(redbeat_redis_url=url)
        RedBeatSchedulerEntry("a", "tasks.a", schedule(60), app=app).save()
        assert get_redis(app).connection_pool.connection_kwargs["db"] == 3
        assert get_storage(app).count_members() == 1
