"""The peak of this process's memory since a moment, by Linux's VmHWM. Child processes are not included."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CLEAR: Final = Path("/proc/self/clear_refs")
_STATUS: Final = Path("/proc/self/status")
_RESET_PEAK: Final = "5"  # see proc(5)


def reset() -> bool:
    """Forget the peak so far; False where the system does not allow that: the peak would be of the whole process."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak_mb() -> int | None:
    """The peak of the resident memory since `reset`, in MB (10^6 bytes); None if the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) * 1024 / 1e6) for line in lines if line.startswith("VmHWM:")), None)
