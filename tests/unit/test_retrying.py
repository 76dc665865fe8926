"""Which errors are retried, for how long, and what an error may say."""

import logging
from typing import Any

import pytest
import redis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.sentinel import MasterNotFoundError

from redbeat.store.retrying import (
    RetryingConnection,
    error_code,
    is_of_replica,
    is_outage,
    not_again,
    patience,
    run_unit,
    without_secrets,
)


class Failing:
    """A unit of work that fails with these errors first."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries end at once."""
    monkeypatch.setattr(RetryingConnection, "RETRY_MAX_WAIT", 0)


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("refused"),
        redis.TimeoutError("slow"),
        BusyLoadingError("Redis is loading the dataset in memory"),
        ReadOnlyError("You can't write against a read only replica."),
        ResponseError(
            "Error running script (call to f_1): @user_script:12: -READONLY You can't write "
            "against a read only replica."
        ),
        ClusterDownError("CLUSTERDOWN Hash slot not served"),
        ResponseError("CLUSTERDOWN Hash slot not served"),
        MasterDownError("MASTERDOWN Link with MASTER is down"),
        ResponseError("MASTERDOWN Link with MASTER is down"),
        TryAgainError("Multiple keys request during rehashing of slot"),
        ResponseError("TRYAGAIN Multiple keys request during rehashing of slot"),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
        ResponseError(
            "Command # 1 (EVALSHA ...) of pipeline caused error: BUSY Redis is busy running a "
            "script."
        ),
        RedisClusterException("Redis Cluster cannot be connected. Please provide at least one"),
        MasterNotFoundError("No master found for 'mymaster'"),
    ],
)
def test_an_outage_that_passes_is_retried(error: Exception) -> None:
    """Outages, elections, restarts, resharding."""
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        redis.AuthenticationError("WRONGPASS invalid username-password pair"),
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        ResponseError(
            "Command # 1 (HSET redbeat:a definition READONLY LOADING) of pipeline "
            "caused error: WRONGTYPE Operation against a key"
        ),
        RedisClusterException("MGET - all keys must map to the same key slot"),
        ValueError("BUSY"),
    ],
)
def test_what_stays_wrong_is_not_retried(error: Exception) -> None:
    """Words in an entry that look like an error of Redis do not count."""
    assert not is_outage(error)
    assert not is_of_replica(error)


def test_an_error_is_recognised_by_its_first_word_in_a_pipeline_too() -> None:
    """redis-py puts the command in front of it."""
    in_pipeline = "Command # 2 (ZADD CROSS) of pipeline caused error: CROSSSLOT Keys in request"
    assert error_code(ResponseError(in_pipeline)) == "CROSSSLOT"
    assert error_code(ResponseError("CROSSSLOT Keys in request")) == "CROSSSLOT"
    assert error_code(ValueError("CROSSSLOT")) == ""


def test_a_unit_is_retried_once_at_once_after_a_broken_connection() -> None:
    """With any client; its caller sees the error of the second attempt."""
    unit = Failing(redis.ConnectionError("closed"))
    assert run_unit(redis.Redis(), unit) == "done"
    unit = Failing(redis.ConnectionError("closed"), redis.ConnectionError("refused"))
    with pytest.raises(redis.ConnectionError, match="refused"):
        run_unit(redis.Redis(), unit)
    assert unit.tries == 2


@pytest.mark.parametrize(
    "error",
    [redis.TimeoutError("slow"), redis.AuthenticationError("no"), ResponseError("WRONGTYPE x")],
)
def test_a_unit_is_not_retried_at_once_after_another_error(error: Exception) -> None:
    """Nobody waits twice for a server that does not answer."""
    unit = Failing(error)
    with pytest.raises(type(error)):
        run_unit(redis.Redis(), unit)
    assert unit.tries == 1


@pytest.mark.usefixtures("no_waiting")
def test_a_unit_of_a_retrying_client_is_retried_as_a_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Until it succeeds, with a warning for each wait."""
    unit = Failing(*[redis.TimeoutError("slow")] * 5)
    assert run_unit(RetryingConnection(60, redis.Redis()), unit) == "done"
    assert unit.tries == 6
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 5


@pytest.mark.usefixtures("no_waiting")
def test_patience_ends_retries_before_the_retry_period_does() -> None:
    """Even retries that never end otherwise; after the block they do so again."""
    client = RetryingConnection(-1, redis.Redis())
    left = iter([3.0, 3.0, 2.0, 2.0, 0.0])
    unit = Failing(*[redis.TimeoutError("slow")] * 9)
    with patience(lambda: next(left, 0.0)), pytest.raises(redis.TimeoutError):
        run_unit(client, unit)
    assert 1 < unit.tries < 9
    with patience(not_again), pytest.raises(redis.TimeoutError):
        run_unit(client, Failing(redis.TimeoutError("slow")))
    assert run_unit(client, unit) == "done"


def test_a_wait_never_outlasts_the_retry_period() -> None:
    """The last attempt comes at the end of the period, not half a minute later."""
    retrying = RetryingConnection(0.2, redis.Redis())
    unit = Failing(*[redis.TimeoutError("slow")] * 9)
    with pytest.raises(redis.TimeoutError):
        run_unit(retrying, unit)
    assert 2 <= unit.tries < 9


@pytest.mark.parametrize(
    ("error", "safe"),
    [
        (
            MasterNotFoundError("No master found for 'm' : Redis<Connection<password=marker>>"),
            "No master found for 'm'",
        ),
        (
            MasterNotFoundError(
                "No master found for 'm' : Redis<password=marker>> - ConnectionError('refused'), "
                "Redis<password=marker>> - network:TimeoutError"
            ),
            "No master found for 'm' : ConnectionError('refused'), network:TimeoutError",
        ),
        (
            ResponseError("unknown command 'AUTH', with args beginning with: 'me' 'marker' "),
            "unknown command 'AUTH'",
        ),
    ],
)
def test_an_error_leaves_out_what_may_hold_a_password(error: Any, safe: str) -> None:
    """It keeps its class."""

    def unit() -> None:
        raise error

    assert str(without_secrets(error)) == safe
    with pytest.raises(type(error)) as raised:
        run_unit(redis.Redis(), unit)
    assert str(raised.value) == safe
    assert raised.value.__suppress_context__ or raised.value is error


def test_the_repr_of_a_retrying_connection_does_not_show_its_client() -> None:
    """Some versions of redis-py write passwords into the ``repr`` of a pool."""
    assert "marker" not in repr(RetryingConnection(1, redis.Redis(password="marker")))
