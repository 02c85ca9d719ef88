"""Remove what no later command needs: artifacts and logs of older runs, and what killed runs and commands left behind.

A kill between any two steps does no harm. Artifacts are first marked as deleted in MLMD, whose rows stay,
so that no cache uses them any more; then each folder gets a name that nobody reads; then it is deleted. Nothing is
deleted through a symlink.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.common.errors import CHANGE_PERMISSIONS, InputError
from components.common.home import RESULT_FILE, Home
from components.common.home_size import HomeSize, measure, megabytes, size_of
from components.versions import publish, release
from pipeline import integrity, lineage

RUN_CONTEXT: Final = "pipeline_run"  # TFX's name for the MLMD context of a run
COMMAND_LOGS: Final = ("validate", "gc", "compile")  # folders in logs/ that are not of one run
MAX_LOG_BYTES: Final = 10_000_000  # of a log that grows from command to command; then its end is kept
KEPT_LOG_BYTES: Final = 1_000_000
UNFINISHED_S: Final = 3600.0  # until then, `submit --wait` may still write a result into a log folder; it takes no lock


@dataclass(frozen=True)
class Collected:
    """What a collection removed, or with `dry_run` would remove; its field names are a contract.

    Attributes:
        artifact_folders, log_folders: how many.
        freed_bytes: the sum of their files' sizes.
        home_size: after it.
    """

    dry_run: bool
    keep_runs: int
    artifact_folders: int
    log_folders: int
    freed_bytes: int
    seconds: float
    home_size: HomeSize

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        verb = "would remove" if self.dry_run else "removed"
        folders = f"{self.artifact_folders} artifact folders, {self.log_folders} log folders"
        return f"{verb} {folders}: {megabytes(self.freed_bytes)} MB in {self.seconds:.1f} s"


def collect(home: Home, keep_runs: int, *, dry_run: bool = False) -> Collected:
    """Remove what is no longer needed, and record the home's size. The caller has locked the home.

    What stays: artifacts, logs and reports of the newest `keep_runs` runs; artifacts of the newest run that reached the
    Pusher, so that the next run is still cached; the evaluation of each version that is pushed, served or named in
    release.json, which `validate` needs.

    Args:
        keep_runs: 0 keeps all runs; only what killed runs left behind is removed.

    Raises:
        InputError: release.json is damaged, or a folder cannot be removed.
        OSError: the home cannot be read or written.
    """
    started = time.monotonic()
    folders = _artifact_folders(home, keep_runs, dry_run)
    logs = _logs(home, keep_runs)
    reports = [report for folder in logs if (report := home.report(folder.name)).is_file()]
    freed = sum(size_of(path) for path in [*folders, *logs, *reports])
    if not dry_run:
        for folder in folders:
            _remove(folder)
        for folder in logs:
            _delete(folder)
        for report in reports:
            report.unlink(missing_ok=True)
        for log in _command_logs(home):
            _shorten(log)
        if home.serving_model in integrity.subfolders(home.serving_model.parent):
            publish.remove_unfinished(home.serving_model)
    size = measure(home)
    if not dry_run:
        size.record(home)
    seconds = round(time.monotonic() - started, 2)
    return Collected(dry_run, keep_runs, len(folders), len(logs), freed, seconds, size)


def _artifact_folders(home: Home, keep_runs: int, dry_run: bool) -> list[Path]:
    """Folders to delete; unless `dry_run`, their artifacts are marked as deleted in MLMD."""
    if not home.metadata.is_file():
        return []  # lost: the artifacts are those of earlier runs, which the next run sets aside
    with lineage.opened(home.metadata) as store:
        if not store.get_executions():
            return []
        if not dry_run:
            integrity.relocate(store, home.artifacts)
        needed = _needed(store, home, keep_runs)
        artifacts = store.get_artifacts()
        used = {integrity.located(a.uri, home.artifacts) for a in artifacts if a.id in needed}
        stale = [a for a in artifacts if a.state == mlmd.Artifact.LIVE and a.id not in needed]
        if stale and not dry_run:
            for artifact in stale:
                artifact.state = mlmd.Artifact.DELETED
            store.put_artifacts(stale)
    if not dry_run:
        integrity.forget_listings(home.artifacts, needed)
        integrity.remove_scratch(home.artifacts)
    return [folder for folder in integrity.output_folders(home.artifacts, publish.DELETED) if folder not in used]


def _needed(store: MetadataStore, home: Home, keep_runs: int) -> set[int]:
    """IDs of the artifacts to keep."""
    needed = set()
    for version in {*publish.versions(home.serving_model), *_released(home)}:
        if pushed := lineage.pushed_version(store, version):
            needed.add(pushed.evaluation_id)
    if not keep_runs:
        return needed | {a.id for a in store.get_artifacts() if a.state == mlmd.Artifact.LIVE}
    finished = False
    runs = sorted(store.get_contexts_by_type(RUN_CONTEXT), key=lambda run: run.id, reverse=True)  # ids, not the clock
    for age, run in enumerate(runs):
        executions = store.get_executions_by_context(run.id)
        made = [a for e in executions for found in lineage.outputs(store, e.id).values() for a in found]
        reached_pusher = any(artifact.type == lineage.PUSHED_MODEL for artifact in made)
        if age < keep_runs or (reached_pusher and not finished):
            needed |= {artifact.id for artifact in made}
        finished |= reached_pusher
        if finished and age >= keep_runs - 1:
            break
    return needed


def _released(home: Home) -> set[int]:
    """Versions that release.json names. Raises InputError if it is damaged."""
    return {*release.protected_versions(home.root), *release.read_release(home.root).earlier}


def _remove(folder: Path) -> None:
    """Delete an output folder; until it is gone, its name is one that nobody reads."""
    if not folder.name.startswith(publish.DELETED):
        folder = folder.rename(folder.with_name(f"{publish.DELETED}{folder.name}"))
    _delete(folder)


def _delete(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as e:  # its path is relative
        raise InputError(f"{folder}: cannot be removed ({e.strerror})", CHANGE_PERMISSIONS) from e


def _logs(home: Home, keep_runs: int) -> list[Path]:
    """Log folders of runs to delete: all but the `keep_runs` that were written to last, and the last one with a result.

    Refused runs have a folder, too; without the exception they could take the result from `status`. Folders without a
    result stay while it may still be written.
    """
    folders = [f for f in integrity.subfolders(home.root / "logs") if f.name not in COMMAND_LOGS]
    folders.sort(key=lambda folder: (folder.lstat().st_mtime_ns, folder.name), reverse=True)
    result = next((folder for folder in folders if (folder / RESULT_FILE).is_file()), None)
    old = [folder for folder in folders[keep_runs:] if folder != result] if keep_runs else []
    return [f for f in old if (f / RESULT_FILE).is_file() or time.time() - f.lstat().st_mtime > UNFINISHED_S]


def _command_logs(home: Home) -> Iterator[Path]:
    """Logs that grow from command to command: the server's, and those of COMMAND_LOGS."""
    logs = home.root / "logs"
    if not logs.is_symlink():
        for folder in [logs, *(f for f in integrity.subfolders(logs) if f.name in COMMAND_LOGS)]:
            yield from (path for path in folder.glob("*.log") if path.is_file() and not path.is_symlink())


def _shorten(log: Path) -> None:
    """Keep the end of a long log. A server that has it open for appending continues after that."""
    if log.stat().st_size <= MAX_LOG_BYTES:
        return
    with open(os.open(log, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW), "r+b") as file:
        file.seek(-KEPT_LOG_BYTES, os.SEEK_END)
        end = file.read()
        file.truncate(0)
        file.write(end[end.find(b"\n") + 1 :])
