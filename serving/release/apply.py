"""Moves the labels `stable` and `canary` on a running server without a failed request.

TensorFlow Serving requires this order, and the process may be killed (`kill -9`) after any step:

1. choose the version and write the pending change to release.json, while the Pusher cannot delete versions; from then
   on it does not delete this one;
2. have the server load the version beside the others, and wait until it is AVAILABLE;
3. move the label, and check it with a request;
4. write the new release to release.json, and append it to the history;
5. write the model config file for the new release (as every server start does);
6. have the server unload the versions that are no longer needed;
7. remove the pending change.

A server that restarts before step 4 serves the old release, and after step 4 the new one. Running the same command
again completes the change, unless it was killed before step 4 and a version was pushed since. If step 2 or 3 fails, the
server's old config, labels included, is restored.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.common.errors import UserError
from components.common.files import locked, write_durably
from components.versions import manifest
from components.versions.publish import LOCK_FILE
from components.versions.release import (
    RELEASE_FILE,
    Release,
    pushed_versions,
    read_release,
    served_versions,
    version_folder,
    versions_folder,
)
from serving.launch import backends, model_config, server
from serving.launch.backends import Setup
from serving.launch.proof import check_pushed, loaded_versions
from serving.release import history

if TYPE_CHECKING:
    from serving.client.control import Control


class Decision(NamedTuple):
    """The version that a command affects, and the release to apply."""

    version: int
    wanted: Release


Choose = Callable[[Release, int | None], Decision]
"""Makes a Decision from the current release and the requested version (None: the command's default)."""


@dataclass(frozen=True)
class Change:
    """The result of a command.

    Attributes:
        version: the version that the command affected.
        changed: False if the labels were already as requested.
        in_effect: False if no server is running; the change then takes effect at the next start.
        seconds: the time that all steps took.
    """

    action: str
    version: int
    before: Release
    after: Release
    changed: bool
    in_effect: bool
    seconds: float


def apply(home: Path, action: str, requested: int | None, reason: str, choose: Choose) -> Change:
    """Make the decision and apply it while holding the home's lock. Concurrent commands wait.

    Raises:
        UserError: the command is rejected, the version does not load, the server does not respond, or the home is
            damaged.
    """
    reason = history.checked_reason(reason)
    started = time.monotonic()
    with server.locked(home / "serving"):
        with locked(versions_folder(home) / LOCK_FILE):  # until the pending change protects the version
            now, pending = _resume_pending(home, action, requested, reason)
            if pending is not None:
                requested = pending["version"]
            version, wanted = choose(now, requested)
            changed = (now.stable, now.canary) != (wanted.stable, wanted.canary)
            done = replace(wanted, entry=now.entry)
            if changed:
                _check_needed(home, now, wanted)
                asked = history.pending_change(action, requested, version, reason)
                pending = pending or {**asked, "newest": _newest(home)}
                write_release(home, replace(now, pending=pending))
        running = server.find(home)
        if running is not None:
            from serving.client.control import Control

            base = backends.base_path(running.backend, Setup(home))
            of_release = partial(
                model_config.of_release, home, base, backend=running.backend, unproven=running.unproven
            )
            with Control(running.grpc_port) as control:
                if changed and pending is not None:
                    try:
                        _move_labels(control, home, base, now, wanted)
                        done = _record(home, now, wanted, pending)
                    except BaseException as e:
                        _restore(control, home, of_release, now, pending, e)
                        raise
                    history.catch_up(home, done.entry)
                config = of_release(wanted)
                write_durably(Setup(home).config_file, config)
                control.reload(config)
                if wanted.stable is not None or not running.unproven:  # else any numbered folder may be the highest
                    control.wait_highest(max(loaded_versions(home, wanted), default=None))
        elif changed and pending is not None:
            done = _record(home, now, wanted, pending)
            history.catch_up(home, done.entry)
        if pending is not None:
            write_release(home, replace(done, pending=None))
    return Change(action, version, now, wanted, changed, running is not None, round(time.monotonic() - started, 3))


def write_release(home: Path, release: Release) -> None:
    write_durably(home / RELEASE_FILE, json.dumps(asdict(release), indent=1) + "\n")


def _resume_pending(
    home: Path, action: str, requested: int | None, reason: str
) -> tuple[Release, dict[str, Any] | None]:
    """Return the current release and, if the same command was killed, its pending change.

    A change that is recorded (step 4) is completed. Another one is made only if no version was pushed since; otherwise
    it is dropped, and the command decides again. A line on stderr says which.
    """
    now = read_release(home)
    history.catch_up(home, now.entry)
    pending = now.pending
    if pending is None:
        return now, None
    recorded = now.entry is not None and now.entry["id"] == pending["id"]
    same = (pending["action"], pending["asked"]) == (action, requested)
    what = f"interrupted earlier: {pending['action']} {pending['version']}, reason: {pending['reason'] or 'none'}"
    if same and recorded:
        print(f"{what}; it was recorded, and is completed now", file=sys.stderr)
        return now, pending
    newest = _newest(home)
    if same and pending.get("newest", newest) == newest:
        print(f"{what}; nothing was pushed since, and it is completed now", file=sys.stderr)
        return now, {**pending, "reason": reason or pending["reason"]}
    if not recorded:
        since = f"version {newest} is the newest now" if same else "this command replaces it"
        print(f"{what}; it is dropped: {since}", file=sys.stderr)
        history.append(home, history.entry(now, now, {**pending, "id": uuid.uuid4().hex}, "interrupted"))
    now = replace(now, pending=None)
    write_release(home, now)
    return now, None


def _newest(home: Path) -> int | None:
    return max(pushed_versions(home), default=None)


def _needed(home: Path, release: Release) -> set[int]:
    """Return the versions that must be AVAILABLE before any other is unloaded."""
    return {*release.labels.values()} or {max(served_versions(home, release))}


def _check_needed(home: Path, now: Release, wanted: Release) -> None:
    """Raise InputError unless all needed versions are present and the new ones pass verification."""
    for version in _needed(home, wanted):
        check_pushed(home, version)
    for version in _needed(home, wanted) - {*now.labels.values()}:
        manifest.verify(version_folder(home, version))


def _move_labels(control: Control, home: Path, base: str, now: Release, wanted: Release) -> None:
    """Load the wanted versions beside the current ones; once they are available, move the labels and check them."""
    needed = _needed(home, wanted)
    together = loaded_versions(home, now) | loaded_versions(home, wanted) | needed
    before = control.versions()
    # Without this condition, labels already moved by a killed command would move back and then forward again.
    if any(number not in before or before[number].state != "AVAILABLE" for number in needed):
        control.reload(model_config.text(base, together, now.labels))
        control.wait_available(needed, before)
    control.reload(model_config.text(base, together, wanted.labels))
    control.check_labels(wanted.labels)


def _restore(
    control: Control,
    home: Path,
    of_release: Callable[[Release], str],
    now: Release,
    pending: dict[str, Any],
    error: BaseException,
) -> None:
    """Restore the server's old config and record the failure. A server that has exited restarts with that config."""
    with suppress(UserError, OSError):
        control.reload(of_release(now))
    problem = error.problem if isinstance(error, UserError) else type(error).__name__
    with suppress(UserError):  # a full disk may be the cause
        failed = history.entry(now, now, {**pending, "id": uuid.uuid4().hex}, "failed")
        history.append(home, {**failed, "error": problem})
        write_release(home, replace(now, pending=None))


def _record(home: Path, now: Release, wanted: Release, pending: dict[str, Any]) -> Release:
    """Write the wanted release. From here on the change is completed, never undone."""
    done = replace(wanted, pending=pending, entry=history.entry(now, wanted, pending, "done"))
    write_release(home, done)
    return done
