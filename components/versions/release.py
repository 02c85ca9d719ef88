"""Which pushed versions are in use: by a label, by the server, or by the next rollback. No heavy imports.

The operator's decisions are in `<home>/serving/release.json`, written by `python -m serving promote`, `canary` and
`rollback`. The server's model config file is generated from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from components.common import contract
from components.common.commands import command
from components.common.errors import InputError
from components.versions.manifest import is_foreign
from components.versions.publish import versions

RELEASE_FILE: Final = Path("serving", "release.json")
NEWEST_SERVED: Final = 2  # number of versions that are loaded until one is promoted


@dataclass(frozen=True)
class Release:
    """What to serve. Without a stable version, the newest pushed versions are served.

    Attributes:
        stable: the version of the label `stable`.
        canary: the version under test; if None, the label `canary` is on the stable version.
        earlier: former stable versions, oldest first; a rollback goes to the last one.
        pending: a change that is being applied or was interrupted: its "action", the requested version "asked" (None:
            the default), the resulting "version", and the "newest" version that was pushed then.
        entry: the history entry of the latest change, which may not be in the history yet.
    """

    stable: int | None = None
    canary: int | None = None
    earlier: tuple[int, ...] = ()
    pending: dict[str, Any] | None = None
    entry: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        numbers = [self.stable, self.canary, *self.earlier]
        if any(type(number) is not int or number < 0 for number in numbers if number is not None):
            raise ValueError("a version is not a number")
        if self.stable is None and self.canary is not None:
            raise ValueError("a canary without a stable version")
        if self.pending is not None and not (
            type(self.pending["version"]) is int and type(self.pending["asked"]) in (int, type(None))
        ):
            raise ValueError("a version is not a number")
        if any("id" not in record for record in (self.pending, self.entry) if record is not None):
            raise ValueError("a change without an id")

    @property
    def previous(self) -> int | None:
        """The version that the next rollback goes to."""
        return self.earlier[-1] if self.earlier else None

    @property
    def labels(self) -> dict[str, int]:
        """Versions by label: both labels or neither, so that a label which clients use never becomes unknown."""
        if self.stable is None:
            return {}
        return {"stable": self.stable, "canary": self.stable if self.canary is None else self.canary}


def read_release(home_root: Path) -> Release:
    """What to serve from a home. Raises InputError if the file is damaged or cannot be read."""
    path = home_root / RELEASE_FILE
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        known = {field.name: found[field.name] for field in fields(Release) if field.name in found}
        return Release(**{**known, "earlier": tuple(known.get("earlier", ()))})
    except FileNotFoundError:
        return Release()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise InputError(
            f"{path}: damaged ({e})",
            f"Delete it, and promote the version that was served before. To see which: {command('serving', 'history')}",
        ) from e


def versions_folder(home_root: Path) -> Path:
    return home_root / "serving_model" / contract.MODEL_NAME


def version_folder(home_root: Path, version: int) -> Path:
    return versions_folder(home_root) / str(version)


def pushed_versions(home_root: Path) -> list[int]:
    """Versions in a home, ascending; [] if none was pushed."""
    return versions(versions_folder(home_root))


def own_versions(home_root: Path) -> list[int]:
    """Versions in a home that a run pushed, verified or not, ascending."""
    return [number for number in pushed_versions(home_root) if not is_foreign(version_folder(home_root, number))]


def served_versions(home_root: Path, release: Release) -> set[int]:
    """Versions in the home that the server loads: without a stable version, the newest two of our runs.

    The version that a rollback would go to stays loaded, so that the rollback is immediate; but not if it is newer than
    the stable version, because requests without a label go to the highest loaded version.
    """
    pushed = pushed_versions(home_root)
    if release.stable is None:
        return {*(own_versions(home_root) or pushed)[-NEWEST_SERVED:]}
    wanted = {*release.labels.values()}
    if release.previous is not None and release.previous < release.stable:
        wanted.add(release.previous)
    return wanted & set(pushed)


def protected_versions(home_root: Path) -> set[int]:
    """Versions that must not be deleted: labels, the server or the next rollback use them.

    Raises:
        InputError: release.json is damaged; then nothing may be deleted.
    """
    release = read_release(home_root)
    pending = release.pending["version"] if release.pending else None
    named = {*release.labels.values(), release.previous, pending}
    return served_versions(home_root, release) | {number for number in named if number is not None}
