"""The release history: who changed the served version, when and why. One JSON object per line, append-only."""

from __future__ import annotations

import json
import os
import pwd
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from components.common.errors import InputError, UsageError, cannot_write
from components.common.files import sync
from components.versions.release import Release, read_release

HISTORY_FILE: Final = Path("serving", "history.jsonl")
MAX_REASON_CHARS: Final = 1000
Entry = dict[str, Any]


def checked_reason(reason: str) -> str:
    """Return the reason without surrounding whitespace. Raises UsageError if it is too long."""
    if len(reason) > MAX_REASON_CHARS:
        raise UsageError(f"the reason has {len(reason):,} characters", f"The maximum is {MAX_REASON_CHARS:,}.")
    return reason.strip()


def user() -> str:
    """Return the name of this process's user, or the user ID if it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def append(home: Path, entry: Entry) -> None:
    """Append an entry in one write; it is durable on return. Raises InputError.

    A last line truncated by a crash is kept as a separate line.
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
        raise cannot_write(path, e) from e
    if written < len(line):
        raise InputError(f"{path}: the disk is full", "Make room, then run the command again.")


def read(home: Path) -> list[Entry]:
    """Return all entries, oldest first; an unreadable line becomes `{"damaged": its text}`. Raises InputError."""
    path = home / HISTORY_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    return [_parsed(line) for line in lines if line.strip()]


def complete(entries: list[Entry], latest: Entry | None) -> list[Entry]:
    """Return the entries, and the latest change if its command was killed before appending it."""
    missing = latest is not None and all(known.get("id") != latest["id"] for known in entries)
    return [*entries, latest] if missing and latest is not None else entries


def load(home: Path) -> list[Entry]:
    """Return all entries, and the latest change if a kill left it only in release.json. Raises InputError."""
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
    """Return the change that is about to be made; its history entry will have the same id."""
    return {"id": uuid.uuid4().hex, "action": action, "asked": requested, "version": version, "reason": reason}


def entry(before: Release, after: Release, pending: Entry, outcome: str) -> Entry:
    """Return the history entry of a change: what was done, by whom and when."""
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
