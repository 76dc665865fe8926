"""Which keys may be changed together: on one server, in a Redis Cluster, or behind a proxy.

A script and a transaction may touch the keys of one slot. One server has no slots. In a cluster, or
behind a proxy in front of one, the schedule and the hashes of its entries share a slot only if
their prefix has a ``{hash tag}``. Without it, a change to both takes two steps, in the order that
loses nothing: the hash first, the schedule second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .keys import hash_tag
from .records import Outcome

Item = TypeVar("Item")

#: The most entries that one script changes: other clients wait until it ends.
SCRIPT_SIZE = 1000


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

    def groups(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """Items that each stand for an entry, in groups that one script may change."""
        return in_groups(items) if self.is_one_slot else in_groups(items, 1)

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


def in_groups(items: Sequence[Item], size: int = 0) -> list[Sequence[Item]]:
    """The items in groups of at most ``size``, by default of what one script may change."""
    size = size or SCRIPT_SIZE
    return [items[start : start + size] for start in range(0, len(items), size)]
