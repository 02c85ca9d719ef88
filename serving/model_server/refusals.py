"""Counts of requests that were over a limit."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import Final

log = logging.getLogger("model_server")
LOG_INTERVAL_S: Final = 1.0


class Refusals:
    """Counts what was refused or removed, by reason. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._logged_at = float("-inf")

    def count(self, reason: str) -> None:
        with self._lock:
            self._counts[reason] += 1
            self._unlogged[reason] += 1
            if time.monotonic() - self._logged_at < LOG_INTERVAL_S:
                return
            unlogged, self._unlogged, self._logged_at = self._unlogged, Counter(), time.monotonic()
        log.warning("over a limit: %s", ", ".join(f"{name} {n}" for name, n in sorted(unlogged.items())))

    def counts(self) -> dict[str, int]:
        return dict(self._counts)
