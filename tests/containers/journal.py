"""Records what was expected and what was seen, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A step, with the server's image that it was tried with."""

    image: str
    step: str
    expected: str
    seen: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.seen == self.expected


@dataclass
class Journal:
    """The rows so far. `image` names the server's image of the next ones."""

    path: Path
    image: str = ""
    rows: list[Row] = field(default_factory=list)

    def step(self, name: str, expected: str, act: Callable[[], str]) -> None:
        """Do a step; it passes if `act` returns `expected`. The table is written after each one."""
        started = time.monotonic()
        try:
            seen = act()
        except Exception as e:  # the other steps still tell something
            seen = f"{type(e).__name__}: {e}"
        row = Row(self.image, name, expected, " ".join(seen.split()), time.monotonic() - started)
        self.rows.append(row)
        print(
            f"{'ok    ' if row.passed else 'FAILED'} {row.seconds:6.1f} s  [{row.image}] {name}: {row.seen}", flush=True
        )
        lines = ["| server | step | expected | seen | seconds |", "|---|---|---|---|---|"]
        for row in self.rows:
            seen = row.seen if row.passed else f"**{row.seen}**"
            cells = (row.image, row.step, row.expected, seen, f"{row.seconds:.1f}")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text("\n".join(lines) + "\n")

    @property
    def failed(self) -> int:
        return sum(not row.passed for row in self.rows)
