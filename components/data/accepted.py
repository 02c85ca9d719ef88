"""The train statistics of the data that the last runs accepted, in a folder of the home.

A Kubeflow task has neither ML Metadata nor TFX's resolvers, so both orchestrators use files. Two are enough: the newest
record, and for a run on the same data the one before it, which is always of other data.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from components.common.files import write_durably

_DIGITS: Final = 16
_NAME: Final = re.compile(r"([0-9]{1,18})-[0-9a-f]{16}\.pb")


def previous(folder: Path, identity: str) -> Path | None:
    """The newest record of other data; None if there is none.

    Args:
        identity: hash of the data, at least 16 hexadecimal digits.
    """
    return next((path for path in reversed(_records(folder)) if _identity(path) != identity[:_DIGITS]), None)


def record(folder: Path, identity: str, statistics: bytes) -> None:
    """Make this the newest record.

    Its number tells it from an earlier record of the same data, so data that comes and goes is compared every time.
    """
    found = _records(folder)
    if found and _identity(found[-1]) == identity[:_DIGITS]:
        return
    number = 1 + _number(found[-1]) if found else 1
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / f"{number}-{identity[:_DIGITS]}.pb", statistics)
    for path in found[:-1]:
        path.unlink(missing_ok=True)


def _records(folder: Path) -> list[Path]:
    """The oldest first."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _identity(path: Path) -> str:
    return path.stem.partition("-")[2]
