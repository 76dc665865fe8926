"""The command line of the benchmark."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    edits,
    evaluation,
    idle,
    instructions,
    punctuality,
    quiet,
    sharing,
    storing,
    throughput,
    traffic,
)
from benchmarks.facts import facts
from benchmarks.house import House, open_house
from benchmarks.sizes import FULL, QUICK
from benchmarks.table import Row, render

MEASUREMENTS: dict[str, Callable[[House], list[Row]]] = {
    "due intervals, loopback": throughput.intervals,
    "due crontabs, loopback": throughput.crontabs,
    "due intervals, 1 ms per round trip": throughput.delayed_intervals,
    "due crontabs, 1 ms per round trip": throughput.delayed_crontabs,
    "traffic": traffic.traffic,
    "instructions": instructions.instructions,
    "idle tick and memory": idle.idle,
    "busy memory": idle.busy,
    "two beats": sharing.sharing,
    "storing": storing.storing,
    "is_due": evaluation.evaluation,
    "one-second entries": punctuality.punctuality,
    "edits while beat sleeps": edits.edits,
    "idle beat's commands": quiet.quiet,
}


def main() -> None:
    """Measure, and print the table."""
    options = _parser().parse_args()
    sizes = QUICK if options.quick else FULL
    with (
        tempfile.TemporaryDirectory() as directory,
        open_house(Path(directory), sizes) as house,
    ):
        head = facts(house)
        rows = list(_measure(house, options.rows))
        print(f"{head}\n\n{render(rows)}")


def _measure(house: House, wanted: str) -> Iterator[Row]:
    for name, measure in MEASUREMENTS.items():
        if wanted in name:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            yield from measure(house)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=main.__doc__)
    parser.add_argument(
        "--rows",
        default="",
        metavar="TEXT",
        help=f"measure only what has this in its name: {'; '.join(MEASUREMENTS)}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small numbers, one run: to see that all works"
    )
    return parser


if __name__ == "__main__":
    main()
