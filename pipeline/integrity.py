"""Detect artifacts and versions that were deleted or changed since they were written, so that their nodes run again.

TFX's cache checks only whether an artifact's folder exists. Here the names and sizes of its files are recorded when a
node finishes; an artifact that no longer matches is marked as deleted in MLMD, and TFX's cache ignores it.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.common.contract import MANIFEST_PROPERTY
from pipeline.unchanged import LISTINGS, UnverifiedVersions, compared, damage, listing

log = logging.getLogger(__name__)
SHOWN: Final = 3  # lines; the log has all of them


def remember(artifacts: list[mlmd.Artifact], root: Path) -> None:
    """Record the names and sizes of the files of these artifacts."""
    (root / LISTINGS).mkdir(parents=True, exist_ok=True)
    for artifact in artifacts:
        (root / LISTINGS / f"{artifact.id}.json").write_text(json.dumps(listing(Path(artifact.uri))))


def forget_damaged(store: MetadataStore, root: Path) -> list[str]:
    """Mark damaged artifacts below `root` as deleted in MLMD; returns lines for the user about the first few."""
    damaged, lines = [], []
    for artifact in store.get_artifacts():
        if artifact.state == mlmd.Artifact.LIVE and Path(artifact.uri).is_relative_to(root):
            problem = damage(artifact.id, Path(artifact.uri), root)
            if problem:
                artifact.state = mlmd.Artifact.DELETED
                damaged.append(artifact)
                lines.append(f"{Path(artifact.uri).relative_to(root)} {problem}: its node runs again when it is needed")
    if damaged:
        store.put_artifacts(damaged)
        log.warning("%s", "\n".join(lines))
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"and {more} more"]


def subfolders(parent: Path) -> list[Path]:
    """Folders in a folder; links are not followed, not even to `parent`. [] if it cannot be read."""
    try:
        if parent.is_symlink():
            return []
        with os.scandir(parent) as entries:
            return sorted(Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def output_folders(root: Path, prefix: str = "") -> Iterator[Path]:
    """Output folders of executions: `<root>/<node>/<key>/<execution id>`; also those named `<prefix><execution id>`."""
    for node in subfolders(root):
        for key in subfolders(node):
            yield from (folder for folder in subfolders(key) if folder.name.removeprefix(prefix).isdecimal())


def located(uri: str, root: Path) -> Path:
    """The folder of an artifact below `root`, wherever the home was when the artifact was written."""
    return root.joinpath(*Path(uri).parts[-3:])


def relocate(store: MetadataStore, root: Path) -> None:
    """Correct the artifacts' URIs in MLMD, which are absolute, after the home was moved, copied or restored."""
    moved = []
    for artifact in store.get_artifacts():
        folder = located(artifact.uri, root)
        if folder.name.isdecimal() and str(folder) != artifact.uri:
            artifact.uri = str(folder)
            moved.append(artifact)
    if moved:
        log.warning("the home was elsewhere before: %d artifacts are now below %s", len(moved), root)
        store.put_artifacts(moved)


def forget_listings(root: Path, kept: Collection[int]) -> None:
    """Delete the records of files of all artifacts but those with the IDs `kept`."""
    if not root.is_symlink() and not (root / LISTINGS).is_symlink():
        for path in (root / LISTINGS).glob("*.json"):
            if path.stem.isdecimal() and int(path.stem) not in kept:
                path.unlink(missing_ok=True)


def set_aside_unknown(store: MetadataStore, root: Path) -> Path | None:
    """Rename the artifacts of an MLMD store that was lost; returns their new folder, or None if nothing was lost.

    A new store counts executions from 1 again, which would mix its artifacts with theirs.
    """
    if store.get_executions() or not any(root.glob("*/*/*")):
        return None
    number = next(n for n in itertools.count(1) if not root.with_name(f"{root.name}.without-metadata-{n}").exists())
    return root.rename(root.with_name(f"{root.name}.without-metadata-{number}"))


def remove_unpublished(store: MetadataStore, root: Path) -> None:
    """Delete output folders of executions that never finished, and TFX's scratch folders.

    Only safe for the run that has locked the home.
    """
    published = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)
    finished = {e.id for e in store.get_executions() if e.last_known_state in published}
    for folder in output_folders(root):
        if int(folder.name) not in finished:
            log.warning("removing %s, left by an interrupted run", folder)
            shutil.rmtree(folder, ignore_errors=True)
    remove_scratch(root)


def remove_scratch(root: Path) -> None:
    """Delete TFX's scratch folders, which a killed run leaves behind."""
    for node in subfolders(root):
        shutil.rmtree(node / ".system", ignore_errors=True)


def unverified_versions(store: MetadataStore, base: Path) -> UnverifiedVersions:
    """Compare the versions below `base` with their records in MLMD.

    Pushes whose version is gone are marked as deleted in MLMD, so that the Pusher runs again.
    """
    recorded, gone = {}, []
    for push in store.get_artifacts_by_type("PushedModel"):
        known = push.custom_properties
        if known["pushed"].int_value != 1:
            continue
        recorded[known["pushed_version"].string_value] = known[MANIFEST_PROPERTY].string_value
        if push.state == mlmd.Artifact.LIVE and not Path(known["pushed_destination"].string_value).exists():
            push.state = mlmd.Artifact.DELETED
            gone.append(push)
    if gone:
        store.put_artifacts(gone)
    return compared(recorded, base)
