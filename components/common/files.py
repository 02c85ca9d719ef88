"""Crash-safe writes: a file has its complete old or its complete new content."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import IO

from components.common.errors import InputError


def write_durably(path: Path, content: str) -> None:
    """Replace a file atomically and flush it to disk. The caller holds a lock: only one writer at a time.

    Raises:
        InputError: the file cannot be written; the old content is unchanged.
    """
    temporary = path.with_name(f".{path.name}.new")  # a fixed name: the file of a killed writer is overwritten
    try:
        with open(temporary, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror})", "Make room, then run the command again.") from e


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> IO[str]:
    """Open a lock file for reading and writing; created if missing.

    Raises:
        InputError: it is a symlink, whose target a write would damage.
        OSError: it cannot be opened.
    """
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise InputError(f"{path}: is a symlink, expected a lock file", "Delete the link.") from e
        raise
