"""Which keys may be changed together: on one server, in a Redis Cluster, or behind a proxy.

A script and a transaction may touch the keys of one slot. One server has no slots. In a cluster, or
behind a proxy in front of one, the schedule and the hashes of its entries share a slot only if
their prefix has a ``{hash tag}``. Without it, a change to both takes two steps, in the order that
loses nothing: the hash first, the schedule second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .keys import hash_tag
from .records import Outcome

Item = TypeVar("Item")

#: The most that one script is given, unless a single entry has more: how many entries, bytes and
#: arguments. Other clients wait until it ends, and some services limit the arguments of a command.
SCRIPT_ENTRIES = 100
SCRIPT_BYTES = 256 * 1024
SCRIPT_ARGUMENTS = 3900

#: The most entries that one script is given where several would be no transaction: there, only what
#: one script does is atomic, and each costs a round trip.
SPREAD_ENTRIES = 1000


@dataclass(frozen=True)
class Topology:
    """Where the keys of one schedule live.

    ``is_cluster``: the client is one of Redis Cluster, which sends each command to a node.
    ``is_spread``: keys may live on several nodes, as behind a proxy as well.
    """

    schedule_key: str
    is_cluster: bool = False
    is_spread: bool = False

    @classmethod
    def of(cls, client: Any, schedule_key: str) -> Topology:
        """The topology that the class of a client shows; it does not show a proxy."""
        is_cluster = hasattr(client, "nodes_manager")
        return cls(schedule_key, is_cluster, is_spread=is_cluster)

    @property
    def has_transactions(self) -> bool:
        """Whether commands on an entry's hash and on the schedule can be one transaction."""
        return not self.is_spread

    @property
    def is_one_slot(self) -> bool:
        """Whether a script may touch the hash of an entry and the schedule at once."""
        return not self.is_spread or hash_tag(self.schedule_key) is not None

    def groups(self, items: Sequence[Item], in_one_slot: bool = False) -> list[Sequence[Item]]:
        """Items that each stand for an entry, in groups that one script may change.

        ``in_one_slot``: it changes nothing but the schedule.
        """
        if not self.is_spread:
            return in_groups(items)
        size = SPREAD_ENTRIES if in_one_slot or self.is_one_slot else 1
        return [items[start : start + size] for start in range(0, len(items), size)]

    def groups_of_outcomes(self, outcomes: Sequence[Outcome]) -> list[Sequence[Outcome]]:
        """Outcomes in such groups, where keys may lack the hash tag of the schedule.

        Other programs may have put such keys into the schedule.
        """
        if not self.is_spread:
            return self.groups(outcomes)
        tag = hash_tag(self.schedule_key)
        together: list[Outcome] = []
        apart: list[Sequence[Outcome]] = []
        for outcome in outcomes:
            if tag is not None and hash_tag(outcome.key) == tag:
                together.append(outcome)
            else:
                apart.append([outcome])
        return [*self.groups(together), *apart]


def in_groups(
    items: Sequence[Item], arguments_of: Callable[[Item], int] | None = None
) -> list[Sequence[Item]]:
    """The items in groups, each no more than one script is given.

    ``arguments_of`` tells how many arguments an item has; ``None``: a few.
    """
    groups: list[Sequence[Item]] = []
    start = size = arguments = 0
    for position, item in enumerate(items):
        its_size, its_arguments = size_of(item), arguments_of(item) if arguments_of else 0
        size, arguments = size + its_size, arguments + its_arguments
        is_full = (
            position - start == SCRIPT_ENTRIES
            or size > SCRIPT_BYTES
            or arguments > SCRIPT_ARGUMENTS
        )
        if is_full and position > start:
            groups.append(items[start:position])
            start, size, arguments = position, its_size, its_arguments
    if items:
        groups.append(items[start:])
    return groups


def size_of(item: Any) -> int:
    """About how many bytes an item has among the arguments of a script."""
    if isinstance(item, (str, bytes)):
        return len(item)
    return sum(map(size_of, item)) if isinstance(item, (tuple, list)) else 8
