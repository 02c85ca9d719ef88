"""A log file of bounded size: this process's stdout and stderr, whoever writes to them."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 10 * 2**20
KEPT: Final = 2  # older files: PATH.1 is the newest
CHECK_S: Final = 10.0


def redirect(path: Path) -> None:
    """Append stdout and stderr to a file from now on. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        for standard in (1, 2):
            os.dup2(descriptor, standard)
    finally:
        os.close(descriptor)


def rotate(path: Path) -> bool:
    """Rename the file to PATH.1 if it is too large, and the older ones by one number. Return whether it was."""
    if not path.is_file() or path.stat().st_size <= MAX_BYTES:
        return False
    for number in range(KEPT, 0, -1):
        source = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if source.exists():
            source.replace(path.with_name(f"{path.name}.{number}"))
    return True


def keep_small(path: Path) -> None:
    """Write stdout and stderr to a file from now on, and rotate it. Raises OSError if it cannot be opened."""
    rotate(path)
    redirect(path)
    threading.Thread(target=_watch, args=(path,), name="log-file", daemon=True).start()


def _watch(path: Path) -> None:
    while True:
        time.sleep(CHECK_S)
        with suppress(OSError):  # such as a folder that is no longer writable: keep the file as it is
            if rotate(path):
                redirect(path)
