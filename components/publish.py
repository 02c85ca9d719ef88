"""Publish a model version in one rename: TensorFlow Serving sees it whole or not at all."""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from components.errors import InputError

TEMPORARY: Final = ".pushing-"  # TensorFlow Serving ignores folders whose names are no numbers


def publish(model: Path, base: Path, now_s: int) -> Path:
    """Copy the SavedModel `model` to `base/<version>` so that the version appears complete, in one rename.

    Args:
        model: folder of a SavedModel.
        base: the folder that TensorFlow Serving watches; created if missing.
        now_s: seconds since the epoch, the version unless a later one exists already.

    Returns:
        The folder of the new version; its number is above every other in `base`.

    Raises:
        InputError: the copy does not equal the original.
    """
    base.mkdir(parents=True, exist_ok=True)
    with _locked(base):
        for stale in base.glob(f"{TEMPORARY}*"):  # of a killed push: we hold the lock
            shutil.rmtree(stale)
        taken = [int(child.name) for child in base.iterdir() if child.name.isdecimal()]
        version = max([now_s, *(number + 1 for number in taken)])
        temporary = base / f"{TEMPORARY}{version}"
        try:
            shutil.copytree(model, temporary)
            for file in _files(temporary):
                if not filecmp.cmp(file, model / file.relative_to(temporary), shallow=False):
                    raise InputError(f"{file} differs from its original after copying", "Check the disk.")
                _sync(file)
            _sync(temporary)
            target = base / str(version)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(base)
    return target


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    with open(base / ".push.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
