"""Who changed what is served, when and why: one JSON object per line, only ever appended to."""

from __future__ import annotations

import json
import os
import pwd
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from components.common.errors import InputError, UsageError
from components.common.files import sync_folder
from components.versions.release import Release

HISTORY_FILE: Final = Path("serving", "history.jsonl")
MAX_REASON_CHARS: Final = 1000
Entry = dict[str, Any]


def checked_reason(reason: str) -> str:
    """The reason as it is kept. Raises UsageError if it is a document."""
    if len(reason) > MAX_REASON_CHARS:
        raise UsageError(f"the reason has {len(reason):,} characters", f"At most {MAX_REASON_CHARS:,} are kept.")
    return reason.strip()


def user() -> str:
    """Who runs this process: a name, or the number if it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def append(home: Path, entry: Entry) -> None:
    """Add an entry in one write, on disk when this returns. Raises InputError.

    What a crash left of the last line keeps its line, for people to see.
    """
    path = home / HISTORY_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            line = ("\n" if torn else "") + json.dumps(entry) + "\n"
            written = os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror})", "Make room, then run the command again.") from e
    if written < len(line):
        raise InputError(f"{path}: the disk is full", "Make room, then run the command again.")


def read(home: Path) -> list[Entry]:
    """All entries, oldest first; a line that cannot be read as `{"damaged": its text}`. Raises InputError."""
    path = home / HISTORY_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    return [_parsed(line) for line in lines if line.strip()]


def complete(entries: list[Entry], latest: Entry | None) -> list[Entry]:
    """The entries with the latest change, should it have taken effect without being recorded (`kill -9`)."""
    missing = latest is not None and all(known.get("id") != latest["id"] for known in entries)
    return [*entries, latest] if missing and latest is not None else entries


def catch_up(home: Path, latest: Entry | None) -> None:
    """Record the latest change if that is missing. Raises InputError."""
    recorded = read(home)
    for entry in complete(recorded, latest)[len(recorded) :]:
        append(home, entry)


def note(action: str, asked: int | None, version: int, reason: str) -> Entry:
    """What is about to be done; its id becomes that of the entry."""
    return {"id": uuid.uuid4().hex, "action": action, "asked": asked, "version": version, "reason": reason}


def entry(before: Release, after: Release, noted: Entry, outcome: str) -> Entry:
    """What has been done, by whom and when."""
    return {
        "id": noted["id"],
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "user": user(),
        "action": noted["action"],
        "version": noted["version"],
        "before": {"stable": before.stable, "canary": before.canary},
        "after": {"stable": after.stable, "canary": after.canary},
        "outcome": outcome,
        "reason": noted["reason"],
    }


def table(entries: Sequence[Entry]) -> list[str]:
    """Lines for people, newest last."""
    rows: list[tuple[str, ...]] = [("when", "who", "what", "stable", "canary", "outcome", "why")]
    rows += [_row(entry) for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def printable(text: str) -> str:
    """The text on one line and without control characters: what a reason says must not act on a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _parsed(line: bytes) -> Entry:
    try:
        entry = json.loads(line)
        if isinstance(entry, dict):
            return entry
    except (ValueError, RecursionError):
        pass
    return {"damaged": line.decode(errors="replace")}


def _row(entry: Entry) -> tuple[str, ...]:
    if "damaged" in entry:
        return ("?", "?", "damaged line", "", "", "", printable(entry["damaged"])[:60])
    what = " ".join(str(part) for part in (entry.get("action"), entry.get("version")) if part is not None)
    why = "; ".join(str(part) for part in (entry.get("reason"), entry.get("error")) if part)
    cells = (entry.get("time"), entry.get("user"), what, _move(entry, "stable"), _move(entry, "canary"))
    return tuple(printable(str(cell)) for cell in (*cells, entry.get("outcome", ""), why))


def _move(entry: Entry, label: str) -> str:
    before, after = (
        "-" if not isinstance(side, Mapping) or side.get(label) is None else str(side[label])
        for side in (entry.get("before"), entry.get("after"))
    )
    return after if before == after else f"{before} -> {after}"
