"""The cores and the memory that this process may use: of the machine, its affinity, and the limits of its container.

In a container the machine's numbers are too high: Linux reports all cores and all memory, whatever the cgroup allows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")


def cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """Number of cores, at least 1: the smaller of the CPU affinity and the cgroup's quota, rounded up."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        available = os.cpu_count() or 1
    limits = [available]
    for folder in _folders("cpu", cgroups, own):
        quota, period = [*_words(folder / "cpu.max"), "", ""][:2]  # version 2: "150000 100000" or "max 100000"
        if not quota:
            quota = "".join(_words(folder / "cpu.cfs_quota_us"))  # version 1: -1 for no limit
            period = "".join(_words(folder / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(math.ceil(int(quota) / int(period)))
    return max(1, min(limits))


def memory_bytes(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """The smaller of the machine's memory and the cgroup's limit, in bytes."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _folders("memory", cgroups, own):
        for name in ("memory.max", "memory.limit_in_bytes"):  # versions 2 and 1
            limits += [int(word) for word in _words(folder / name) if word.isdigit()]
    return min(limits)


def _folders(controller: str, cgroups: Path, own: Path) -> Iterator[Path]:
    """This process's cgroup and all above it, whose limits apply as well, in both versions of the hierarchy."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        # A container without a cgroup namespace sees its path on the host; its own cgroup is mounted as the root.
        parts = Path(path).parts[1:]
        yield from (root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
