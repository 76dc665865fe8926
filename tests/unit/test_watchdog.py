"""When a main thread counts as stalled, and what becomes of its process."""

import logging
import threading

import pytest

from redbeat.beat.watchdog import EXIT_STALLED, TAKEOVER_TIME, Watchdog

STALL = 60


class Watched:
    """A main thread whose clock is set by hand; its failover timeout has always passed already."""

    def __init__(self, is_replaced: bool = False) -> None:
        self.now = 1000.0
        self.is_replaced = is_replaced
        self.stop = threading.Event()
        self.ended: list[int] = []
        self.watchdog = Watchdog(STALL, -TAKEOVER_TIME, self.ask, clock=lambda: self.now)
        self.watchdog.end_process = self.end

    def ask(self) -> bool:
        if self.is_replaced:
            self.watchdog.expect(0)
        return self.is_replaced

    def end(self, status: int) -> None:
        self.ended.append(status)
        self.stop.set()


def test_a_sleep_and_a_long_tick_are_not_a_stall() -> None:
    """Progress, or a sleep that was meant to be that long."""
    watched = Watched()
    watched.watchdog.expect(300)
    watched.now += 300 + STALL - 1
    assert not watched.watchdog.is_stalled
    watched.now += 2
    assert watched.watchdog.is_stalled
    watched.watchdog.expect(0)
    assert not watched.watchdog.is_stalled


def test_a_thread_that_makes_progress_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.watchdog.expect(0)
    watched.watchdog.outlast_stall(watched.stop)
    assert caplog.records == []


def test_a_stalled_process_that_nobody_replaces_ends(caplog: pytest.LogCaptureFixture) -> None:
    """It first says where it hangs."""
    watched = Watched()
    watched.watchdog.expect(0)
    watched.now += STALL + 1
    watched.watchdog.outlast_stall(watched.stop)
    assert watched.ended == [EXIT_STALLED]
    hangs, ends = [r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "test_a_stalled_process_that_nobody_replaces_ends" in hangs
    assert "Ending this process" in ends


def test_a_stalled_process_that_is_replaced_stays() -> None:
    watched = Watched(is_replaced=True)
    watched.watchdog.expect(0)
    watched.now += STALL + 1
    watched.watchdog.outlast_stall(watched.stop)
    assert watched.ended == []


def test_a_stalled_process_ends_although_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where the number of processes is limited: it ends without a word."""
    watched = Watched()
    watched.watchdog.expect(0)
    watched.now += STALL + 1

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    watched.watchdog.outlast_stall(watched.stop)
    assert watched.ended == [EXIT_STALLED]


def test_the_stack_of_a_thread_that_is_gone_is_not_made_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched()
    gone = threading.Thread(target=watched.watchdog.watch_this_thread)
    gone.start()
    gone.join()
    watched.watchdog.expect(0)
    watched.now += STALL + 1
    watched.watchdog.outlast_stall(watched.stop)
    assert "its stack is unknown" in caplog.text
    assert "outlast_stall" not in caplog.text
