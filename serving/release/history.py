"""The history: who changed which version is served, when and why. One JSON object per line, append-only."""

from __future__ import annotations

import json
import os
import pwd
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from components.common.errors import InputError, UsageError
from components.common.files import sync
from components.versions.release import Release, read_release

HISTORY_FILE: Final = Path("serving", "history.jsonl")
MAX_REASON_CHARS: Final = 1000
Entry = dict[str, Any]


def checked_reason(reason: str) -> str:
    """Return the reason without surrounding space. Raises UsageError if it is too long."""
    if len(reason) > MAX_REASON_CHARS:
        raise UsageError(f"the reason has {len(reason):,} characters", f"At most {MAX_REASON_CHARS:,} are kept.")
    return reason.strip()


def user() -> str:
    """Return the user of this process: the name, or the number if there is none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def append(home: Path, entry: Entry) -> None:
    """Append an entry in one write, durable when this returns. Raises InputError.

    A last line that a crash has cut off remains as a line of its own.
    """
    path = home / HISTORY_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            cut_off = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            line = ("\n" if cut_off else "") + json.dumps(entry) + "\n"
            written = os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync(path.parent)
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror})", "Make room, then run the command again.") from e
    if written < len(line):
        raise InputError(f"{path}: the disk is full", "Make room, then run the command again.")


def read(home: Path) -> list[Entry]:
    """Return all entries, oldest first; an unreadable line as `{"damaged": its text}`. Raises InputError."""
    path = home / HISTORY_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    return [_parsed(line) for line in lines if line.strip()]


def complete(entries: list[Entry], latest: Entry | None) -> list[Entry]:
    """Return the entries and, if a kill kept it from being recorded, the latest change."""
    missing = latest is not None and all(known.get("id") != latest["id"] for known in entries)
    return [*entries, latest] if missing and latest is not None else entries


def load(home: Path) -> list[Entry]:
    """Return all entries with the latest change, which only release.json has after a kill. Raises InputError."""
    entries = read(home)
    with suppress(InputError):  # the history must remain readable when release.json is damaged
        entries = complete(entries, read_release(home).entry)
    return entries


def catch_up(home: Path, latest: Entry | None) -> None:
    """Append the latest change if it is missing. Raises InputError."""
    recorded = read(home)
    for entry in complete(recorded, latest)[len(recorded) :]:
        append(home, entry)


def pending_change(action: str, requested: int | None, version: int, reason: str) -> Entry:
    """Return the change that is about to be made; the entry will have the same id."""
    return {"id": uuid.uuid4().hex, "action": action, "asked": requested, "version": version, "reason": reason}


def entry(before: Release, after: Release, pending: Entry, outcome: str) -> Entry:
    """Return the entry of a change: what was done, by whom and when."""
    return {
        "id": pending["id"],
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "user": user(),
        "action": pending["action"],
        "version": pending["version"],
        "before": {"stable": before.stable, "canary": before.canary},
        "after": {"stable": after.stable, "canary": after.canary},
        "outcome": outcome,
        "reason": pending["reason"],
    }


def _parsed(line: bytes) -> Entry:
    try:
        entry = json.loads(line)
        if isinstance(entry, dict):
            return entry
    except (ValueError, RecursionError):
        pass
    return {"damaged": line.decode(errors="replace")}
