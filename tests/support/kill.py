"""Kills a command between two of its steps. Imports nothing heavy, because each process imports this module."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from serving.client import control
from serving.release import apply, decisions, history


def die_at(step: int, action: str, path: Path, *arguments: Any, **named: Any) -> None:
    """Run an action in its own process, which is killed before step number `step`."""
    remaining = step

    def die_in(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal remaining
            remaining -= 1
            if remaining < 0:
                signal.raise_signal(signal.SIGKILL)
            return real(*arguments, **named)

        setattr(module, name, call)

    die_in(apply, "write_durably")
    die_in(history, "append")
    for name in ("reload", "wait_available", "check_labels", "wait_highest"):
        die_in(control.Control, name)
    getattr(decisions, action)(path, *arguments, **named)
