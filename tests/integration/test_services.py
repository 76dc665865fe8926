"""Managed and proxied services: real servers that refuse what those refuse."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import schedule

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.errors import UnsupportedServerError
from redbeat.schedulers import acquire_distributed_beat_lock, get_redis, get_storage
from support.apps import MakeApp
from support.entries import due
from support.servers import NO_RETRY, RedisServer, StartRedis
from support.waiting import wait_until
from support.wire import Proxy

SLOTS = 16384
STATIC = {"static": {"task": "tasks.static", "schedule": 30}}


class Hook:
    """Stands in for the beat service that is the sender of `beat_init`."""

    def __init__(self, scheduler: RedBeatScheduler) -> None:
        self.scheduler = scheduler


@pytest.fixture(scope="module")
def shared_cluster_node(
    server_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """A cluster of one node, for all tests here."""
    server = RedisServer(tmp_path_factory.mktemp("cluster"), cluster_enabled="yes").start()
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(SLOTS))
        wait_until(
            lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")),
            message="a cluster that answers",
        )
    yield server
    server.stop()


@pytest.fixture
def cluster_node(shared_cluster_node: RedisServer) -> RedisServer:
    """An empty cluster of one node: what a proxy lets its clients see of one with many."""
    with shared_cluster_node.client() as client:
        client.flushall()
    return shared_cluster_node


def lead(app: Celery) -> RedBeatScheduler:
    """A scheduler that holds the lock."""
    scheduler = RedBeatScheduler(app)
    acquire_distributed_beat_lock(Hook(scheduler))
    return scheduler


def exercise(app: Celery, sent: list[str]) -> RedBeatScheduler:
    """A leader that stores statics, takes edits, dispatches, and records what ran."""
    scheduler = lead(app)
    for name in ("a", "b"):
        due(app, name)
    due(app, "gone").delete()
    scheduler.tick()
    scheduler.tick()
    assert sorted(sent) == ["tasks.a", "tasks.b"]
    ran = [RedBeatSchedulerEntry.from_key(f"redbeat:{name}", app=app) for name in "ab"]
    assert [entry.total_run_count for entry in ran] == [1, 1]
    assert all(entry.rank is not None for entry in ran)
    assert RedBeatSchedulerEntry.from_key("redbeat:static", app=app).task == "tasks.static"
    entry = ran[0]
    entry.reschedule()
    entry.delete()
    assert entry.rank is None
    return scheduler


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("refused", "warning"),
    [
        ("-config", "Allow CONFIG GET"),
        ("-info", "may not run INFO "),
        ("-publish -subscribe", "may not run PUBLISH "),
        ("-@scripting", "does not run scripts"),
        ("-evalsha -eval -script", "does not run scripts"),
    ],
)
def test_a_service_that_refuses_commands_is_met_with_one_warning(
    start_redis: StartRedis,
    make_app_with: MakeApp,
    sent: list[str],
    caplog: pytest.LogCaptureFixture,
    refused: str,
    warning: str,
) -> None:
    """Statics, edits, claims, commits and the lock all work."""
    server = start_redis(user=[f"guest on >pass ~* &* +@all {refused}"])
    app = make_app_with(
        redbeat_redis_url=f"redis://guest:pass@127.0.0.1:{server.port}/0", beat_schedule=STATIC
    )
    scheduler = exercise(app, sent)
    assert scheduler.lock.owned()
    scheduler.close()
    assert scheduler.lock is None
    with server.client() as client:
        assert client.get("redbeat::lock") is None
    (line,) = warnings_in(caplog)
    assert warning in line


def test_a_service_may_refuse_all_of_it_at_once(
    start_redis: StartRedis, make_app_with: MakeApp, sent: list[str]
) -> None:
    """No CONFIG, no INFO, no pub/sub, no scripts."""
    refused = "-config -info -publish -subscribe -@scripting -client -hello"
    server = start_redis(user=[f"guest on >pass ~* &* +@all {refused}"])
    app = make_app_with(
        redbeat_redis_url=f"redis://guest:pass@127.0.0.1:{server.port}/0", beat_schedule=STATIC
    )
    exercise(app, sent)


def test_a_forbidden_key_is_not_taken_for_missing_scripts(
    start_redis: StartRedis, make_app_with: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """An ACL with too narrow a key pattern is an error, not a reason for weaker guarantees."""
    server = start_redis(user=["guest on >pass ~other* &* +@all"])
    app = make_app_with(redbeat_redis_url=f"redis://guest:pass@127.0.0.1:{server.port}/0")
    with pytest.raises(redis.exceptions.NoPermissionError):
        RedBeatSchedulerEntry("a", "tasks.a", schedule(60), app=app).delete()
    assert "does not run scripts" not in caplog.text


@pytest.mark.parametrize("scripts", ["+@scripting", "-@scripting"])
def test_behind_a_proxy_of_a_cluster_one_slot_is_changed_at_a_time(
    cluster_node: RedisServer,
    make_app_with: MakeApp,
    sent: list[str],
    caplog: pytest.LogCaptureFixture,
    scripts: str,
) -> None:
    """One warning says which prefix makes changes atomic again."""
    with cluster_node.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "guest", "on", ">pass", "~*", "&*", "+@all", scripts
        )
    app = make_app_with(
        redbeat_redis_url=f"redis://guest:pass@127.0.0.1:{cluster_node.port}/0",
        beat_schedule=STATIC,
    )
    exercise(app, sent)
    (about_slots,) = [line for line in warnings_in(caplog) if "cluster" in line]
    assert "redbeat_key_prefix = '{redbeat}:'" in about_slots
    assert len(warnings_in(caplog)) == (1 if scripts == "+@scripting" else 2)


def test_a_hash_tagged_prefix_keeps_changes_atomic_behind_a_proxy(
    cluster_node: RedisServer, make_app_with: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """All keys share a slot, and there is no warning."""
    app = make_app_with(redbeat_redis_url=cluster_node.url(), redbeat_key_prefix="{redbeat}:")
    entry = RedBeatSchedulerEntry("a", "tasks.a", schedule(60), app=app).save()
    assert entry.rank == 0
    assert get_storage(app).changes.steps.topology.has_transactions
    assert warnings_in(caplog) == []


def test_a_key_without_the_hash_tag_affects_no_other_behind_a_proxy(
    cluster_node: RedisServer,
    make_app_with: MakeApp,
    sent: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From then on keys are changed slot by slot, with one warning."""
    app = make_app_with(
        redbeat_redis_url=cluster_node.url(),
        redbeat_key_prefix="{redbeat}:",
        redbeat_lock_key=None,
    )
    entry = RedBeatSchedulerEntry("a", "tasks.a", schedule(60), app=app).save()
    storage = get_storage(app)
    with cluster_node.client() as client:
        client.hset("earlier:a", "definition", entry.encode_definition())
        client.zadd(storage.keys.schedule_key, {"earlier:a": 1, entry.key: 2})
    scheduler = RedBeatScheduler(app)
    scheduler.tick()
    scheduler.tick()
    assert sent == ["tasks.a"]
    assert storage.read_entries(["earlier:a"])[0].definition
    assert "total_run_count" in str(storage.read_meta("earlier:a"))
    assert len([line for line in warnings_in(caplog) if "cluster" in line]) == 1


@pytest.mark.parametrize("prefix", ["red{beat:", "red{}beat:", "red}b{eat:"])
def test_a_single_brace_is_not_a_hash_tag(
    cluster_node: RedisServer, make_app_with: MakeApp, prefix: str
) -> None:
    """Redis looks for a pair of braces with something in between."""
    app = make_app_with(redbeat_redis_url=cluster_node.url(), redbeat_key_prefix=prefix)
    for name in "abc":
        RedBeatSchedulerEntry(name, "tasks.a", schedule(60), app=app).save()
    assert get_storage(app).count_members() == 3


class OldServer(redis.Redis):
    """A client that sees an old version, since no such server is available."""

    def info(self, section: str | None = None, *args: str, **kwargs: Any) -> dict[str, Any]:
        told: dict[str, Any] = super().info(section, *args, **kwargs)
        return told | {"redis_version": "5.0.14"}


def test_a_server_that_is_too_old_keeps_beat_from_starting(
    make_app_with: MakeApp, redis_server: RedisServer
) -> None:
    """The error names both versions."""
    app = make_app_with(redbeat_redis_url=redis_server.url())
    app.redbeat_redis = OldServer(port=redis_server.port, decode_responses=True)
    with pytest.raises(UnsupportedServerError, match=r"5\.0\.14.*6\.2"):
        RedBeatScheduler(app)


@pytest.mark.parametrize("lock_key", [":lock", None])
def test_a_server_that_comes_back_too_old_is_refused_before_anything_is_stored(
    make_app_with: MakeApp, start_redis: StartRedis, lock_key: str | None
) -> None:
    """By a beat that is about to lead or to share the work."""
    server = start_redis()
    app = make_app_with(
        redbeat_redis_url=server.url(), redbeat_lock_key=lock_key, beat_schedule=STATIC
    )
    app.redbeat_redis = OldServer(port=server.port, decode_responses=True, retry=NO_RETRY)
    server.stop()
    scheduler = RedBeatScheduler(app)
    server.start()
    acquire_distributed_beat_lock(Hook(scheduler))
    with pytest.raises(UnsupportedServerError, match=r"5\.0\.14.*6\.2"):
        scheduler.tick()
    scheduler.close()
    with server.client() as client:
        assert client.keys() == []


def test_a_server_that_comes_back_and_may_evict_keys_is_reported(
    make_app_with: MakeApp, start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """The leader asks once, and shows the finding in its banner."""
    server = start_redis(maxmemory="100mb", maxmemory_policy="allkeys-lru")
    app = make_app_with(redbeat_redis_url=server.url())
    server.stop()
    scheduler = RedBeatScheduler(app)
    assert scheduler.key_expiry_findings == []
    server.start()
    acquire_distributed_beat_lock(Hook(scheduler))
    scheduler.tick()
    scheduler.tick()
    (finding,) = scheduler.key_expiry_findings
    assert "allkeys-lru" in finding
    assert finding in scheduler.info
    assert len([line for line in warnings_in(caplog) if finding in line]) == 1


def test_a_server_that_was_checked_at_the_start_is_not_checked_again(
    make_app_with: MakeApp, proxy: Proxy
) -> None:
    """However often the beat takes the lead."""
    app = make_app_with(redbeat_redis_url=proxy.url())
    scheduler = lead(app)
    with proxy.counting() as traffic:
        scheduler.tick()
        with get_redis(app).client() as other:
            other.delete(scheduler.lock_key)
        scheduler.tick()
        scheduler.tick()
    assert scheduler.lock.owned()
    assert not {"INFO", "CONFIG"} & set(traffic.names)


def test_the_server_of_these_tests_is_new_enough(app: Celery) -> None:
    """The tests run on a supported version."""
    RedBeatScheduler(app)
    assert get_redis(app).info("server")["redis_version"]
