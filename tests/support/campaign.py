"""What the tests of the crash campaign share: a place to fight, and a book of the outcome."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from support.programs import Program, Project
from support.runs import Runs, Strike, Tally
from support.servers import RedisServer
from support.waiting import wait_until
from support.wire import Proxy

# The number of kills in the kill scenario; the other scenarios take their share of it.
ROUNDS = int(os.environ.get("REDBEAT_CAMPAIGN_ROUNDS", "2"))

# How many entries there are; and how many where each of them carries so many characters.
ENTRIES = 300
FEW = 20
LARGE = 1_000_000

# Where the broker is on the schedule's server, which holds the schedule in database 0.
BROKER_DB = 1

BATCH_SIZE = 50
CLAIM_TIMEOUT = 2
FAILOVER_TIMEOUT = 2
LOCK_TIMEOUT = 5
LOOP_INTERVAL = 0.2

# About the seconds that beat needs for all entries of a field, on a machine that is not idle.
TICK = 0.15

SETTINGS = {
    "redbeat_lock_key": None,
    "redbeat_batch_size": BATCH_SIZE,
    "redbeat_claim_timeout": CLAIM_TIMEOUT,
    "redbeat_poll_interval": LOOP_INTERVAL,
    "beat_max_loop_interval": LOOP_INTERVAL,
    "broker_connection_retry_on_startup": True,
    # Else Celery adds an entry that cleans up.
    "result_expires": None,
}

# Nothing that a server has answered to is gone when it is killed.
KEEPING_ALL = {"appendonly": "yes", "appendfsync": "always"}

# Laid over SETTINGS: one beat leads, and the others wait.
WITH_A_LEADER = {
    "redbeat_lock_key": "redbeat::lock",
    "redbeat_lock_timeout": LOCK_TIMEOUT,
    "redbeat_failover_timeout": FAILOVER_TIMEOUT,
}

ROLES: dict[str, dict[str, Any]] = {"sharing": {}, "leading": WITH_A_LEADER}
SIZES = {"small": 0, "1 MB": LARGE}

NO_STRIKE = Strike()


def take_share(part: float) -> int:
    """So many rounds for a scenario that gets this part of all, and at least one."""
    return max(1, round(ROUNDS * part))


@dataclass
class Field:
    """A schedule's server, a broker's server, entries, and a project for beats.

    Where both are one server, no run may be doubled, in whatever moment beat is struck.

    Attributes:
        broker_db: The database of the broker on its server; the schedule is in database 0.
        schedule: A client of the schedule's server.
        broker: A client of the broker's server.
        runs: The entries, stored and not yet due.
        settings: What beats are given beside the usual settings.
        book: What became of the runs, round by round.
    """

    schedule_server: RedisServer
    broker_server: RedisServer
    schedule: redis.Redis
    broker: redis.Redis
    project: Project
    runs: Runs
    settings: dict[str, Any]
    book: list[Tally]
    broker_db: int = 0

    def _configure(self, **settings: Any) -> None:
        urls = {
            "broker_url": self.broker_server.url(self.broker_db),
            "redbeat_redis_url": self.schedule_server.url(),
        }
        self.project.configure(**(urls | SETTINGS | self.settings | settings))

    def start_beat(self, **settings: Any) -> Program:
        """Start a beat and wait until it is up; `settings` are laid over those of all."""
        beat = self.launch_beat(**settings)
        beat.wait_for_line("beat: Starting")
        return beat

    def launch_beat(self, **settings: Any) -> Program:
        """Start a beat, and do not wait."""
        self._configure(**settings)
        return self.project.beat()

    def server_of(self, wire: str) -> RedisServer:
        """The server to which the setting `broker_url` or `redbeat_redis_url` leads."""
        return self.broker_server if wire == "broker_url" else self.schedule_server

    def url_through(self, proxy: Proxy, wire: str) -> str:
        """The value of the same setting that leads there through a proxy."""
        return proxy.url(self.broker_db if wire == "broker_url" else 0)

    def kill(self, beat: Program) -> Strike:
        """Kill -9 a beat; tells how the runs stood."""
        beat.kill()
        return self.find_struck()

    def find_struck(self) -> Strike:
        """How the runs stand after a beat was killed."""
        return self._excusable(self.runs.find_struck())

    def freeze(self, beat: Program) -> Strike:
        """Hold a beat where it stands; tells how the runs stood."""
        beat.freeze()
        return self._excusable(self.runs.find_frozen())

    def run_continuously(self, times: int) -> None:
        """Let each entry run so many times, due again as soon as it is settled."""
        left = dict.fromkeys(self.runs.names, times - 1)

        def has_ended() -> bool:
            again = [name for name in self.runs.settled() if left[name]]
            self.runs.arm(again)
            left.update({name: left[name] - 1 for name in again})
            return not any(left.values())

        self.runs.arm()
        wait_until(has_ended, 120, f"{times} runs of each entry")
        self.runs.wait_until_settled()

    def pass_part_of_a_tick(self) -> None:
        """Let a random time pass, about as much as beat needs for all that is due."""
        time.sleep(random.uniform(0, TICK))

    def pass_a_claim_s_time(self) -> None:
        """Let so much time pass that every claim of before has run out."""
        time.sleep(CLAIM_TIMEOUT + 1)

    def choose_batch(self) -> int:
        """A number of messages with which any batch but the last one begins to appear."""
        return 1 + BATCH_SIZE * random.randrange(max(1, len(self.runs.names) // BATCH_SIZE - 1))

    def _excusable(self, strike: Strike) -> Strike:
        if self.broker_server is self.schedule_server:
            return Strike(strike.unfinished)
        assert len(strike.caught) <= BATCH_SIZE, sorted(strike.caught)
        return strike

    def note(self, strike: Strike = NO_STRIKE, batches: int = 1) -> Tally:
        """Take down what became of the runs that were due, and forget them.

        Args:
            strike: How the runs stood when beat was struck.
            batches: In how many batches at the most runs may have been caught in the window.

        Raises:
            AssertionError: A run was lost or doubled; the beats' logs stand in the message.
        """
        tally = self.runs.tally(strike)
        self.book.append(tally)
        assert not self.runs.set_aside(), self._explain(tally)
        assert not tally.lost, self._explain(tally)
        assert not tally.doubled, self._explain(tally)
        assert len(set(tally.excused)) <= BATCH_SIZE * batches, self._explain(tally)
        self.runs.clear()
        return tally

    def find_miscounted(self) -> set[str]:
        """Entries whose meta does not tell of just one run since they were armed."""
        return {name for name in self.runs.names if self.runs.counted(name) != 1}

    def _explain(self, tally: Tally) -> str:
        logs = map(_last_lines, sorted(self.project.directory.glob("*.log")))
        return "\n".join([str(tally), *logs])


def _last_lines(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if "entry-" not in line]
    return "\n".join([f"--- {log.name}, without the lines about entries", *lines[-40:]])


MakeField = Callable[..., Field]
LayField = Callable[..., Field]
