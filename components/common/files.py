"""Files that are there whole, before and after a crash."""

from __future__ import annotations

import os
from pathlib import Path

from components.common.errors import InputError


def write_durably(path: Path, content: str) -> None:
    """Replace a file in one step, on disk when this returns. One writer at a time: the caller holds a lock.

    Raises:
        InputError: it cannot be written; what was there is there still.
    """
    temporary = path.with_name(f".{path.name}.new")  # one name, so that what a killed writer left is overwritten
    try:
        with open(temporary, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror})", "Make room, then run the command again.") from e


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
