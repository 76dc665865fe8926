"""Targets against runs: each due slot of an entry must match exactly one message."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Slot(NamedTuple):
    """A time at which an entry was due, or for which a message of it was sent.

    Attributes:
        entry: The entry's name.
        due: What tells this slot from the others of the entry: a time, or a number.
    """

    entry: str
    due: str

    def __str__(self) -> str:
        return f"{self.entry} at {self.due}"


@dataclass(frozen=True)
class Verdict:
    """How the messages match the slots.

    Attributes:
        lost: The slots that have no message, each as often as messages are missing.
        doubled: A slot for each message too many, and for each one that matches no due slot.
    """

    lost: tuple[Slot, ...] = ()
    doubled: tuple[Slot, ...] = ()

    def __bool__(self) -> bool:
        """Whether each slot has its one message."""
        return not (self.lost or self.doubled)


def compare(targets: Iterable[Slot], runs: Iterable[Slot]) -> Verdict:
    """Match each target with one run.

    Args:
        targets: The slots that were due.
        runs: The slots that the messages at the broker name.
    """
    due, made = Counter(targets), Counter(runs)
    return Verdict(_in_order(due - made), _in_order(made - due))


def numbered(counts: Mapping[str, int]) -> list[Slot]:
    """A slot for each run of entries of which only the number of runs is known."""
    return [
        Slot(entry, f"run {number}")
        for entry, count in counts.items()
        for number in range(1, count + 1)
    ]


def _in_order(slots: Counter[Slot]) -> tuple[Slot, ...]:
    return tuple(sorted(slots.elements()))
