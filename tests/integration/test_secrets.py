"""No password reaches a log, a banner, an error or a ``repr``, wherever it is configured."""

import io
import logging
import socketserver
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedulers import (
    acquire_distributed_beat_lock,
    ensure_conf,
    get_storage,
)
from support.apps import MakeApp
from support.ports import LOOPBACK, free_port
from support.servers import RedisServer
from support.wire import RequestParser

MARKER = "hunter2"


class Hook:
    """A stand-in for the beat service that sends ``beat_init``."""

    def __init__(self, scheduler: RedBeatScheduler) -> None:
        self.scheduler = scheduler


class Provider(redis.CredentialProvider):
    def get_credentials(self) -> tuple[str, str]:
        return ("me", MARKER)


@pytest.fixture
def told() -> Iterator[io.StringIO]:
    """Everything that anybody logs, including tracebacks."""
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    loggers = [root, logging.getLogger("celery"), logging.getLogger("celery.beat")]
    levels = [logger.level for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def tell(told: io.StringIO, work: Any) -> None:
    """Write down what a call returns or raises, as a program that logs it would."""
    try:
        told.write(f"{work()!r}\n")
    except Exception:
        told.write(traceback.format_exc())


def live(app: Celery, told: io.StringIO) -> None:
    """Start beat, show its banner, tick, close it, and do what programs do."""
    schedulers: list[RedBeatScheduler] = []
    tell(told, lambda: ensure_conf(app))
    tell(told, lambda: schedulers.append(RedBeatScheduler(app)))
    for scheduler in schedulers:
        tell(told, lambda: scheduler.info)  # noqa: B023 - called at once
        tell(told, lambda: acquire_distributed_beat_lock(Hook(scheduler)))  # noqa: B023
        tell(told, scheduler.tick)
        tell(told, scheduler.close)
    tell(told, lambda: RedBeatSchedulerEntry("a", "tasks.a", 60, app=app).save())
    tell(told, lambda: RedBeatSchedulerEntry("a", "tasks.a", 60, app=app).rank)
    tell(told, lambda: get_storage(app))


def position(url: str, **options: Any) -> dict[str, Any]:
    return {"redbeat_redis_url": url, "redbeat_redis_options": options}


HERE = f"{LOOPBACK}:PORT"
SENTINEL: dict[str, Any] = {"master_name": "mymaster", "socket_timeout": 1}

POSITIONS: dict[str, dict[str, Any]] = {
    "password alone": position(f"redis://{MARKER}@{HERE}/0"),
    "password": position(f"redis://:{MARKER}@{HERE}/0"),
    "ACL user": position(f"redis://me:{MARKER}@{HERE}/0"),
    "query": position(f"redis://{HERE}/0?db=1&password={MARKER}"),
    "query of ACL user": position(f"redis://{HERE}/0?username=me&password={MARKER}"),
    "TLS": position(f"rediss://me:{MARKER}@{HERE}/0", socket_timeout=0.5),
    "TLS key": position(f"rediss://{HERE}/0")
    | {"redbeat_redis_use_ssl": {"ssl_password": MARKER, "ssl_keyfile": "/nowhere/key.pem"}},
    "socket": position(f"unix://me:{MARKER}@/nowhere/redis.sock?db=1"),
    "query of a socket": position(f"redis+socket:///nowhere/redis.sock?password={MARKER}"),
    "Celery's socket": position(f"redis+socket://:{MARKER}@/nowhere/redis.sock?virtual_host=1"),
    "several URLs": position(f"redis://:{MARKER}@{HERE}/0;redis://me:{MARKER}@{HERE}/0"),
    "Celery's sentinels": position(
        f"sentinel://:x@{HERE}/0;sentinel://me:{MARKER}@{HERE}", **SENTINEL
    ),
    "Celery's first sentinel": position(f"sentinel://:{MARKER}@{HERE}/0", **SENTINEL),
    "sentinels without a name": position(f"sentinel://:{MARKER}@{HERE}/0"),
    "2.x's sentinels": position(
        f"redis-sentinel://:{MARKER}@{HERE}/0",
        sentinels=[(LOOPBACK, 1)],
        password=MARKER,
        sentinel_kwargs={"username": "me", "password": MARKER},
    ),
    "sentinels' passwords": position(
        f"sentinel://{HERE}", **SENTINEL, sentinel_kwargs={"password": MARKER, "username": "me"}
    ),
    "cluster": position(f"redis-cluster://me:{MARKER}@{HERE}"),
    "cluster option": position(f"redis://:{MARKER}@{HERE}/0", cluster=True),
    "cluster with a database": position(f"redis://:{MARKER}@{HERE}/7", cluster=True),
    "option": position(f"redis://{HERE}/0", password=MARKER, username="me"),
    "provider": position(f"redis://{HERE}/0", credential_provider=Provider()),
    "retrying": position(f"redis://:{MARKER}@{HERE}/0", retry_period=0.1),
    "retrying sentinels": position(f"sentinel://:{MARKER}@{HERE}", **SENTINEL, retry_period=0.1),
    "hash": position(f"redis://:a#{MARKER}@{HERE}/0"),
    "slash": position(f"redis://:a/{MARKER}@{HERE}/0"),
    "question mark": position(f"redis://:a?{MARKER}@{HERE}/0"),
    "colon": position(f"redis://:a:{MARKER}:b@{HERE}/0"),
    "bracket": position(f"redis://:[{MARKER}@{HERE}/0"),
    "bad port": position(f"redis://:{MARKER}@{LOOPBACK}:port/0"),
    "bad database": position(f"redis://:{MARKER}@{HERE}/x?db=y"),
    "other broker": position(f"amqp://me:{MARKER}@{LOOPBACK}//"),
    "keys of a cloud": position(f"sqs://me:{MARKER}@"),
    "time-out": position(f"redis://{HERE}/0", socket_timeout=MARKER),
    "interval": position(f"redis://{HERE}/0", health_check_interval=MARKER),
    "retry period": position(f"redis://{HERE}/0", retry_period=MARKER),
    "encoding": position(f"redis://{HERE}/0", encoding=MARKER),
    "query of a time-out": position(f"redis://{HERE}/0?socket_timeout={MARKER}"),
    "query without a value": position(f"redis://{HERE}/0?{MARKER}"),
    "options that are not a dict": {"redbeat_redis_options": [("password", MARKER)]},
    "TLS options that are not a dict": {"redbeat_redis_use_ssl": MARKER},
    "a list of URLs": {"redbeat_redis_url": [f"redis://:{MARKER}@{HERE}"]},
    "bytes": {"redbeat_redis_url": f"redis://:{MARKER}@{HERE}".encode()},
    "the broker's": {
        "redbeat_redis_url": None,
        "broker_url": f"sentinel://:{MARKER}@{HERE};sentinel://:{MARKER}@{HERE}",
        "broker_transport_options": {"password": MARKER, "token": MARKER, **SENTINEL},
    },
}


def on_port(settings: Any, port: int) -> Any:
    """The settings with the port in their URLs."""
    return {
        name: value.replace("PORT", str(port)) if isinstance(value, str) else value
        for name, value in settings.items()
    }


class Repeating(socketserver.BaseRequestHandler):
    """A server that knows no command and, like Redis, repeats all arguments in its error."""

    def handle(self) -> None:
        parser = RequestParser()
        while received := self.request.recv(1 << 16):
            for name, *words in parser.feed(received):
                repeated = " ".join(f"'{word}'" for word in words)
                error = f"-ERR unknown command '{name}', with args beginning with: {repeated} \r\n"
                self.request.sendall(error.encode())


@pytest.fixture(scope="module")
def servers(
    server_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, int]]:
    """Ports: of no server, of one that refuses the password, of one that repeats it."""
    refusing = RedisServer(tmp_path_factory.mktemp("refusing"), requirepass="other").start()
    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Repeating) as repeating:
        repeating.daemon_threads = True
        repeating.block_on_close = False
        threading.Thread(target=repeating.serve_forever, daemon=True).start()
        yield {
            "away": free_port(),
            "refusing": refusing.port,
            "repeating": repeating.server_address[1],
        }
        repeating.shutdown()
    refusing.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
# redis-py leaves a socket to the garbage collector when it cannot read the TLS key.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("server", ["away", "refusing", "repeating"])
@pytest.mark.parametrize("name", POSITIONS)
def test_a_password_is_shown_nowhere(
    name: str,
    server: str,
    servers: dict[str, int],
    make_app_with: MakeApp,
    told: io.StringIO,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With a Redis that is away, that refuses it, or that repeats unknown commands."""
    app = make_app_with(**on_port(POSITIONS[name], servers[server]))
    live(app, told)
    output = told.getvalue() + "".join(capfd.readouterr())
    assert len(output) > 100
    assert MARKER not in output
