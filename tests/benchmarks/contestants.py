"""Who is measured, and how their runs are told from the noise of the machine."""

import statistics
from collections.abc import Callable, Mapping

OURS = "redbeat"
PEER = "2.x"
BARE_LOOP = "bare loop"
BATCHED_LOOP = "batched loop"

#: Also the columns of the table.
CONTESTANTS = (OURS, PEER, BARE_LOOP, BATCHED_LOOP)

Figures = Mapping[str, float]
Medians = dict[str, dict[str, float]]


def medians(runs: int, contestants: Mapping[str, Callable[[], Figures]]) -> Medians:
    """The median of each figure, by contestant.

    They take turns, so that what slows the machine down for a while slows all of them.
    """
    taken: dict[str, list[Figures]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, run in contestants.items():
            taken[name].append(run())
    return {name: _median_figures(each) for name, each in taken.items()}


def column(results: Medians, figure: str) -> dict[str, float]:
    """One figure, by contestant."""
    return {name: figures[figure] for name, figures in results.items() if figure in figures}


def _median_figures(runs: list[Figures]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
