"""A compiled package as `submit` sees it: its nodes in order, and the parameters that a run may set."""

from __future__ import annotations

import difflib
import graphlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from components.common.errors import InputError, UsageError

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
}


@dataclass(frozen=True)
class Package:
    """What `compile` wrote.

    Attributes:
        nodes: ids of the nodes, each after those it depends on.
        parameters: KFP's definitions of the runtime parameters, by name.
    """

    path: Path
    name: str
    nodes: tuple[str, ...]
    parameters: dict[str, dict[str, Any]]

    def arguments(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Values of runtime parameters from "train.steps=500" or "train_steps=500". Raises UsageError."""
        return dict(self._argument(text) for text in overrides)

    def _argument(self, text: str) -> tuple[str, Any]:
        key, equals, raw = text.partition("=")
        name = key.strip().replace(".", "_")
        if not equals:
            raise UsageError(f"--set {text}: expected section.key=value", "For example: --set train.steps=500")
        if name not in self.parameters:
            near = difflib.get_close_matches(name, self.parameters, n=1, cutoff=0.0)
            raise UsageError(
                f"{key.strip()} cannot be set for a run of {self.path} (the nearest is {', '.join(near) or 'none'})",
                f"It can set {', '.join(self.parameters)}; for all else compile again: "
                f"python -m pipeline compile --set {text}",
            )
        kinds = _KINDS[self.parameters[name]["parameterType"]]
        value: Any = raw
        if kinds != (str,):
            try:
                value = json.loads(raw)
            except ValueError:
                value = None
            if type(value) not in kinds:
                wanted = self.parameters[name]["parameterType"].lower().replace("_", " ")
                raise UsageError(f"--set {text}: {key.strip()} must be a {wanted}")
        return name, value


def read(path: Path) -> Package:
    """Raises InputError if the file is not a package of `compile`."""
    try:
        spec = next(iter(yaml.safe_load_all(path.read_text())))
        tasks = spec["root"]["dag"]["tasks"]
        order = graphlib.TopologicalSorter({k: sorted(v.get("dependentTasks", [])) for k, v in sorted(tasks.items())})
        parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return Package(path, spec["pipelineInfo"]["name"], tuple(order.static_order()), parameters)
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})", "Compile it: python -m pipeline compile") from e
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, StopIteration) as e:
        raise InputError(f"{path}: not a compiled pipeline", "Compile it anew: python -m pipeline compile") from e
