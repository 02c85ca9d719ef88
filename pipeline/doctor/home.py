"""Checks the health of the home: folders, metadata, pushed versions, locks, space. Changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from components.common.commands import command
from components.common.errors import CHANGE_PERMISSIONS, InputError
from components.common.home import LOCK_FILE, Home
from components.common.home_size import HomeSize, megabytes
from components.versions import manifest, publish
from components.versions.release import read_release
from pipeline import history
from pipeline.doctor.finding import Finding

RUN_BYTES: Final = 500e6  # written by the default run, downloads and statistics included
LOCKS: Final = Path("/proc/locks")


def folders(home: Home) -> Iterator[Finding]:
    """Whether a run could write where it has to."""
    there = home.root
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield Finding("home", "error", f"{there}: is not a folder", "name another home: --home DIR")
        return
    parts = [home.artifacts, home.root / "logs", home.root / "data", home.serving_model, home.metadata]
    refused = [path for path in (there, *parts) if path.exists() and not os.access(path, os.W_OK, effective_ids=True)]
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        yield Finding("home", "error", f"{refused[0]}{more}: cannot be written", CHANGE_PERMISSIONS)
    elif there != home.root:
        yield Finding("home", "ok", f"{home.root}: the first run creates it")
    else:
        size = HomeSize.read(home)
        shown = f", {megabytes(size.bytes['total'])} MB" if size else ""
        yield Finding("home", "ok", f"{home.root}{shown}")


def space(home: Home) -> Iterator[Finding]:
    there = next(path for path in (home.root, *home.root.parents) if path.exists())
    free = shutil.disk_usage(there).free
    tight = free < RUN_BYTES
    fix = f"free some, or name another home (--home DIR); old runs go with: {command('pipeline', 'gc')}"
    yield Finding("disk", "error" if tight else "ok", f"{free / 1e9:.1f} GB free", fix if tight else "")


def metadata(home: Home) -> Iterator[Finding]:
    with history.opened(home) as past:
        if past is None:
            yield Finding("metadata", "ok", "no run yet")
        else:
            runs = len({execution.run_id for execution in past.executions})
            yield Finding("metadata", "ok", f"readable: {runs} runs, {len(past.artifacts)} artifacts")


def versions(home: Home) -> Iterator[Finding]:
    """Each pushed version's files against its manifest; only unchanged ones are served."""
    base = home.serving_model
    found = publish.versions(base) if base.is_dir() else []
    problems = []
    for number in found:
        try:
            manifest.verify(base / str(number))
        except InputError as e:
            problems.append(e.problem)
    for problem in problems:
        fix = "move the version's folder away; to push the model again: " + command("pipeline", "run")
        yield Finding("versions", "warning", problem, fix)
    if not problems:
        yield Finding("versions", "ok", f"{len(found)} pushed, files as pushed" if found else "none pushed yet")
    read_release(home.root)  # raises if it is damaged


def locks(home: Home) -> Iterator[Finding]:
    """Who uses the home now. The locks are only read: taking one would refuse a run that starts at this moment."""
    holders = {}
    with suppress(OSError):  # not on macOS
        for line in LOCKS.read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK":
                holders[int(words[5].rpartition(":")[2])] = words[4]
    for path, use in ((home.root / LOCK_FILE, "a run or gc"), (home.serving_model / publish.LOCK_FILE, "a push")):
        with suppress(OSError):
            pid = holders.get(path.stat().st_ino)
            if pid is not None:
                fix = f"wait for it to end, or stop it: kill {pid}"
                yield Finding("locks", "warning", f"{use} is using the home (process {pid})", fix)
                return
    yield Finding("locks", "ok", "no other run uses the home")
