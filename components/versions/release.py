"""Which pushed versions are in use: by a label, by a rollback to come, or by the server. No heavy import.

The operator's decisions are in one JSON file, `<home>/serving/release.json`, which `python -m serving promote`,
`canary` and `rollback` write. The server's model config file is generated from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from components.common import contract
from components.common.errors import InputError

RELEASE_FILE: Final = Path("serving", "release.json")
NEWEST_SERVED: Final = 2  # versions that are loaded as long as nothing was promoted


@dataclass(frozen=True)
class Release:
    """What is to be served. Without a stable version: the newest pushed ones, as TensorFlow Serving does by default.

    Attributes:
        stable: the version of the label `stable`.
        canary: the version under test; without one the label `canary` is where `stable` is.
        earlier: stable versions before this one, oldest first: where a rollback goes.
        pending: a change that is under way or was killed: its "action", the version "asked" for (None: the default)
            and the "version" that this was.
        entry: the latest change as the history has it, or is about to.
    """

    stable: int | None = None
    canary: int | None = None
    earlier: tuple[int, ...] = ()
    pending: dict[str, Any] | None = None
    entry: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        numbers = [self.stable, self.canary, *self.earlier]
        if any(type(number) is not int or number < 0 for number in numbers if number is not None):
            raise ValueError("a version is no number")
        if self.stable is None and self.canary is not None:
            raise ValueError("a canary without a stable version")
        if self.pending is not None and not (
            type(self.pending["version"]) is int and type(self.pending["asked"]) in (int, type(None))
        ):
            raise ValueError("a version is no number")

    @property
    def previous(self) -> int | None:
        """Where the next rollback goes."""
        return self.earlier[-1] if self.earlier else None

    @property
    def labels(self) -> dict[str, int]:
        """Versions by label. Both labels exist or none, so that no client's label ceases to be known."""
        if self.stable is None:
            return {}
        return {"stable": self.stable, "canary": self.stable if self.canary is None else self.canary}


def read_release(home_root: Path) -> Release:
    """What is to be served from a home. Raises InputError if the file is damaged or cannot be read."""
    path = home_root / RELEASE_FILE
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        known = {field.name: found[field.name] for field in fields(Release) if field.name in found}
        return Release(**{**known, "earlier": tuple(known.get("earlier", ()))})
    except FileNotFoundError:
        return Release()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise InputError(
            f"{path}: damaged ({e})",
            "What was served says: python -m serving history. Delete the file, then: python -m serving promote VERSION",
        ) from e


def version_folder(home_root: Path, version: int) -> Path:
    return home_root / "serving_model" / contract.MODEL_NAME / str(version)


def pushed_versions(home_root: Path) -> list[int]:
    """Versions that lie in a home, ascending; [] if none was pushed."""
    base = home_root / "serving_model" / contract.MODEL_NAME
    try:
        return sorted(int(c.name) for c in base.iterdir() if c.name.isascii() and c.name.isdecimal() and c.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def served_versions(home_root: Path, release: Release) -> set[int]:
    """Versions that the server loads, of those that are there.

    The version that a rollback would go to stays loaded, so that the rollback loads nothing. Not if it is newer than
    the stable one: requests without a label get the highest version that is loaded.
    """
    pushed = pushed_versions(home_root)
    if release.stable is None:
        return set(pushed[-NEWEST_SERVED:])
    wanted = {*release.labels.values()}
    if release.previous is not None and release.previous < release.stable:
        wanted.add(release.previous)
    return wanted & set(pushed)


def pinned_versions(home_root: Path) -> set[int]:
    """Versions that must not be deleted: labels, the server and the next rollback need them.

    Raises:
        InputError: the file that would tell is damaged; then nothing may be deleted.
    """
    release = read_release(home_root)
    coming = release.pending["version"] if release.pending else None
    named = {*release.labels.values(), release.previous, coming}
    return served_versions(home_root, release) | {number for number in named if number is not None}
