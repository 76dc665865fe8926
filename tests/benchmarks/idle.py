"""What the entries cost that are stored and not due: time of an idle tick, memory of beat."""

from functools import partial

from benchmarks.contestants import OURS, PEER, Figures, Medians, column, medians
from benchmarks.entries import HOURLY, overdue
from benchmarks.house import House
from benchmarks.table import Row, Unit, at_most, duration, memory
from benchmarks.ticking import run_ticks

#: Pages that a process happens to touch differ from run to run.
SAME_MEMORY = 1.02


def idle(house: House) -> list[Row]:
    """Nothing is due."""
    runs = house.sizes.runs
    few, many = (_medians(house, runs, stored, 0) for stored in _stored(house))
    return [
        *_compare(house, "idle tick", few, many, "seconds", duration, 1.2),
        *_compare(house, "peak memory, idle", few, many, "memory", memory, SAME_MEMORY),
    ]


def busy(house: House) -> list[Row]:
    """Many entries are due."""
    runs, due = house.sizes.slow_runs, house.sizes.shared
    few, many = (_medians(house, runs, stored, due) for stored in _stored(house))
    measure = f"peak memory, {due:,} due"
    return _compare(house, measure, few, many, "memory", memory, SAME_MEMORY)


def _stored(house: House) -> tuple[int, int]:
    return house.sizes.few, house.sizes.many


def _medians(house: House, runs: int, stored: int, due: int) -> Medians:
    return medians(
        runs,
        {
            OURS: partial(_run, house, house.ours, stored, due),
            PEER: partial(_run, house, house.peer, stored, due),
        },
    )


def _run(house: House, python: str, stored: int, due: int) -> Figures:
    if due:
        ticked = run_ticks(house, python, (overdue(HOURLY), due), stored=stored)
    else:
        ticked = run_ticks(house, python, stored=stored, ticks=house.sizes.idle_ticks)
    return {"seconds": ticked.seconds, "memory": ticked.memory}


def _compare(
    house: House, measure: str, few: Medians, many: Medians, figure: str, unit: Unit, limit: float
) -> list[Row]:
    few_figures, many_figures = column(few, figure), column(many, figure)
    stored_few, stored_many = (f"{stored:,} stored" for stored in _stored(house))
    target = at_most(limit, many_figures[OURS] / few_figures[OURS], stored_few)
    return [
        Row(f"{measure}, {stored_few}", few_figures, unit),
        Row(f"{measure}, {stored_many}", many_figures, unit, [target]),
    ]
