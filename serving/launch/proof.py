"""Checks which versions are verified: present, blessed, and unchanged since the push. Only these get a label."""

from __future__ import annotations

from pathlib import Path

from components.common.errors import InputError
from components.versions.manifest import is_proven
from components.versions.release import Release, pushed_versions, served_versions, version_folder


def check_pushed(home: Path, version: int) -> None:
    """Raise InputError if the version is not in the home."""
    if version not in pushed_versions(home):
        raise InputError(f"version {version} was not pushed, or has been deleted", list_pushed(home))


def loaded_versions(home: Path, release: Release) -> set[int]:
    """Return the versions that the server loads. Once one is stable, versions without a label must be verified."""
    versions = served_versions(home, release)
    if release.stable is None:
        return versions
    return {v for v in versions if v in release.labels.values() or is_proven(version_folder(home, v))}


def list_pushed(home: Path) -> str:
    return f"Pushed versions: {', '.join(map(str, pushed_versions(home))) or 'none'}"
