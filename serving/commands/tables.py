"""Formats the history and the shadow comparison as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.release.history import Entry


def history(entries: Sequence[Entry]) -> list[str]:
    """Return the history as lines, newest last."""
    rows: list[tuple[str, ...]] = [("when", "who", "what", "stable", "canary", "outcome", "why")]
    rows += [_row(entry) for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that a reason cannot control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shadow(comparison: dict[str, Any]) -> list[str]:
    """Return a comparison as lines."""
    lines = [f"{'':8}{'version':>14}{'right':>9}{'accuracy':>10}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}"]
    for label in ("stable", "canary"):
        row = comparison[label]
        p50, p99 = ("-" if row[key] is None else f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms"))
        accuracy = f"{row['accuracy']:.4f}"
        lines.append(f"{label:8}{row['version']:>14}{row['right']:>9}{accuracy:>10}{p50:>9}{p99:>9}{row['failed']:>8}")
    return [*lines, f"{comparison['asked']} test digits, agreement {comparison['agreement']:.4f}"]


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
