"""Moving the labels `stable` and `canary` without a request noticing.

The order is the one that TensorFlow Serving needs, and each step may be the last before a `kill -9`:

1. write down what is about to be done (release.json), which also keeps the Pusher from deleting the version;
2. have the server load the version beside the others, and wait until it is AVAILABLE;
3. move the label, and ask by it;
4. write down what is served now (release.json), and add it to the history;
5. make the model config file from it (each start of a server does so anyway);
6. have the server unload what is no longer needed;
7. take the note of step 1 away.

Before 4 a restarted server comes up as before, afterwards as decided. The same command, run again, finishes. Should
2 or 3 fail, the server is told to go back and the labels stay.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.common.errors import UserError
from components.common.files import write_durably
from components.versions import manifest
from components.versions.release import RELEASE_FILE, Release, pushed_versions, read_release, version_folder
from serving.launch import backends, model_config, server
from serving.launch.backends import Setup
from serving.launch.proof import loaded_versions, refuse_missing
from serving.release import history

if TYPE_CHECKING:
    from serving.release.control import Control


class Decision(NamedTuple):
    """The version that a command is about, and what is to be served."""

    version: int
    wanted: Release


Choose = Callable[[Release, int | None], Decision]
"""From what is served, and the version asked for (None: the command's default)."""


@dataclass(frozen=True)
class Change:
    """What a command has done.

    Attributes:
        version: which it was about.
        changed: False if that was so already.
        in_effect: False if no server is running: then it holds from the next start.
        seconds: until the last step was done.
    """

    action: str
    version: int
    before: Release
    after: Release
    changed: bool
    in_effect: bool
    seconds: float


def carry_out(home: Path, action: str, asked: int | None, reason: str, choose: Choose) -> Change:
    """Decide, under the lock, and do it. One command of a home at a time; another waits.

    Raises:
        UserError: the decision is refused, the version does not load, the server does not answer, the home is unfit.
    """
    reason = history.checked_reason(reason)
    started = time.monotonic()
    with server.locked(home / "serving"):
        now, pending = _taken_up(home, action, asked)
        if pending is not None:
            asked = pending["version"]  # the default may mean another version by now
        version, wanted = choose(now, asked)
        changed = (now.stable, now.canary) != (wanted.stable, wanted.canary)
        done = replace(wanted, entry=now.entry)
        if changed:
            _refuse_unfit(home, now, wanted)
            pending = pending or history.note(action, asked, version, reason)
            write_release(home, replace(now, pending=pending))
        running = server.find(home)
        if running is not None:
            from serving.release.control import Control

            base = backends.base_path(running.backend, Setup(home))
            with Control(running.grpc_port) as control:
                if changed and pending is not None:
                    try:
                        _move(control, home, base, now, wanted)
                        done = _decided(home, now, wanted, pending)
                    except BaseException as e:
                        _undo(control, home, base, now, pending, e)
                        raise
                    history.catch_up(home, done.entry)
                write_durably(Setup(home).config_file, model_config.of_release(home, base, wanted))
                control.reload(model_config.of_release(home, base, wanted))
                control.wait_highest(max(loaded_versions(home, wanted), default=None))
        elif changed and pending is not None:
            done = _decided(home, now, wanted, pending)
            history.catch_up(home, done.entry)
        if pending is not None:
            write_release(home, replace(done, pending=None))
    return Change(action, version, now, wanted, changed, running is not None, round(time.monotonic() - started, 3))


def write_release(home: Path, release: Release) -> None:
    write_durably(home / RELEASE_FILE, json.dumps(asdict(release), indent=1) + "\n")


def _taken_up(home: Path, action: str, asked: int | None) -> tuple[Release, dict[str, Any] | None]:
    """What is served, and the note of a killed command if this is the same one again."""
    now = read_release(home)
    history.catch_up(home, now.entry)
    killed = now.pending
    if killed is None or (killed["action"], killed["asked"]) == (action, asked):
        return now, killed
    if now.entry is None or now.entry["id"] != killed["id"]:  # it had decided nothing yet
        history.append(home, history.entry(now, now, {**killed, "id": uuid.uuid4().hex}, "interrupted"))
    return replace(now, pending=None), None


def _needed(home: Path, release: Release) -> set[int]:
    """Versions that must answer before anything else may go."""
    return {*release.labels.values()} or {*pushed_versions(home)[-1:]}


def _refuse_unfit(home: Path, now: Release, wanted: Release) -> None:
    """Raise InputError unless all that is needed is there, and all that is new is proven."""
    for version in _needed(home, wanted):
        refuse_missing(home, version)
    for version in _needed(home, wanted) - {*now.labels.values()}:
        manifest.verify(version_folder(home, version))


def _move(control: Control, home: Path, base: str, now: Release, wanted: Release) -> None:
    """Load what is wanted beside what is there; once it is available, move the labels, and ask by them."""
    needed = _needed(home, wanted)
    together = loaded_versions(home, now) | loaded_versions(home, wanted) | needed
    before = control.versions()
    # Not with the old labels if a killed command has moved them already: they would go back and forth.
    if any(number not in before or before[number].state != "AVAILABLE" for number in needed):
        control.reload(model_config.text(base, together, now.labels))
        control.wait_available(needed, before)
    control.reload(model_config.text(base, together, wanted.labels))
    control.confirm(wanted.labels)


def _undo(control: Control, home: Path, base: str, now: Release, pending: dict[str, Any], error: BaseException) -> None:
    """Back to what was served. A server that is gone comes up that way by itself."""
    with suppress(UserError):
        control.reload(model_config.of_release(home, base, now))
    words = error.problem if isinstance(error, UserError) else type(error).__name__
    with suppress(UserError):  # a full disk may be the reason
        history.append(home, {**history.entry(now, now, {**pending, "id": uuid.uuid4().hex}, "failed"), "error": words})
        write_release(home, replace(now, pending=None))


def _decided(home: Path, now: Release, wanted: Release, pending: dict[str, Any]) -> Release:
    """What is wanted, on disk: from here on there is no way back but forward."""
    done = replace(wanted, pending=pending, entry=history.entry(now, wanted, pending, "done"))
    write_release(home, done)
    return done
