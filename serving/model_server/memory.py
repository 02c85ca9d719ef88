"""Returns the memory of large requests to the operating system as soon as it is free."""

from __future__ import annotations

import ctypes
from typing import Final

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
MMAP_BYTES: Final = 2**20  # larger blocks are mapped, and unmapped when they are freed
TRIM_BYTES: Final = 2**22  # of free memory at the end of a heap


def return_freed() -> None:
    """Fix glibc's thresholds, which grow with the largest request and then keep up to 64 MB per thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # None with another C library
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
