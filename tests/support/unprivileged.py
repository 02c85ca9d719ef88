"""Runs code of a test as a user whom the permissions of files stop, even if the tests run as root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NOBODY: Final = 65534
VERSION_3: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
Capabilities = ctypes.c_uint32 * 6  # effective, permitted and inheritable; twice, for 64 bits


@contextmanager
def unprivileged() -> Iterator[None]:
    """In this thread, during the block, permissions apply to root. A process started in it has root's privileges."""
    libc, header, now = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(VERSION_3, 0), Capabilities()
    libc.capget(header, now)
    without = Capabilities(0, now[1], now[2], 0, now[4], now[5])
    if libc.capset(header, without):
        raise OSError(ctypes.get_errno(), "capset failed")
    try:
        yield
    finally:
        libc.capset(header, now)


def give_away(folder: Path) -> None:
    """Make a folder that of another user, who lets nobody else in. Only as root."""
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names, ""]:
            os.chown(Path(root, name), NOBODY, NOBODY, follow_symlinks=False)
    folder.chmod(0o700)
