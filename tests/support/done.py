"""What a finished command left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        (line,) = self.stdout.splitlines()  # with --json there is nothing else on stdout
        value: dict[str, Any] = json.loads(line)
        return value

    @property
    def states(self) -> dict[str, str]:
        return {node["id"]: node["state"] for node in self.json["nodes"]}
