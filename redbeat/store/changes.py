"""How a change is made on this server: by scripts, or in another way once it has refused that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from celery.utils.log import get_logger
from redis.exceptions import ClusterCrossSlotError, ResponseError

from .access import Access
from .keys import OwnKeys
from .plain import PlainSteps
from .retrying import error_code, is_of_one_key
from .scripted import ScriptedSteps
from .scripts import Call, refuses_scripts
from .topology import Topology

logger = get_logger("celery.beat")

Result = TypeVar("Result")

Steps = ScriptedSteps | PlainSteps


class Changes:
    """The steps that this server takes; each refusal of a kind of step leads to the next kind."""

    def __init__(self, access: Access, keys: OwnKeys) -> None:
        self._access, self._keys = access, keys

    @cached_property
    def steps(self) -> Steps:
        """The steps as far as the server is known; the client is not looked at before."""
        topology = Topology.of(self._access.direct, self._keys.schedule_key)
        return ScriptedSteps(self._access, self._keys, topology)

    def make(self, step: Callable[[Steps], Result]) -> Result:
        """Take a step, and take it in another way if the server refuses this one."""
        while True:
            try:
                return step(self.steps)
            except ResponseError as exc:
                if not self._adapts_to(exc):
                    raise

    def run(self, call: Call, plainly: Callable[[], Result]) -> Any:
        """Run a script, or ``plainly`` where the server does not run scripts."""
        return self.make(
            lambda steps: steps.run(call) if isinstance(steps, ScriptedSteps) else plainly()
        )

    def make_sparing(
        self,
        keys: Sequence[str],
        step: Callable[[Steps, Mapping[str, ResponseError]], Result],
    ) -> tuple[Result, dict[str, ResponseError]]:
        """Take a step with entries; if Redis refuses a key, once more, given what it refuses.

        Returns the result, and the errors for the refused keys, which name them.
        """
        refused: dict[str, ResponseError] = {}
        while True:
            try:
                return step(self.steps, refused), refused
            except ResponseError as exc:
                if self._adapts_to(exc):
                    continue
                if refused or not is_of_one_key(exc):
                    raise
                refused = self.make(lambda steps: steps.find_refused(keys))
                if not refused:
                    raise

    def _adapts_to(self, exc: ResponseError) -> bool:
        """Whether there is another way to do what this server refuses, from now on."""
        topology = self.steps.topology
        if not topology.is_spread and _crosses_slots(exc):
            logger.warning(
                "beat: This Redis is a proxy in front of a cluster (%s): an entry and the schedule "
                "are changed one after the other. To keep all keys of the schedule in one slot, "
                "set redbeat_key_prefix = '{redbeat}:'.",
                exc,
            )
            topology = replace(topology, is_spread=True)
            self.steps = type(self.steps)(self._access, self._keys, topology)
            return True
        if isinstance(self.steps, ScriptedSteps) and refuses_scripts(exc):
            logger.warning(
                "beat: This Redis does not run scripts (%s): using plain commands. Run only one "
                "beat: two of them could run an entry twice.",
                exc,
            )
            self.steps = PlainSteps(self._access, self._keys, topology)
            return True
        return False


def _crosses_slots(exc: ResponseError) -> bool:
    return isinstance(exc, ClusterCrossSlotError) or error_code(exc) == "CROSSSLOT"
