"""What a model can be fed and evaluated on, kept beside it: a later run may have other images or classes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from components.common import contract


@dataclass(frozen=True)
class Takes:
    """What a model can be evaluated on."""

    image_height: int
    image_width: int
    classes: int


def write_takes(model_uri: Path, takes: Takes) -> None:
    """Leave `takes` in a Model artifact, for later runs that consider it as a baseline."""
    (model_uri / contract.TAKES_FILE).write_text(json.dumps(asdict(takes)))


def read_takes(model_uri: Path) -> Takes:
    """Raises OSError, ValueError or TypeError if the file is gone or not what `write_takes` wrote."""
    return Takes(**json.loads((model_uri / contract.TAKES_FILE).read_text()))


def unfit(model_uri: Path, wanted: Takes) -> str | None:
    """Why a model cannot be the baseline; None if it can."""
    try:
        takes = read_takes(model_uri)
    except (OSError, ValueError, TypeError):
        return "its files are gone or incomplete"
    return None if takes == wanted else f"it takes {takes}, this run has {wanted}"
