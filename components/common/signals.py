"""Hold Ctrl-C and SIGTERM back until work has reached a point where it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def postponed() -> Iterator[list[int]]:
    """Collects signals in the list it yields; on leaving, the first one is raised as if it came then.

    If nothing else stops the process then, SystemExit(128 + signal) does. Outside of the main thread, which alone
    receives signals, nothing is held back; nor is a signal that the process ignores.
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
