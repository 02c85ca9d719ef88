"""Crash-safe writes: a file has its complete old or its complete new content."""

from __future__ import annotations

import os
from pathlib import Path

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
