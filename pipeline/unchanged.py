"""Compare the files of artifacts and versions with what was recorded when they were written. No ML Metadata."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from components.common.errors import InputError
from components.versions import manifest, publish

log = logging.getLogger(__name__)
LISTINGS: Final = ".listings"  # below the pipeline root: <artifact id>.json


def listing(folder: Path) -> dict[str, int]:
    """Size in bytes of every file below a folder, by relative path; {} if the folder does not exist."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def damage(artifact_id: int, folder: Path, root: Path) -> str | None:
    """What is wrong with the files of an artifact; None if they match the record."""
    if not folder.exists():
        return "is gone"
    try:
        before = json.loads((root / LISTINGS / f"{artifact_id}.json").read_text())
    except (OSError, ValueError):
        return None  # no record: the run was killed before writing it, or the artifact is older than this check
    now = listing(folder)
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return f"has changed ({', '.join(changed[:3])})" if changed else None


class UnverifiedVersions(NamedTuple):
    """Numbers of pushed versions that match no run's record.

    Attributes:
        tampered: files or manifest differ from what was pushed, or the folder was swapped, half copied or put there
            by hand.
        unrecorded: the manifest matches the files, but the run was killed before it could record the push.
    """

    tampered: list[int]
    unrecorded: list[int]


def compared(recorded: Mapping[str, str], base: Path) -> UnverifiedVersions:
    """Compare the versions below `base` with the hash of the manifest of each pushed version, by number."""
    found = UnverifiedVersions([], [])
    for number in publish.versions(base) if base.is_dir() else []:
        record = recorded.get(str(number))
        if problem := _difference(base / str(number), record):
            log.warning("%s", problem)
            found.tampered.append(number)
        elif record is None:
            found.unrecorded.append(number)
    return found


def _difference(version: Path, manifest_sha256: str | None) -> str | None:
    """How a version differs from what was pushed; None if it does not. Without a record, only the manifest counts."""
    try:
        manifest.verify(version)
    except InputError as e:
        return e.problem
    path = version / manifest.FILE_NAME
    if manifest_sha256 not in (None, manifest.sha256(path)):
        return f"{path}: not the manifest that is recorded in MLMD"
    return None
