"""Only a proven version gets a label: one that is there, blessed, and as it was pushed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from components.errors import InputError
from components.pins import Release, pushed_versions, served_versions, version_folder

MANIFEST: Final = "manifest.json"


def refuse_missing(home: Path, version: int) -> None:
    """Raise InputError unless the version lies in the home."""
    if version not in pushed_versions(home):
        raise InputError(f"version {version} was not pushed, or has been deleted", pushed_are(home))


def loaded_versions(home: Path, release: Release) -> set[int]:
    """Versions for the server to load. One that only a rollback may need is left out if it is not proven."""
    versions = served_versions(home, release)
    if release.stable is None:
        return versions
    return {v for v in versions if v in release.labels.values() or _is_proven(version_folder(home, v))}


def pushed_are(home: Path) -> str:
    return f"Pushed are: {', '.join(map(str, pushed_versions(home))) or 'none'}"


def refuse_unproven(folder: Path) -> None:
    """Raise InputError unless the version's manifest says blessed and its files are those of the manifest.

    The place for `components.manifest.verify(folder)` once that is here.
    """
    remedy = "Such a version gets no label. Push a new one: make pipeline"
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        version, files = str(manifest["version"]), dict(manifest["files"])
    except FileNotFoundError:
        raise InputError(f"{path}: missing, so nothing proves version {folder.name}", remedy) from None
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})", remedy) from e
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise InputError(f"{path}: damaged ({e!r})", remedy) from e
    if version != folder.name:
        raise InputError(f"{path}: belongs to version {version}", remedy)
    if manifest.get("blessed") is not True:
        raise InputError(f"version {folder.name} is not blessed ({path})", remedy)
    if manifest.get("infra_blessed") not in (True, None):
        raise InputError(f"version {folder.name} failed its test in a server ({path})", remedy)
    for name, expected in files.items():
        try:
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as e:
            raise InputError(f"{folder / name}: cannot be read ({e.strerror})", remedy) from e
        if found != expected:
            raise InputError(f"{folder / name}: not the file that was pushed (its SHA-256 differs)", remedy)


def _is_proven(folder: Path) -> bool:
    try:
        refuse_unproven(folder)
    except InputError:
        return False
    return True
