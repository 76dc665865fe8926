"""The table: rows of figures, and the targets that they are held to."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.contestants import CONTESTANTS, OURS, PEER

Unit = Callable[[float], str]

COLUMNS = ("measure", *CONTESTANTS, "ratio", "target", "reached")
MILLISECONDS = 1e-3
MICROSECONDS = 1e-6
MEBIBYTE = 1 << 20


class Target(NamedTuple):
    """What is to be reached; `ratio` is left out where the figure itself is held to the target."""

    text: str
    reached: bool
    ratio: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        measure: What was measured.
        figures: By contestant; those who did not take part are left out.
        unit: Writes a figure down.
        targets: In the order in which they are printed, a line each.
    """

    measure: str
    figures: Mapping[str, float]
    unit: Unit
    targets: Sequence[Target] = ()


def at_least(limit: float, ratio: float, whose: str) -> Target:
    """A figure that is `limit` times `whose`, or more."""
    return Target(f"at least {limit:g} of {whose}", ratio >= limit, ratio)


def at_most(limit: float, ratio: float, whose: str) -> Target:
    """A figure that is `limit` times `whose`, or less."""
    return Target(f"at most {limit:.3g} of {whose}", ratio <= limit, ratio)


def no_less_than(limit: float, figure: float, unit: Unit) -> Target:
    """A figure that is held to a number."""
    return Target(f"at least {unit(limit)}", figure >= limit)


def no_more_than(limit: float, figure: float, unit: Unit) -> Target:
    """A figure that is held to a number."""
    return Target(f"at most {unit(limit)}", figure <= limit)


def number(figure: float) -> str:
    """A count, or a share of one."""
    return f"{figure:.2f}".rstrip("0").rstrip(".")


def rate(figure: float) -> str:
    """So many a second."""
    return f"{figure:,.0f}/s"


def duration(figure: float) -> str:
    """Seconds, written in the unit that suits; infinity is what did not come in time."""
    if math.isinf(figure):
        return "not in time"
    if figure >= 1:
        return f"{figure:.2f} s"
    if figure >= MILLISECONDS:
        return f"{figure / MILLISECONDS:.2f} ms"
    return f"{figure / MICROSECONDS:.1f} us"


def memory(figure: float) -> str:
    """Bytes, written in MiB."""
    return f"{figure / MEBIBYTE:.1f} MiB"


def render(rows: Iterable[Row]) -> str:
    """The whole table, in Markdown."""
    cells = [COLUMNS, *(line for row in rows for line in _lines(row))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = (_join(line, widths) for line in cells)
    return "\n".join([head, _join(["-" * width for width in widths], widths), *body])


def _lines(row: Row) -> list[tuple[str, ...]]:
    figures = tuple(
        row.unit(row.figures[name]) if name in row.figures else "" for name in CONTESTANTS
    )
    if not row.targets:
        return [(row.measure, *figures, _plain_ratio(row), "", "")]
    first, *others = map(_target_cells, row.targets)
    blank = ("",) * (1 + len(figures))
    return [(row.measure, *figures, *first), *((*blank, *other) for other in others)]


def _plain_ratio(row: Row) -> str:
    """Ours to that of 2.x, for the reader; nothing is held to it."""
    if not row.figures.get(PEER):
        return ""
    return f"{row.figures[OURS] / row.figures[PEER]:.3g}"


def _target_cells(target: Target) -> tuple[str, str, str]:
    ratio = "" if target.ratio is None else f"{target.ratio:.3g}"
    return ratio, target.text, "yes" if target.reached else "NO"


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
