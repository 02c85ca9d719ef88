"""manifest.json in every pushed version: its run, the checks that it passed, and the hash of each file."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, NoReturn

from components.common import contract
from components.common.commands import command
from components.common.errors import InputError

FILE_NAME: Final = "manifest.json"
FORMAT: Final = 1


@dataclass(frozen=True)
class Manifest:
    """The record of a pushed version.

    Attributes:
        version: its number, which is the name of its folder.
        run_id, git_commit: the run that pushed it; the commit ends in "+changes" if there were uncommitted changes.
        created_utc: time of the push.
        settings: the run's settings, by section.
        data_sha256: SHA-256 of each uncompressed IDX file, by role.
        blessed, infra_blessed: the verdicts of Evaluator and InfraValidator.
        gate, infra: their checks, each a components.validation.verdict.Check as a dict.
        metrics: overall metrics, by name.
        weights_sha256: see weights.py.
        files: SHA-256 of every other file of the version, by path relative to its folder.
    """

    model: str
    version: int
    run_id: str
    git_commit: str | None
    created_utc: str
    settings: dict[str, Any]
    data_sha256: dict[str, str]
    blessed: bool
    infra_blessed: bool
    gate: list[dict[str, Any]]
    infra: list[dict[str, Any]]
    metrics: dict[str, float]
    weights_sha256: str
    files: dict[str, str]
    format: int = FORMAT

    def class_names(self) -> list[str]:
        """What its labels mean; [] if they have no names."""
        return list(self.settings.get("data", {}).get("class_names") or ())


def describe(
    version: int,
    files: dict[str, str],
    *,
    run_id: str,
    settings: dict[str, Any],
    data_sha256: dict[str, str],
    gate: Mapping[str, Any],
    infra: Mapping[str, Any],
    weights_sha256: str,
) -> Manifest:
    """The manifest of a version about to be pushed, with the current commit and time.

    Args:
        gate, infra: the content of verdict.json of the Evaluator and of the InfraValidator.
    """
    return Manifest(
        model=contract.MODEL_NAME,
        version=version,
        run_id=run_id,
        git_commit=git_commit(),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=settings,
        data_sha256=data_sha256,
        blessed=gate["blessed"],
        infra_blessed=infra["blessed"],
        gate=gate["checks"],
        infra=infra["checks"],
        metrics=gate["metrics"]["slices"]["overall"],
        weights_sha256=weights_sha256,
        files=files,
    )


def git_commit(folder: Path = Path(__file__).parent) -> str | None:
    """The checked-out commit, with "+changes" if there are uncommitted changes; None outside a git checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write(manifest: Manifest, folder: Path) -> None:
    (folder / FILE_NAME).write_text(json.dumps(asdict(manifest), indent=1) + "\n")


def read(folder: Path) -> Manifest:
    """The manifest in the folder of a version. Raises InputError if it is missing or invalid."""
    path = folder / FILE_NAME
    try:
        with _opened(path) as file:
            found = Manifest(**json.load(file))
        if not isinstance(found.files, dict):
            raise ValueError("files is not an object")
        return found
    except FileNotFoundError:
        raise InputError(f"{folder}: has no {FILE_NAME}, so it cannot be verified", _push_again()) from None
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})", _push_again()) from e
    except (ValueError, TypeError, RecursionError) as e:
        raise InputError(f"{path}: not a manifest ({e})", _push_again()) from e


def _push_again() -> str:
    return f"Run the pipeline again, or serve another version: {command('serving', 'rollback')}"


def sha256(path: Path) -> str:
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(path: Path) -> BufferedReader:
    """Open a regular file. Raises InputError for another kind, such as a FIFO, which would block the reader."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise InputError(f"{path}: not a regular file", _push_again())


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` except the manifest, by relative path.

    Raises:
        InputError: a file or folder cannot be read, or is of a kind that no push writes, such as a FIFO.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})", _push_again()) from error

    paths = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        paths += [Path(root, name) for name in names]
        paths += [Path(root, name) for name in folders if Path(root, name).is_symlink()]  # os.walk does not enter these
    try:
        return {str(p.relative_to(folder)): sha256(p) for p in sorted(paths) if p != folder / FILE_NAME}
    except OSError as e:
        refuse(e)


def verify(folder: Path) -> Manifest:
    """Compare a pushed version with its manifest, and return the manifest.

    Raises:
        InputError: no valid manifest, the manifest of another version, a model that was not blessed, or changed files.
    """
    manifest = read(folder)
    if str(manifest.version) != folder.name:
        raise InputError(f"{folder}: its manifest is for version {manifest.version}", _push_again())
    if manifest.blessed is not True or manifest.infra_blessed is not True:
        raise InputError(f"{folder}: its manifest does not say that the model was blessed", _push_again())
    if changed := changed_files(manifest, folder):
        raise InputError(f"{folder}: changed since it was pushed: {', '.join(changed)}", _push_again())
    return manifest


def is_proven(folder: Path) -> bool:
    """Whether a version passes `verify`."""
    try:
        verify(folder)
    except InputError:
        return False
    return True


def is_foreign(folder: Path) -> bool:
    """Whether no run pushed a folder: it has no manifest, or that of a model that was not blessed."""
    try:
        (folder / FILE_NAME).lstat()
        found = read(folder)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (InputError, OSError):  # a version whose manifest was damaged
        return False
    return found.blessed is not True or found.infra_blessed is not True


def changed_files(manifest: Manifest, folder: Path) -> list[str]:
    """Names of the files that were changed, added or removed since the push."""
    now = file_hashes(folder)
    return sorted(name for name in now.keys() | manifest.files.keys() if now.get(name) != manifest.files.get(name))
