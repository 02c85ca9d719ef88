"""Ctrl-C and SIGTERM: stop at once, or after work that can be resumed, whatever library code does meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
ANNOUNCEMENT: Final = b"stopping...\n"
GRACE_S: Final = 10.0  # for a checkpoint and clean-up; then the process exits, as after kill -9


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception, so that `finally` blocks run as they do after Ctrl-C."""


class Stop:
    """The first Ctrl-C or SIGTERM during the block of `installed`.

    Python runs signal handlers only in the main thread, between two instructions: late if that thread is in TensorFlow.
    And library code may catch the exception that the handler raises. So another thread, woken through a pipe, prints
    the message, ends the process at once after a second signal, and ends it GRACE_S after the first if the block still
    runs. Code that must not run after a stop calls `check`.

    Attributes:
        number: of the signal; None before it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._announced, self._left = threading.Event(), threading.Event()

    @contextmanager
    def installed(self, announce: Callable[[], object]) -> Iterator[None]:
        """Handle both signals during the block, except those that the process ignores. Only in the main thread.

        Args:
            announce: called once, in another thread.
        """
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        watch = threading.Thread(target=self._watch, args=(read_end, announce), daemon=True)
        watch.start()
        try:
            with _handled(self._handle, write_end):
                yield
        finally:
            self._left.set()
            os.close(write_end)  # ends the thread, after the announcement of a signal that has arrived
            watch.join(timeout=1.0)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.number or 0)

    def check(self) -> None:
        """Raise KeyboardInterrupt or Terminated if a signal has arrived, even if its exception was caught."""
        if self.number is not None:
            _raise(self.number, None)

    def exit(self, message: str) -> NoReturn:
        """End the process after the announcement, with a last line, but without the end of the block and of threads."""
        self._announced.wait(timeout=1.0)
        with suppress(OSError):  # a closed terminal
            print(message, file=sys.stderr, flush=True)
        os._exit(self.exit_code)

    def _handle(self, number: int, _: object) -> None:
        self.number = self.number or number
        self.check()

    def _watch(self, read_end: int, announce: Callable[[], object]) -> None:
        first = True
        while received := os.read(read_end, 1):
            if received[0] not in SIGNALS:
                continue
            self.number = self.number or received[0]
            if not first:
                os._exit(self.exit_code)
            first = False
            with suppress(Exception):  # a closed terminal
                announce()
            self._announced.set()
            threading.Thread(target=self._exit_after_grace, daemon=True).start()
        os.close(read_end)

    def _exit_after_grace(self) -> None:
        if not self._left.wait(GRACE_S):
            os._exit(self.exit_code)


@contextmanager
def only_raised() -> Iterator[None]:
    """During the block, inside that of `Stop.installed`, a signal raises and does nothing else: no deadline follows.

    For a server in the foreground, which ends in order, however long that takes. Only in the main thread.
    """
    with _handled(_raise, wakeup=-1):
        yield


@contextmanager
def _handled(handler: Callable[[int, Any], object], wakeup: int) -> Iterator[None]:
    """Handle both signals, except those that the process ignores, and write them to the descriptor `wakeup`."""
    wakeup_before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    before = {n: signal.signal(n, handler) for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
        signal.set_wakeup_fd(wakeup_before)


def _raise(number: int, _: object) -> None:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def exit_at_once() -> None:
    """Handle both signals by ending the process, without a traceback; except those that the process ignores.

    For the time before and after the block of `Stop.installed`, when there is nothing to finish.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit_at_once)


def _exit_at_once(number: int, _: object) -> None:
    with suppress(OSError):  # stderr is closed
        os.write(2, ANNOUNCEMENT)
    os._exit(128 + number)


@contextmanager
def postponed() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that it yields, and handle the first one at the end of the block.

    If the handler returns, SystemExit(128 + signal) ends the process. Signals that the process ignores stay ignored.
    Does nothing outside the main thread, because only the main thread receives signals.
    """
    received: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.getsignal(s) for s in SIGNALS if signal.getsignal(s) not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            handler = before[signal.Signals(received[0])]
            if callable(handler):
                handler(received[0], None)
            else:
                signal.raise_signal(received[0])
            raise SystemExit(128 + received[0])
