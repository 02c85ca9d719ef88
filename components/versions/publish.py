"""Publish a model version in one rename: TensorFlow Serving sees it whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from components.common.errors import InputError
from components.versions import manifest
from components.versions.manifest import Manifest

TEMPORARY: Final = ".pushing-"  # TensorFlow Serving ignores folders whose names are no numbers
DELETED: Final = ".deleting-"


def publish(
    model: Path,
    base: Path,
    now_s: int,
    describe: Callable[[int, dict[str, str]], Manifest] | None = None,
    untrue: Collection[int] = (),
) -> Path:
    """Copy the SavedModel `model` to `base/<version>` so that the version appears complete, in one rename.

    If the newest version is this very model, untouched, it is taken as published: a push that was killed between the
    rename and its record in MLMD leaves such a one.

    Args:
        model: folder of a SavedModel.
        base: the folder that TensorFlow Serving watches; created if missing.
        now_s: seconds since the epoch, the version unless a later one exists already.
        describe: makes the manifest from the version and the SHA-256 of each file; None leaves it out.
        untrue: versions that are known not to be what was pushed, whatever their manifest says.

    Returns:
        The folder of the version; its number is above every other in `base`.

    Raises:
        InputError: the copy does not equal the original.
    """
    base.mkdir(parents=True, exist_ok=True)
    files = manifest.file_hashes(model)
    with _locked(base):
        for stale in [*base.glob(f"{TEMPORARY}*"), *base.glob(f"{DELETED}*")]:  # of a killed push: we hold the lock
            shutil.rmtree(stale)
        taken = versions(base)
        if taken and taken[-1] not in untrue and _is_untouched(base / str(taken[-1]), files):
            return base / str(taken[-1])
        version = max([now_s, *(number + 1 for number in taken)])
        temporary = base / f"{TEMPORARY}{version}"
        try:
            shutil.copytree(model, temporary)
            copied = manifest.file_hashes(temporary)
            if copied != files:
                different = sorted(name for name in files if copied.get(name) != files[name])
                raise InputError(f"{temporary}: {', '.join(different)} differ after copying", "Check the disk.")
            if describe is not None:
                manifest.write(describe(version, files), temporary)
            for root, _, names in os.walk(temporary, topdown=False):
                for name in names:
                    _sync(Path(root, name))
                _sync(Path(root))
            target = base / str(version)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(base)
    return target


def prune(base: Path, keep: int, pinned: Collection[int]) -> list[int]:
    """Delete all but the newest `keep` versions, except pinned ones; returns the versions that went.

    A version leaves by one rename, too: no server ever finds half of it.
    """
    gone = []
    with _locked(base):
        for version in versions(base)[:-keep]:
            if version not in pinned:
                doomed = base / f"{DELETED}{version}"
                (base / str(version)).rename(doomed)
                shutil.rmtree(doomed)
                gone.append(version)
    return gone


def versions(base: Path) -> list[int]:
    """Numbers of the versions in `base`, ascending."""
    return sorted(int(child.name) for child in base.iterdir() if child.name.isdecimal() and child.is_dir())


def _is_untouched(version: Path, files: dict[str, str]) -> bool:
    try:
        return manifest.verify(version).files == files
    except InputError:
        return False


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
