"""Delay Ctrl-C and SIGTERM until the work has reached a point where it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def postponed() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the yielded list, and raise the first one again at the end of the block.

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
            signal.raise_signal(received[0])
            raise SystemExit(128 + received[0])
