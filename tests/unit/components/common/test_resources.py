"""Limits of cgroups, read from copies of what the kernel shows; the machine's own limits are the upper bound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.common import ROOT, resources

AVAILABLE = len(os.sched_getaffinity(0))
MACHINE_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 1024**2


def write(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """Files below a folder: `own` is /proc/self/cgroup, the others are below /sys/fs/cgroup."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder, folder / "own"


V1 = "4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n0::/"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"own": "0::/", "cpu.max": "100000 100000"}, 1),
        ({"own": "0::/", "cpu.max": "50000 100000"}, 1),
        ({"own": "0::/", "cpu.max": "max 100000"}, AVAILABLE),
        ({"own": "0::/", "cpu.max": "99900000 100000"}, AVAILABLE),
        ({"own": "0::/a/b", "a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
        ({"own": V1, "cpu/docker/ab/cpu.cfs_quota_us": "20000", "cpu/docker/ab/cpu.cfs_period_us": "100000"}, 1),
        ({"own": V1, "cpu/cpu.cfs_quota_us": "20000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"own": V1, "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, AVAILABLE),
        ({}, AVAILABLE),
    ],
    ids=["v2", "half", "max", "more", "parent", "v1", "v1 namespace", "v1 none", "no cgroups"],
)
def test_cores(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert resources.cores(*write(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"own": "0::/a", "a/memory.max": str(300 * MIB), "memory.max": str(200 * MIB)}, 200 * MIB),
        ({"own": "0::/", "memory.max": "max"}, MACHINE_BYTES),
        ({"own": V1, "memory/docker/ab/memory.limit_in_bytes": str(100 * MIB)}, 100 * MIB),
        ({"own": V1, "memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE_BYTES),
    ],
    ids=["v2", "v2 max", "v1", "v1 none"],
)
def test_memory(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert resources.memory_bytes(*write(tmp_path, files)) == expected


def test_affinity() -> None:
    code = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}});"
    code += "from components.common import resources; print(resources.cores())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
