"""Publish a model version with one rename: TensorFlow Serving sees a complete version or none."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from components.common import contract
from components.common.errors import InputError
from components.common.files import locked, sync
from components.versions import manifest
from components.versions.manifest import Manifest

TEMPORARY: Final = ".pushing-"  # TensorFlow Serving ignores folders whose name is not a number
DELETED: Final = ".deleting-"
LOCK_FILE: Final = ".push.lock"  # held while versions are added, deleted or chosen; no other lock is taken meanwhile
DOCUMENTS: Final = (contract.MODEL_CARD_FILE, contract.README_FILE)  # not of the model: a push adds them
MAX_VERSION: Final = 2**63 - 1  # TensorFlow Serving's int64


def publish(
    model: Path,
    base: Path,
    now_s: int,
    describe: Callable[[int, dict[str, str]], Manifest] | None = None,
    tampered: Collection[int] = (),
    documents: Callable[[int], Mapping[str, str]] = lambda _: {},
) -> Path:
    """Copy the SavedModel `model` to `base/<version>`, which appears with one rename.

    If the newest version is an unchanged copy of this model, and its manifest has the same class names, nothing is
    copied. A push that was killed between the rename and its record in MLMD leaves such a version.

    Args:
        model: folder of a SavedModel.
        base: the folder that TensorFlow Serving watches; created if missing.
        now_s: seconds since the epoch; the version number, unless `base` has an equal or higher one.
        describe: returns the manifest for a version and the SHA-256 of each file; None writes no manifest.
        documents: returns texts about a version, by name in DOCUMENTS, which are written beside the model.
        tampered: versions known to differ from what was pushed, whatever their manifest says.

    Returns:
        The folder of the version, which has the highest number in `base`.

    Raises:
        InputError: the copy differs from the original.
    """
    files = manifest.file_hashes(model)
    with locked(base / LOCK_FILE):
        _delete_unfinished(base)
        existing = versions(base)
        if existing and existing[-1] not in tampered:
            newest = base / str(existing[-1])
            if _is_unchanged(newest, files, describe(existing[-1], files).class_names() if describe else []):
                return newest
        version = max([now_s, *(number + 1 for number in existing)])
        if version > MAX_VERSION:
            raise InputError(
                f"{base / str(existing[-1])}: no version number is left above this one",
                "No run pushed it: move the folder away, then run again.",
            )
        temporary = base / f"{TEMPORARY}{version}"
        try:
            shutil.copytree(model, temporary)
            copied = manifest.file_hashes(temporary)
            if copied != files:
                different = sorted(name for name in files if copied.get(name) != files[name])
                raise InputError(f"{temporary}: {', '.join(different)} differ after copying", "Check the disk.")
            for name, text in documents(version).items():
                (temporary / name).write_text(text)
            if describe is not None:
                manifest.write(describe(version, manifest.file_hashes(temporary)), temporary)
            for root, _, names in os.walk(temporary, topdown=False):
                for path in (Path(root, name) for name in [*names, ""]):  # "" is the folder itself
                    mode = path.stat().st_mode
                    if mode & stat.S_IWOTH:  # the model was exported under a umask such as 000
                        path.chmod(mode & ~(stat.S_IWOTH | stat.S_IWGRP))
                    sync(path)
            target = base / str(version)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(base)
    return target


def prune(base: Path, keep: int, protected: Callable[[], Collection[int]]) -> list[int]:
    """Delete all but the newest `keep` versions and the protected ones; returns the deleted versions.

    Folders that no run pushed do not count: the newest `keep` that match their manifest stay, however many others there
    are. A version disappears with one rename, so that no server sees a part of it.

    Args:
        protected: called while LOCK_FILE is held, so that no version is chosen between this call and the deletion.
    """
    deleted = []
    with locked(base / LOCK_FILE):
        existing = versions(base)
        proven = [version for version in existing if manifest.is_proven(base / str(version))]
        kept = {*existing[-keep:], *proven[-keep:], *protected()}
        for version in existing:
            if version not in kept:
                _delete((base / str(version)).rename(base / f"{DELETED}{version}"))
                deleted.append(version)
    return deleted


def remove_unfinished(base: Path) -> None:
    """Delete what killed pushes and prunings left in `base`."""
    with locked(base / LOCK_FILE):
        _delete_unfinished(base)


def versions(base: Path) -> list[int]:
    """Numbers of the versions in `base`, ascending; [] if there is no such folder.

    Only names in the form that a push writes: no leading zero, no other digits than ASCII's, at most 2^63 - 1.
    """
    try:
        return sorted(int(child.name) for child in base.iterdir() if is_version(child.name) and child.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_version(name: str) -> bool:
    """Whether a folder's name is a version number as a push writes it."""
    if not (name.isascii() and name.isdecimal() and len(name) <= len(str(MAX_VERSION))):
        return False
    return str(int(name)) == name and int(name) <= MAX_VERSION


def _delete_unfinished(base: Path) -> None:
    for stale in [*base.glob(f"{TEMPORARY}*"), *base.glob(f"{DELETED}*")]:
        _delete(stale)


def _delete(path: Path) -> None:
    """Delete a folder, or a link to one but not its target."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def _is_unchanged(version: Path, files: dict[str, str], class_names: list[str]) -> bool:
    try:
        found = manifest.verify(version)
        pushed = {name: sha256 for name, sha256 in found.files.items() if name not in DOCUMENTS}
        return pushed == files and found.class_names() == class_names
    except (InputError, AttributeError, TypeError):  # the last two: not a manifest's types
        return False
