"""Keeps the server's memory within its bound (docs/serving.md): returns what is free, and relieves it if need be."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
MMAP_BYTES: Final = 2**25  # larger blocks are mapped, and unmapped when they are freed; to map takes time
TRIM_BYTES: Final = 2**25  # of free memory at the end of a heap
CHECK_S: Final = 0.1
GROWTH_BYTES: Final = 2**27  # after which free memory is returned; then all of it has to be mapped again
MARGIN_BYTES: Final = 2**28  # of the bound: what arrives between two checks, and free memory


def return_freed() -> None:
    """Fix glibc's thresholds, which grow with the largest request and then keep up to 64 MB per thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # None with another C library
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


async def watch(max_bytes: int, is_idle: Callable[[], bool], relieve: Callable[[], None]) -> None:
    """Return free memory whenever the process has grown, forever.

    Messages that are still arriving are in gRPC's library, which neither counts nor limits them, in small pieces
    between which free memory stays.

    Args:
        max_bytes: of resident memory above that of the idle server; beyond it, `relieve` is called.
        is_idle: whether the server has no request.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    rest = last = _resident_bytes()
    while True:
        await asyncio.sleep(CHECK_S)
        now = _resident_bytes()
        if now > last + GROWTH_BYTES and trim is not None:
            await asyncio.to_thread(trim, 0)
            last = now = _resident_bytes()
        last = min(last, now)
        if is_idle():
            rest = now
        elif now > rest + max_bytes:
            relieve()


def _resident_bytes() -> int:
    """Return the memory of this process; 0 where it is unknown."""
    with suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
