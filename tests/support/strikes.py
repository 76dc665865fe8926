"""Ways to strike a beat in the midst of its work, and to see the runs through after that."""

import random
import threading
from collections.abc import Callable, Iterator
from itertools import cycle, islice

from support.campaign import Field
from support.programs import Program
from support.runs import Strike
from support.tripwire import Tripwire
from support.waiting import wait_until

#: Waits, in a field whose runs are armed, until it is time to strike.
Moment = Callable[[Field], None]


def at_random(field: Field) -> None:
    """At any instant of the tick that sends the first batch."""
    field.runs.wait_for_first_message()
    field.pass_part_of_a_tick()


def as_a_batch_appears(field: Field) -> None:
    """At the very moment when a batch, any of them, appears in the broker's queue."""
    field.runs.wait_for_messages(field.choose_batch())


MOMENTS = {"at random": at_random, "as a batch appears": as_a_batch_appears}


def strike_in_mid_tick(field: Field, moment: Moment = at_random) -> None:
    """Kill a beat while it dispatches, and let the next one do the rest."""
    beat = field.start_beat()
    field.runs.arm()
    moment(field)
    strike = field.kill(beat)
    next_beat = field.start_beat()
    field.runs.wait_until_settled()
    assert next_beat.terminate() == 0
    assert not field.find_miscounted()
    field.note(strike)


def kill_the_leader(field: Field, leader: Program, moment: Moment = at_random) -> Program:
    """Kill the leader while a standby waits, which continues; gives the standby."""
    standby = field.start_beat()
    field.runs.arm()
    moment(field)
    strike = field.kill(leader)
    field.runs.wait_until_settled()
    field.note(strike)
    return standby


def count_requests(field: Field, tripwire: Tripwire, wire: str) -> int:
    """How many round trips a new beat makes on this wire for one round of runs."""
    beat = field.start_beat(**{wire: field.url_through(tripwire, wire)})
    requests = count_requests_of_a_round(field, tripwire)
    beat.terminate()
    return requests


def count_requests_of_a_round(field: Field, tripwire: Tripwire) -> int:
    """How many round trips a beat that runs makes on this wire for one round of runs."""

    def run_all() -> None:
        field.runs.arm()
        field.runs.wait_until_settled()

    requests = tripwire.count_begun(run_all)
    field.note()
    return requests


def choose_requests(requests: int, rounds: int) -> Iterator[int]:
    """A number of a request for each round: each comes once before any comes again."""
    numbers = range(1, 1 + requests)
    return islice(cycle(random.sample(numbers, requests)), rounds)


def arm_and_strike(
    field: Field, tripwire: Tripwire, nth: int, action: Callable[[], object]
) -> bool:
    """Make all runs due, and act at the nth request on this wire; tells if it took so many."""
    tripwire.arm(nth, action)
    field.runs.arm()
    wait_until(
        lambda: tripwire.has_struck() or not field.runs.unsettled(), 60, "the request to strike at"
    )
    has_struck = tripwire.has_struck()
    tripwire.disarm()
    return has_struck


def strike_at_request(field: Field, tripwire: Tripwire, nth: int) -> None:
    """Kill a beat just before its nth request on this wire, counted from when runs are due."""
    beat = field.start_beat()
    arm_and_strike(field, tripwire, nth, beat.kill)
    strike = field.kill(beat)
    next_beat = field.start_beat()
    field.runs.wait_until_settled()
    assert next_beat.terminate() == 0
    field.note(strike)


def thaw_and_settle(field: Field, frozen: Program, strike: Strike) -> None:
    """Let the frozen beat go on, and give it and the other more to do until it is heard of again.

    What it still does of the runs of before shows in the count of all.
    """
    logged = len(frozen.log)

    def is_back() -> bool:
        field.runs.arm(list(field.runs.settled()))
        return len(frozen.log) > logged

    frozen.thaw()
    wait_until(is_back, 30, "a word of the thawed beat")
    field.runs.wait_until_settled()
    assert frozen.is_running()
    assert frozen.terminate() == 0
    assert not field.find_miscounted()
    field.note(strike)


def freeze_the_leader(field: Field, leader: Program, moment: Moment = at_random) -> Program:
    """Freeze the leader while it dispatches, past its claim and its lock; gives the next one."""
    standby = field.start_beat()
    field.runs.arm()
    moment(field)
    strike = field.freeze(leader)
    field.runs.wait_until_settled()
    standby.wait_for_line("Acquired lock")
    thaw_and_settle(field, leader, strike)
    return standby


def freeze_one_of_two(field: Field, moment: Moment = at_random) -> None:
    """Freeze a beat that shares the work with another, which gets its claims when they expire."""
    beat = field.start_beat()
    field.runs.arm()
    moment(field)
    strike = field.freeze(beat)
    field.runs.wait_until_settled()
    thaw_and_settle(field, beat, strike)


def freeze_at_request(field: Field, tripwire: Tripwire, wire: str, nth: int) -> None:
    """Freeze a beat while it waits for the answer to its nth request on this wire."""
    beat = field.start_beat(**{wire: field.url_through(tripwire, wire)})
    arm_and_strike(field, tripwire, nth, beat.freeze)
    strike = field.freeze(beat)
    other = field.start_beat()
    field.runs.wait_until_settled()
    thaw_and_settle(field, beat, strike)
    other.terminate()


def hold_request(field: Field, tripwire: Tripwire, wire: str, nth: int) -> None:
    """Freeze a beat at its nth request on this wire, which arrives when another has done it all."""
    beat = field.start_beat(**{wire: field.url_through(tripwire, wire)})
    held, arrives = threading.Event(), threading.Event()

    def hold() -> None:
        beat.freeze()
        held.set()
        arrives.wait(60)

    tripwire.arm(nth, hold)
    field.runs.arm()
    wait_until(lambda: held.is_set() or not field.runs.unsettled(), 60, "the request to hold")
    if not held.is_set():
        tripwire.disarm()
    strike = field.freeze(beat)
    other = field.start_beat()
    field.runs.wait_until_settled()
    arrives.set()
    tripwire.wait_until_struck()
    thaw_and_settle(field, beat, strike)
    other.terminate()


def cut_at_request(
    field: Field, tripwire: Tripwire, nth: int, cut: Callable[[], object] | None = None
) -> bool:
    """Cut a connection at the nth request on this wire, or all of them; see the runs through.

    Tells whether it took so many requests.
    """
    has_struck = arm_and_strike(field, tripwire, nth, cut or tripwire.drop)
    field.runs.wait_until_settled()
    return has_struck
