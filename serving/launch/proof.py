"""Only a proven version gets a label: one that is there, blessed, and as it was pushed."""

from __future__ import annotations

from pathlib import Path

from components.common.errors import InputError
from components.versions import manifest
from components.versions.release import Release, pushed_versions, served_versions, version_folder


def refuse_missing(home: Path, version: int) -> None:
    """Raise InputError unless the version lies in the home."""
    if version not in pushed_versions(home):
        raise InputError(f"version {version} was not pushed, or has been deleted", pushed_are(home))


def loaded_versions(home: Path, release: Release) -> set[int]:
    """Versions for the server to load. One that only a rollback may need is left out if it is not proven."""
    versions = served_versions(home, release)
    if release.stable is None:
        return versions
    return {v for v in versions if v in release.labels.values() or is_proven(version_folder(home, v))}


def pushed_are(home: Path) -> str:
    return f"Pushed are: {', '.join(map(str, pushed_versions(home))) or 'none'}"


def is_proven(folder: Path) -> bool:
    """Whether the version's manifest vouches for it."""
    try:
        manifest.verify(folder)
    except InputError:
        return False
    return True
