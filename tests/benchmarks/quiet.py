"""Commands that an idle beat sends to the Redis of its schedule."""

import contextlib
import time

from benchmarks.beats import compare_beats, settled_beat
from benchmarks.contestants import OURS, Figures, column
from benchmarks.entries import far_off, fill
from benchmarks.house import House, Route
from benchmarks.table import Row, no_more_than, number

MINUTE = 60


def quiet(house: House) -> list[Row]:
    """Counted on the wire, brought to a minute."""
    counts = column(compare_beats(house, _count), "commands")
    target = no_more_than(40, counts[OURS], number)
    measure = f"idle beat, {house.sizes.few:,} stored: commands per minute"
    return [Row(measure, counts, number, [target])]


def _count(house: House, python: str) -> Figures:
    house.clear()
    fill(house.schedule, far_off(), house.sizes.few)
    with contextlib.ExitStack() as stack:
        to_schedule, _ = stack.enter_context(house.proxies())
        route = Route(to_schedule.url(), house.loopback.broker)
        stack.enter_context(settled_beat(python, route))
        traffic = stack.enter_context(to_schedule.counting())
        time.sleep(house.sizes.minute)
        return {"commands": len(traffic.commands) * MINUTE / house.sizes.minute}
