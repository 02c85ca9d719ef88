"""Finds a process that another command started."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def started(process: psutil.Process) -> str:
    """Return the boot and the seconds from it to the process's start, which do not change when the clock is set."""
    try:
        boot = BOOT_ID.read_text().strip()
    except OSError:  # not on Linux
        boot = ""
    return f"{boot} {process.create_time() - psutil.boot_time():.2f}"


def find(pid: int, created: float, recorded: str) -> psutil.Process | None:
    """Return the process if it is still running, and not a later one with the same ID.

    Args:
        created: when it started, by the clock; used only without `recorded`.
        recorded: what `started` returned for it; empty if version 0.1 started it.
    """
    try:
        process = psutil.Process(pid)
        same = recorded == started(process) if recorded else abs(process.create_time() - created) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
