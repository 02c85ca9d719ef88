"""Crash-safe writes (a file has its complete old or its complete new content), and locks."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from components.common.errors import InputError, cannot_write


def write_durably(path: Path, content: str | bytes) -> None:
    """Replace a file atomically and flush it to disk. The caller holds a lock: only one writer at a time.

    Raises:
        InputError: the file cannot be written; the old content is unchanged.
    """
    temporary = path.with_name(f".{path.name}.new")  # a fixed name: the file of a killed writer is replaced
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # new: a link with this name is not followed
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as e:
        raise cannot_write(path, e) from e


def check_utf_8(path: Path) -> None:
    """Raise InputError if a path, with its links resolved, is not UTF-8, which protocol buffers require."""
    try:
        os.path.realpath(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: the path is not valid UTF-8", "Use another folder.") from None


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, wait: Callable[[], object] = lambda: None) -> Iterator[IO[str]]:
    """Hold a lock file; it and its folder are created if missing. The kernel releases the lock of a killed process.

    A file that this user may only read is locked all the same: it belongs to another user of the home.

    Args:
        wait: called if another process holds the lock, before waiting for it; may raise instead.

    Raises:
        InputError: the file is a symlink, or cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open_lock(path)
    except OSError as e:
        if e.errno == errno.ELOOP and path.is_symlink():
            raise InputError(f"{path}: is a symlink, expected a lock file", "Delete the link.") from e
        raise InputError(f"{path}: cannot be written ({e.strerror})", "Name another home: --home DIR") from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _open_lock(path: Path) -> IO[str]:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
    except OSError as e:
        if e.errno not in (errno.EACCES, errno.EROFS) or not path.exists():
            raise
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "r")
