"""Signals that end the process, held back while a batch is on its way."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from redbeat.beat.interrupts import hold_back_signals


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The signals that the program's own handler got, in order."""
    seen: list[int] = []
    before = {
        number: signal.signal(number, lambda signum, frame: seen.append(signum))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handled_at_the_end_of_the_block(
    handled: list[int], number: signal.Signals
) -> None:
    """And the block can tell that one came."""
    with hold_back_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert handled == []
    assert handled == [number]


def test_a_second_signal_ends_the_block_at_once(handled: list[int]) -> None:
    """A broker call that hangs must not make beat immortal."""

    def send_twice() -> None:
        with hold_back_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the second signal was held back")

    with pytest.raises(SystemExit):
        send_twice()
    assert handled == [signal.SIGTERM]


def test_the_handlers_are_put_back(handled: list[int]) -> None:
    """After the block, signals are handled where they come."""
    with hold_back_signals():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert handled == [signal.SIGTERM]


def test_the_default_action_is_taken_at_the_end_of_the_block() -> None:
    """SIGINT's default handler raises `KeyboardInterrupt`."""
    with pytest.raises(KeyboardInterrupt), hold_back_signals():
        os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_nothing_is_held_back() -> None:
    """Python handles signals in the main thread alone."""
    seen: list[bool] = []

    def run() -> None:
        with hold_back_signals() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_block_that_hangs_is_ended_after_a_while(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One SIGTERM is enough to end a beat whose broker does not answer."""
    monkeypatch.setattr("redbeat.beat.interrupts.SIGNAL_PATIENCE", 0.1)

    def hang() -> None:
        with hold_back_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(30)
            pytest.fail("the block was not ended")

    with pytest.raises(SystemExit):
        hang()
    assert handled == [signal.SIGTERM]
