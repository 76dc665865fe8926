"""Schedulers subclassed for 2.x: two beats and a failover, on 2.4.2 and on this package, unchanged.

Both packages run each of the subclasses in `support.subclasses` at the same time, beside each other
on databases of their own, and have to come to the same runs.
"""

import contextlib
import itertools
import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from support import subclasses
from support.messages import Message, read_messages
from support.programs import Program, Project
from support.servers import RedisServer
from support.subclasses.ticks import CAP
from support.subclasses.witness import GATE, GATED, LOG, SENT_AT
from support.waiting import wait_until

#: Seconds. Each entry is due once in a period; who sends it twice in one has doubled a run.
PERIOD = 1.0
#: How much earlier or later than a period after the last run a run may be made, on a busy host.
EARLY, LATE = 0.7, 2.0

#: How many seconds after a run none is under way, nor about to be.
QUIET = 0.6

#: Seconds that the lock outlives a beat that was killed.
LOCK_TIMEOUT = 4

OURS, THEIRS = "ours", "2.x"

#: A server that does not exist.
NOWHERE = "redis://127.0.0.1:1/0"

SUBCLASSES = Path(subclasses.__file__).parent

# Prints whether an interpreter imports the `redbeat` that it has installed, and no checkout.
IS_INSTALLED = "import redbeat, sys; print(redbeat.__file__.startswith(sys.prefix))"

Act = Callable[[Program], object]

KILLED, TERMINATED, FROZEN = "killed", "terminated", "frozen"


@dataclass(frozen=True)
class Shape:
    """A way to subclass the scheduler.

    Attributes:
        scheduler: The class, below `subclasses`.
        fate: What becomes of the leader.
        names: The entries that beat is to send, each once a period.
        gated: The entries that it holds back until the gate is opened, after the failover.
        fields: Further fields of each entry in `beat_schedule`.
        settings: Further settings; `None` unsets one.
        runs: How many runs of each entry each beat makes at least.
        words: What the subclass notes while it leads.
        notes_sent: Whether it notes each run that it sends, as the word `sent`.
        header: What it gives each message, if anything: a name and a value.
    """

    scheduler: str
    fate: str
    names: tuple[str, ...] = ("first", "second")
    gated: tuple[str, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    runs: int = 2
    words: frozenset[str] = frozenset()
    notes_sent: bool = False
    header: tuple[str, str] | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """The names of all entries."""
        return self.names + self.gated

    @property
    def static(self) -> dict[str, Any]:
        """The schedule in the code."""
        common = {"task": "proj.record", "schedule": PERIOD} | self.fields
        return {name: common | {"args": [name]} for name in self.all if name != "added"}


HELD = (f"{GATED}-entry",)
TICK = frozenset({"tick"})
HOLD = frozenset({"held-back"})
DROP = frozenset({"dropped"})
NO_KEY = {"redbeat_lock_key": None}
DEFAULT_TIMES = {"beat_max_loop_interval": None, "redbeat_lock_timeout": None}

#: So short that the heartbeat of the lock comes between two ticks; 2.x does not know the setting.
QUICK = {"redbeat_failover_timeout": 1}

#: How many runs show that a lock has been renewed, which would else have expired.
RENEWED = LOCK_TIMEOUT + 1

SHAPES = {
    "copied-tick": Shape("ticks.CopiedTick", KILLED, words=TICK),
    "copied-tick-frozen": Shape("ticks.CopiedTick", FROZEN, words=TICK),
    "capped-tick": Shape("ticks.CappedTick", KILLED, words=TICK),
    "heartbeat": Shape("ticks.Heartbeat", FROZEN, words=TICK),
    "reacquiring": Shape("ticks.Reacquiring", FROZEN, words=TICK),
    "schedule": Shape("ticks.FilteredSchedule", TERMINATED, gated=HELD),
    "schedule-and-copied-tick": Shape(
        "ticks.FilteredScheduleAndCopiedTick", KILLED, gated=HELD, words=TICK
    ),
    "max-interval": Shape("ticks.ShortInterval", KILLED, settings=DEFAULT_TIMES),
    "apply-async": Shape(
        "sends.FilteringApplyAsync", TERMINATED, gated=HELD, words=HOLD, notes_sent=True
    ),
    "apply-async-reserving": Shape(
        "sends.DroppingApplyAsync", KILLED, gated=HELD, words=DROP, notes_sent=True
    ),
    "maybe-due": Shape("sends.FilteringMaybeDue", TERMINATED, gated=HELD, words=HOLD),
    "setup-schedule": Shape(
        "sends.OwnSetUp", KILLED, names=("first", "added"), words=frozenset({"setup_schedule"})
    ),
    "patched": Shape(
        "trackers.RedBeatScheduler", TERMINATED, notes_sent=True, header=("monitor", "traced")
    ),
    "entry": Shape(
        "entries.OwnEntry",
        KILLED,
        fields={"team": "ops"},
        words=frozenset({"save"}),
        notes_sent=True,
        header=("team", "ops"),
    ),
    "from-key": Shape("entries.OwnFromKey", TERMINATED, header=("tenant", "blue")),
    "static-from-key": Shape("entries.OwnStaticFromKey", TERMINATED, header=("tenant", "blue")),
    "is-due": Shape("entries.OwnIsDue", TERMINATED, gated=HELD, words=HOLD),
    "own-lock-by-signal": Shape(
        "own_lock_by_signal.Scheduler", KILLED, settings=QUICK, runs=RENEWED
    ),
    "own-lock-at-start": Shape("own_lock_at_start.Scheduler", KILLED, settings=QUICK, runs=RENEWED),
    "own-lock-in-setup": Shape(
        "own_lock_in_setup.Scheduler", TERMINATED, settings=QUICK, runs=RENEWED
    ),
    "own-lock-beside": Shape(
        "own_lock_beside.Scheduler", KILLED, settings=NO_KEY, runs=RENEWED, words=TICK
    ),
    "own-client": Shape(
        "own_client.Scheduler",
        KILLED,
        settings={"redbeat_redis_url": NOWHERE},
        words=frozenset({"no-client-yet"}),
    ),
}


@dataclass(frozen=True)
class Call:
    """What a subclass has noted of one call of its own."""

    at: float
    pid: int
    word: str
    detail: str


class Side:
    """One of the two packages with its project, and what its beats did.

    Args:
        directory: Where the project goes.
        python: The interpreter that has the package.
        shape: What the project subclasses.
        broker: A client of the broker's database.
        schedule: A client of the schedule's database.
        settings: The settings that name these databases.
    """

    def __init__(
        self,
        directory: Path,
        python: str,
        shape: Shape,
        broker: redis.Redis,
        schedule: redis.Redis,
        settings: dict[str, Any],
    ) -> None:
        self.shape = shape
        self._python = python
        self._directory = directory
        self._broker = broker
        self._schedule = schedule
        shutil.copytree(SUBCLASSES, directory / SUBCLASSES.name)
        common: dict[str, Any] = {
            "broker_connection_retry_on_startup": True,
            "beat_max_loop_interval": 1,
            "redbeat_lock_timeout": LOCK_TIMEOUT,
            "beat_schedule": shape.static,
        }
        self.project = Project(directory, **(common | settings | shape.settings))

    def beat(self) -> Program:
        """Start a beat with the subclass."""
        scheduler = f"{SUBCLASSES.name}.{self.shape.scheduler}"
        return self.project.beat(scheduler=scheduler, python=self._python)

    def open_gate(self) -> None:
        """Let the entries through that are held back."""
        (self._directory / GATE).touch()

    def messages(self) -> list[Message]:
        """What was sent, the oldest first."""
        return [each for each in read_messages(self._broker) if each.task == "proj.record"]

    def sent(self, pid: int | None = None) -> Counter[str]:
        """How many messages of each entry there are, from one process or all."""
        messages = [each for each in self.messages() if pid in (None, sender(each))]
        return Counter(each.args[0] for each in messages)

    def times(self, name: str, pid: int | None = None) -> list[float]:
        """When an entry was sent, by one process or all; seconds since the epoch."""
        messages = [each for each in self.messages() if pid in (None, sender(each))]
        return [each.headers[SENT_AT] for each in messages if each.args[0] == name]

    def counted(self) -> Counter[str]:
        """How many runs of each entry its meta counts."""
        metas = {name: self._read(name, "meta") for name in self.shape.all}
        return +Counter({name: meta.get("total_run_count", 0) for name, meta in metas.items()})

    def is_settled(self) -> bool:
        """Whether each message is counted, so that no run is under way."""
        sent, counted = self.sent(), self.counted()
        return all(sent[name] == counted[name] for name in self.shape.names)

    def definition(self, name: str) -> Any:
        """What is stored of an entry."""
        return self._read(name, "definition")

    def _read(self, name: str, part: str) -> Any:
        text: Any = self._schedule.hget(f"redbeat:{name}", part)
        return json.loads(text or "{}")

    def calls(self, word: str, pid: int | None = None) -> list[Call]:
        """What the subclass noted under a word, in one process or all, the oldest first."""
        log = self._directory / LOG
        lines = (
            [line.split(" ", 3) for line in log.read_text().splitlines()] if log.exists() else []
        )
        calls = [Call(float(at), int(by), what, detail) for at, by, what, detail in lines]
        return [call for call in calls if call.word == word and pid in (None, call.pid)]


def sender(message: Message) -> int:
    """The process that sent a message."""
    return int(message.headers["origin"].partition("@")[0].removeprefix("gen"))


Sides = dict[str, Side]
MakeSides = Callable[[Shape], Sides]


@pytest.fixture
def make_sides(tmp_path: Path, redis_server: RedisServer, peer: str) -> Iterator[MakeSides]:
    """Make the projects of both packages for a shape; none of their beats runs yet."""
    with contextlib.ExitStack() as stack:

        def make(name: str, python: str, shape: Shape, broker_db: int, schedule_db: int) -> Side:
            directory = tmp_path / name
            directory.mkdir()
            broker = stack.enter_context(contextlib.closing(redis_server.client(broker_db)))
            schedule = stack.enter_context(contextlib.closing(redis_server.client(schedule_db)))
            urls = {
                "broker_url": redis_server.url(broker_db),
                "redbeat_redis_url": redis_server.url(schedule_db),
                "own_redis_url": redis_server.url(schedule_db),
            }
            side = Side(directory, python, shape, broker, schedule, urls)
            stack.callback(side.project.close)
            return side

        def make_both(shape: Shape) -> Sides:
            ours, theirs = make("ours", sys.executable, shape, 1, 0), make("2x", peer, shape, 3, 2)
            assert theirs.project.script(IS_INSTALLED, python=peer).strip() == "True"
            return {OURS: ours, THEIRS: theirs}

        yield make_both


class Race:
    """Two beats on a side, taken through a failover step by step.

    The one that sends first leads, and the other one stands by.
    """

    leader: Program
    standby: Program

    def __init__(self, side: Side) -> None:
        self.side = side
        self._beats = [side.beat() for _ in range(2)]
        self.struck_at = self.opened_at = self.ended_at = 0.0
        self.came_back = False

    def find_leader(self) -> None:
        """Wait until one of the beats has sent, and the other one is up."""
        self._wait(lambda: bool(self.side.messages()), 30, "a message")
        first = self.side.messages()[0]
        self._beats.sort(key=lambda beat: beat.pid != sender(first))
        self.leader, self.standby = self._beats
        assert self.leader.pid == sender(first)
        self.standby.wait_for_line("beat: Starting")

    def await_runs(self, beat: Program, runs: int) -> None:
        """Wait until a beat has sent each entry so many times more than by now."""
        before = self.side.sent(beat.pid)

        def has_run() -> bool:
            sent = self.side.sent(beat.pid)
            return all(sent[name] - before[name] >= runs for name in self.side.shape.names)

        self._wait(has_run, 20 + runs, f"{runs} more runs from {beat.pid}")

    def strike(self) -> None:
        """Do to the leader what its fate is, at a moment at which no run is under way."""
        self.await_quiet()
        self.struck_at = time.time()
        acts: dict[str, Act] = {
            KILLED: Program.kill,
            TERMINATED: Program.terminate,
            FROZEN: Program.freeze,
        }
        acts[self.side.shape.fate](self.leader)

    def open_gate(self) -> None:
        """Let the entries through that are held back."""
        self.opened_at = time.time()
        self.side.open_gate()

    def await_gated(self) -> None:
        """Wait until the entries that were held back have run."""
        gated = set(self.side.shape.gated)
        self._wait(lambda: gated <= set(self.side.sent()), 10, f"runs of {gated}")

    def end(self) -> int:
        """End the standby that leads now; gives its exit status."""
        self.await_quiet()
        self.ended_at = time.time()
        return self.standby.terminate()

    def see_whether_it_came_back(self) -> None:
        """Let a beat that was frozen lead again, if it stood by."""
        if self.leader.is_running():
            self.await_runs(self.leader, 1)
            self.await_quiet()
            self.came_back = self.leader.terminate() == 0

    def await_quiet(self) -> None:
        """Wait until all entries have just run; the next runs are a while away.

        2.x loses a run in whose midst it is ended.
        """
        with contextlib.suppress(TimeoutError):  # The check of the counts will tell.
            wait_until(self._is_quiet, 3, "a moment between two runs")

    def _is_quiet(self) -> bool:
        last = [self.side.times(name)[-1] for name in self.side.shape.names]
        return time.time() - min(last) < QUIET and self.side.is_settled()

    def _wait(self, condition: Callable[[], bool], timeout: float, message: str) -> None:
        try:
            wait_until(condition, timeout, message)
        except TimeoutError as error:
            logs = [f"The log of {beat.pid}:\n{beat.log}" for beat in self._beats]
            raise TimeoutError("\n".join([str(error), *logs])) from None


Races = dict[str, Race]


def run_both(sides: Sides) -> tuple[Races, dict[str, int]]:
    """Take both sides through a failover, at the same time; gives the exit statuses, too."""
    races = {name: Race(side) for name, side in sides.items()}
    both = list(races.values())
    for race in both:
        race.find_leader()
    for race in both:
        race.await_runs(race.leader, race.side.shape.runs)
    for race in both:
        race.strike()
    for race in both:
        race.await_runs(race.standby, 1)
        race.open_gate()
    for race in both:
        race.await_runs(race.standby, 1)
        race.await_gated()
    if both[0].side.shape.fate == FROZEN:
        for race in both:
            race.leader.thaw()
        for race in both:
            race.await_runs(race.standby, 2)
    statuses = {name: race.end() for name, race in races.items()}
    if both[0].side.shape.fate == FROZEN:
        for race in both:
            race.see_whether_it_came_back()
    return races, statuses


def find_faults(race: Race) -> Iterator[str]:
    """All that is wrong with the runs of one side."""
    yield from find_faults_of_lead(race)
    yield from find_faults_of_counts(race)
    yield from find_faults_of_times(race)
    yield from find_faults_of_hooks(race)
    yield from find_faults_of_waits(race)
    yield from find_complaints(race)


def find_faults_of_lead(race: Race) -> Iterator[str]:
    """Beats that sent out of turn, or were ticked while another one led."""
    side, leader, standby = race.side, race.leader, race.standby
    turns = [leader.pid, standby.pid]
    terms = [pid for pid, _ in itertools.groupby(side.messages(), key=sender)]
    if terms[:2] != turns or terms[2:] not in ([], [leader.pid]):
        yield f"the turns of {turns} were {terms}"
    ticks = [call.at for call in side.calls("tick", standby.pid) if call.at < race.struck_at]
    if ticks:
        yield f"the standby was ticked {len(ticks)} times while another beat led"
    taken = min(m.headers[SENT_AT] for m in side.messages() if sender(m) == standby.pid)
    ticks = [call.at for call in side.calls("tick", leader.pid) if taken < call.at < race.ended_at]
    if len(ticks) > 1:
        yield f"a beat that had lost the lead was ticked {len(ticks)} times while another beat led"


def find_faults_of_counts(race: Race) -> Iterator[str]:
    """Runs without a message, and messages without a run."""
    side = race.side
    sent, counted = side.sent(), side.counted()
    dropped = Counter(call.detail for call in side.calls("dropped"))
    if sent + dropped != counted:
        yield f"sent {dict(sent)}, dropped {dict(dropped)}, counted {dict(counted)}"
    noted = len(side.calls("sent"))
    if side.shape.notes_sent and noted != sent.total():
        yield f"apply_async was called for {noted} runs, of which {sent.total()} were sent"


def find_faults_of_times(race: Race) -> Iterator[str]:
    """Runs that share a period, periods without a run, and runs that were to be held back."""
    side = race.side
    for name in side.shape.all:
        times = side.times(name)
        if min(gaps(times), default=PERIOD) < PERIOD - EARLY:
            yield f"{name} ran twice in a period, the seconds between runs: {gaps(times)}"
        for beat in (race.leader, race.standby):
            of_beat = gaps(side.times(name, beat.pid))
            if side.shape.fate != FROZEN and max(of_beat, default=PERIOD) > PERIOD + LATE:
                yield f"{name} missed a period, the seconds between runs: {of_beat}"
    for name in side.shape.gated:
        early = [at for at in side.times(name) if at < race.opened_at]
        if early:
            yield f"{name} was sent {len(early)} times while it was held back"


def find_faults_of_hooks(race: Race) -> Iterator[str]:
    """Overrides that were not called, or were without effect."""
    side = race.side
    for beat in (race.leader, race.standby):
        missing = {word for word in side.shape.words if not side.calls(word, beat.pid)}
        if missing:
            yield f"beat {beat.pid} never called {missing}"
    if side.shape.header:
        name, value = side.shape.header
        without = [m for m in side.messages() if m.headers.get(name) != value]
        if without:
            yield f"{len(without)} of {len(side.messages())} messages lack the header {name}"


def find_faults_of_waits(race: Race) -> Iterator[str]:
    """Ticks that block, or whose wait is not kept to, where the subclass notes its waits."""
    beat = race.leader
    calls = [call for call in race.side.calls("tick", beat.pid) if call.detail]
    if not calls:
        return
    waits, durations = zip(*(map(float, call.detail.split(",")) for call in calls), strict=True)
    if max(waits) <= CAP:
        yield f"super().tick() never returned a wait of more than {max(waits)} s"
    if max(durations) > PERIOD / 2:
        yield f"super().tick() took up to {max(durations):.3f} s"
    pauses = gaps([call.at for call in calls])
    if max(pauses) > CAP + PERIOD / 2:
        yield f"the override was not called again for up to {max(pauses)} s"


def find_complaints(race: Race) -> Iterator[str]:
    """The lines of a log that a person would be alarmed at."""
    beats = [race.standby] if race.side.shape.fate == FROZEN else [race.leader, race.standby]
    for beat in beats:
        found = re.findall(r".*(?:ERROR|CRITICAL|Error).*", beat.log)
        if found:
            yield f"{len(found)} lines of alarm in the log, such as: {found[0]}"


def gaps(times: list[float]) -> list[float]:
    """The seconds between each two runs."""
    return [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]


def compare(ours: Race, theirs: Race) -> Iterator[str]:
    """Where the two sides differ."""
    for name in ours.side.shape.all:
        stored, stored_by_2x = ours.side.definition(name), theirs.side.definition(name)
        if stored != stored_by_2x:
            yield f"stored is {stored}, by 2.x {stored_by_2x}"
        for beats in ((ours.leader, theirs.leader), (ours.standby, theirs.standby)):
            times = [
                race.side.times(name, beat.pid)
                for race, beat in zip((ours, theirs), beats, strict=True)
            ]
            counts = count_in_common(*times)
            if name in ours.side.shape.names and abs(counts[0] - counts[1]) > 1:
                yield f"runs of {name} in the same time, ours and those of 2.x: {counts}"
    sent, sent_by_2x = (
        {(m.args[0], str(m.kwargs)) for m in race.side.messages()} for race in (ours, theirs)
    )
    if sent != sent_by_2x:
        yield f"sent are {sent}, by 2.x {sent_by_2x}"
    shown, shown_by_2x = (
        re.findall(r"\. (?:lock|maxinterval) -> .*", race.leader.log) for race in (ours, theirs)
    )
    if shown != shown_by_2x:
        yield f"the banner says {shown}, that of 2.x {shown_by_2x}"


def count_in_common(ours: list[float], theirs: list[float]) -> tuple[int, int]:
    """How many runs each side made in the time in which both made some.

    Half a period more at either end, since the runs of the two sides lie up to that far apart.
    """
    if not ours or not theirs:
        return len(ours), len(theirs)
    begin = max(ours[0], theirs[0]) - PERIOD / 2
    end = min(ours[-1], theirs[-1]) + PERIOD / 2
    mine, other = (sum(begin <= at <= end for at in times) for times in (ours, theirs))
    return mine, other


@pytest.mark.parametrize("name", SHAPES)
def test_a_subclass_makes_the_runs_that_2x_makes(name: str, make_sides: MakeSides) -> None:
    """No run is doubled, lost or sent by a beat that does not lead, and each one is counted."""
    shape = SHAPES[name]
    races, statuses = run_both(make_sides(shape))
    faults = list(find_faults(races[OURS]))
    if statuses[OURS]:
        faults.append(f"exit status {statuses[OURS]}")
    # On a busy host 2.x loses its connection or its lock at times, and there is nothing to compare.
    if not statuses[THEIRS] and not list(find_faults(races[THEIRS])):
        faults += [f"compared: {fault}" for fault in compare(races[OURS], races[THEIRS])]
    if shape.fate == FROZEN and not races[OURS].came_back:
        faults.append("the beat that lost the lead did not stand by")
    assert not faults, "\n".join(faults)
