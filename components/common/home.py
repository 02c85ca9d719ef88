"""The home: the folder that contains every file the product writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from components.common import contract
from components.common.commands import command
from components.common.errors import InputError
from components.common.files import locked

LOCK_FILE: Final = ".run.lock"  # held by a run, and by gc
RESULT_FILE: Final = "run.json"  # in a run's log folder


def existing(home: Path) -> Path:
    """The absolute path of a home. Raises InputError if there is no such folder: the path may be mistyped."""
    home = home.resolve()
    if not home.is_dir():
        raise InputError(f"{home}: no such folder", f"Check --home, or make this home: {command('pipeline', 'run')}")
    return home


@dataclass(frozen=True)
class Home:
    """Paths below `root`. Folders are created when they are needed."""

    root: Path

    @property
    def metadata(self) -> Path:
        return self.root / "metadata.sqlite"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def serving_model(self) -> Path:
        return self.root / "serving_model" / contract.MODEL_NAME

    @property
    def accepted_statistics(self) -> Path:
        """Of the data of the last runs: see components/data/accepted.py."""
        return self.root / "statistics"

    def data(self, dataset: str) -> Path:
        return self.root / "data" / dataset

    def logs(self, run_id: str) -> Path:
        return self.root / "logs" / run_id

    def report(self, run_id: str) -> Path:
        return self.root / "reports" / f"{run_id}.html"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the home for one run. The kernel releases the lock when the process ends, even if it is killed.

        Raises:
            InputError: the home cannot be written, or another run uses it.
        """
        lock = self.root / LOCK_FILE

        def refuse() -> None:
            raise InputError(
                f"{self.root}: another run or gc is using this home (process {lock.read_text().strip() or 'unknown'})",
                "Wait for it to end, or give this run its own home: --home DIR",
            )

        with locked(lock, refuse) as file:
            if not file.writable():
                raise InputError(f"{self.root}: cannot be written", "Name another home: --home DIR")
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield
