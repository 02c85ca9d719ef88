"""What the labels of a run mean, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def class_names(settings: Mapping[str, Any], classes: int) -> list[str]:
    """The names of the classes 0 .. classes-1; the numbers themselves if they have no names.

    Args:
        settings: of a run, {section: {key: value}}, as in run.json or a manifest; those of earlier versions have no
            names.
    """
    return [str(name) for name in settings.get("data", {}).get("class_names") or range(classes)]
