"""What schedulers send, taken down in place of a broker."""

from typing import Any

import pytest

from redbeat import RedBeatScheduler


class Sent(list[str]):
    """The names of the tasks that were sent, in order.

    Attributes:
        arguments: Positional and keyword arguments of each of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arguments: list[tuple[Any, Any]] = []


def take_down_sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Let no scheduler send anything, and return what they try to send from now on."""
    sent = Sent()

    def send_task(
        self: RedBeatScheduler, name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        sent.append(name)
        sent.arguments.append((args, kwargs))
        return self.app.AsyncResult("some-id")

    monkeypatch.setattr(RedBeatScheduler, "send_task", send_task)
    return sent
