"""The size of a home, recorded at the end of each run and gc, so that `status` need not measure it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from components.common.files import write_durably
from components.common.home import Home

FILE_NAME: Final = ".size.json"
PARTS: Final = {  # what each top-level entry of a home is counted as
    "data": "data",
    "artifacts": "artifacts",
    "serving_model": "serving_model",
    "logs": "logs",
    "metadata.sqlite": "metadata",
}
OTHER: Final = "other"


@dataclass(frozen=True)
class HomeSize:
    """Sums of file sizes.

    Attributes:
        bytes: by part: the values of PARTS, "other", and "total".
        recorded_utc: when they were measured.
    """

    bytes: Mapping[str, int]
    recorded_utc: str

    @classmethod
    def read(cls, home: Home) -> Self | None:
        """The recorded size; None if there is none, or it is damaged."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            found = cls(**json.loads((home.root / FILE_NAME).read_text()))
            known = found.bytes.keys() >= {"total", *PARTS.values()}
            return found if known and all(type(size) is int for size in found.bytes.values()) else None
        return None

    def record(self, home: Home) -> None:
        """Write the record. Raises InputError if the home cannot be written."""
        write_durably(home.root / FILE_NAME, json.dumps(asdict(self)))

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {megabytes(size)}" for name, size in self.bytes.items() if name != "total")
        return f"{megabytes(self.bytes['total'])} MB: {parts} (recorded {self.recorded_utc})"


def measure(home: Home) -> HomeSize:
    """The present size of a home. Links count as themselves, not as their targets."""
    sizes = dict.fromkeys([*PARTS.values(), OTHER], 0)
    for path in home.root.iterdir():
        sizes[PARTS.get(path.name, OTHER)] += size_of(path)
    return HomeSize(sizes | {"total": sum(sizes.values())}, datetime.now(UTC).isoformat(timespec="seconds"))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed, vanished files count nothing."""
    files = [path] if path.is_symlink() or not path.is_dir() else (Path(f, n) for f, _, ns in os.walk(path) for n in ns)
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.lstat().st_size
    return total


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"
