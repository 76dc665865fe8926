"""`maybe_due`, `apply_async` and `setup_schedule` overridden."""

from typing import Any

from redbeat import RedBeatScheduler

from .witness import is_held_back, note


class FilteringApplyAsync(RedBeatScheduler):
    """Does not send some of the entries, which stay due."""

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        if is_held_back(entry):
            note("held-back", entry.name)
            return None
        note("sent", entry.name)
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)


class DroppingApplyAsync(RedBeatScheduler):
    """Lets some of the entries pass without a message: their time is over."""

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        if is_held_back(entry):
            note("dropped", entry.name)
            self.reserve(entry)
            return None
        note("sent", entry.name)
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)


class FilteringMaybeDue(RedBeatScheduler):
    """Does not look at some of the entries, but asks again a little later."""

    def maybe_due(self, entry: Any, **kwargs: Any) -> Any:
        if is_held_back(entry):
            note("held-back", entry.name)
            return 0.5
        return super().maybe_due(entry, **kwargs)


class OwnSetUp(RedBeatScheduler):
    """Has entries in its own code beside those of `beat_schedule`."""

    def setup_schedule(self) -> None:
        note("setup_schedule")
        super().setup_schedule()
        added = {"task": "proj.record", "schedule": 1, "args": ["added"]}
        self.update_from_dict({"added": added})
