"""A beat loads a batch of entries with one command, and finds what any reader finds."""

from collections.abc import Iterator, Mapping

import pytest
import redis
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redbeat.schedulers import get_storage
from redbeat.storage import SCRIPT_SIZE, Storage, Stored
from support.apps import MakeApp
from support.servers import StartRedis
from support.wire import Proxy

FIELDS = st.dictionaries(
    st.sampled_from(["definition", "meta", "set_aside", "owner"]),
    st.binary(max_size=50),
    min_size=1,
)


@pytest.fixture
def storage(client_app: Celery) -> Storage:
    return get_storage(client_app)


@pytest.fixture
def raw_client(client: redis.Redis) -> Iterator[redis.Redis]:
    """Writes what it is given, text or not."""
    yield client
    client.flushall()


def write(client: redis.Redis, entries: Mapping[str, Mapping[str, bytes]]) -> None:
    for name, fields in entries.items():
        for field, written in fields.items():
            client.hset(name, field, written)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(entries=st.dictionaries(st.sampled_from("abc"), FIELDS))
def test_a_beat_loads_what_a_reader_reads(
    storage: Storage, raw_client: redis.Redis, entries: dict[str, dict[str, bytes]]
) -> None:
    """Whatever bytes others wrote, and whichever fields are missing."""
    raw_client.flushall()
    write(raw_client, entries)
    assert storage.load_entries(list("abc")) == storage.read_entries(list("abc"))


def test_fields_come_in_the_order_of_the_keys(storage: Storage, raw_client: redis.Redis) -> None:
    """What is no hash reads as one that is not there."""
    write(
        raw_client, {"a": {"meta": b"m", "definition": "\u00e4".encode()}, "c": {"set_aside": b""}}
    )
    raw_client.set("b", "no hash")
    assert storage.load_entries(["c", "b", "a", "gone"]) == [
        Stored(None, None, ""),
        Stored(None, None, None),
        Stored("\u00e4", "m", None),
        Stored(None, None, None),
    ]


def test_more_entries_than_one_script_takes_are_loaded_too(
    storage: Storage, raw_client: redis.Redis
) -> None:
    """The server is not held up by any of the scripts, and all fields come."""
    names = [str(number) for number in range(2 * SCRIPT_SIZE + 1)]
    write(raw_client, {name: {"definition": name.encode()} for name in names})
    assert [stored.definition for stored in storage.load_entries(names)] == names


def test_a_batch_is_loaded_in_one_round_trip_and_by_one_command(
    make_app_with: MakeApp, proxy: Proxy
) -> None:
    """However many entries it has."""
    storage = get_storage(make_app_with(redbeat_redis_url=proxy.url()))
    storage.load_entries(["a"])
    with proxy.counting() as traffic:
        storage.load_entries([str(number) for number in range(500)])
    assert (traffic.round_trips, len(traffic.commands)) == (1, 1)


def test_entries_that_may_not_be_read_are_no_entries_that_are_gone(
    start_redis: StartRedis, make_app_with: MakeApp
) -> None:
    """Beat takes what is gone out of the schedule: a refusal must never pass for that."""
    server = start_redis(user=["beat on >pass ~redbeat::* +@all"])
    url = f"redis://beat:pass@127.0.0.1:{server.port}/0"
    storage = get_storage(make_app_with(redbeat_redis_url=url, redbeat_key_expiry_check="ignore"))
    with pytest.raises(redis.exceptions.NoPermissionError):
        storage.load_entries(["redbeat:a"])
