"""What schedulers send, taken down in place of a broker."""

from typing import Any

import pytest

from redbeat import RedBeatScheduler, RedBeatSchedulerEntry


def sending(monkeypatch: pytest.MonkeyPatch, meanwhile: Any = lambda entry: None) -> list[str]:
    """Take down the names of entries that are sent, and do something at that moment."""
    sent: list[str] = []

    def send(self: RedBeatScheduler, entry: RedBeatSchedulerEntry, **kwargs: Any) -> None:
        self.reserve(entry)
        sent.append(entry.name)
        meanwhile(entry)

    monkeypatch.setattr(RedBeatScheduler, "apply_async", send)
    return sent
