"""How soon a sleeping beat sends what was just made due."""

import statistics

from benchmarks.beats import running_beat
from benchmarks.contestants import OURS
from benchmarks.house import House
from benchmarks.table import Row, duration, no_more_than
from benchmarks.workload import measure
from support.messages import QUEUE

#: Seconds after which a message counts as not sent in time.
PATIENCE = 10

POLL_INTERVAL = 5

#: The time to send the message, after the poll that found the entry.
SENDING = 0.1


def edits(house: House) -> list[Row]:
    """Saved entries, and entries written by programs that do not tell beat."""
    saved, written = house.sizes.saves, house.sizes.plain_saves
    return [
        *_save_rows(f"save() to broker, {saved} saves while beat sleeps", _delays(house, "save")),
        _plain_row(f"HSET + ZADD to broker, {written} times", _delays(house, "write_plainly")),
    ]


def _save_rows(measured: str, delays: list[float]) -> list[Row]:
    median, worst = statistics.median(delays), max(delays)
    return [
        Row(f"{measured}: median", {OURS: median}, duration, [no_more_than(0.1, median, duration)]),
        Row(f"{measured}: worst", {OURS: worst}, duration, [no_more_than(0.3, worst, duration)]),
    ]


def _plain_row(measured: str, delays: list[float]) -> Row:
    worst = max(delays)
    target = no_more_than(POLL_INTERVAL + SENDING, worst, duration)
    return Row(f"{measured}: worst", {OURS: worst}, duration, [target])


def _delays(house: House, edit: str) -> list[float]:
    house.clear()
    counts = {"save": house.sizes.saves, "write_plainly": house.sizes.plain_saves}
    job = {"edit": edit, "count": counts[edit], "patience": PATIENCE}
    with running_beat(house.ours, house.loopback):
        house.broker.delete(QUEUE)
        delays: list[float] = measure(house.ours, "edit", **house.loopback._asdict(), **job)[
            "delays"
        ]
    return delays
