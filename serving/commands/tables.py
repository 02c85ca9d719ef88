"""Formats the history and the shadow comparison as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from serving.release.history import Entry

WIDTH: Final = 80
INDENT: Final = "    "
DAMAGED_SHOWN: Final = 60  # characters


def history(entries: Sequence[Entry]) -> list[str]:
    """Return the history as lines of at most WIDTH columns, newest last; the first line of an entry is not indented."""
    return [line for entry in entries for line in _lines(entry)]


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


def _lines(entry: Entry) -> list[str]:
    if "damaged" in entry:
        return _wrapped(f"damaged line: {printable(entry['damaged'])[:DAMAGED_SHOWN]}")
    what = " ".join(str(entry[key]) for key in ("action", "version") if entry.get(key) is not None)
    lines = [
        f"{entry.get('time')}  {entry.get('user')}  {what}: {entry.get('outcome', '')}",
        f"stable {_move(entry, 'stable')}, canary {_move(entry, 'canary')}",
        *(str(entry[key]) for key in ("reason", "error") if entry.get(key)),
    ]
    return [row for number, line in enumerate(lines) for row in _wrapped(printable(line), INDENT if number else "")]


def _wrapped(line: str, indent: str = "") -> list[str]:
    """Wrap at WIDTH columns of a terminal, where some characters take two; later lines are indented."""
    from rich.console import Console
    from rich.text import Text

    rows = Text(line).wrap(Console(), WIDTH - len(INDENT))
    return [f"{INDENT if number else indent}{row.plain.rstrip()}" for number, row in enumerate(rows)]


def _move(entry: Entry, label: str) -> str:
    before, after = (
        "none" if not isinstance(side, Mapping) or side.get(label) is None else str(side[label])
        for side in (entry.get("before"), entry.get("after"))
    )
    return after if before == after else f"{before} -> {after}"
