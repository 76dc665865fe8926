"""The masters that Sentinel names for a beat: that of the schedule and that of the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..store.sentinels import Master, connection_pool, pool_of_channel


class Masters:
    """The masters of one beat; without sentinels they cost nothing and are always sure."""

    def __init__(self, get_client: Callable[[], Any], get_channel: Callable[[], Any]) -> None:
        self.of_schedule = Master(lambda: connection_pool(get_client()))
        self.of_broker = Master(lambda: pool_of_channel(get_channel()))

    def are_sure(self) -> bool:
        """Whether no sentinel names another master than those that beat writes to."""
        return self.of_schedule.is_sure() and self.of_broker.is_sure()

    def close(self) -> None:
        """Close the connections to the sentinels."""
        self.of_schedule.close()
        self.of_broker.close()
