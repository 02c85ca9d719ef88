"""Read a compiled package: its nodes in order, and the parameters that a run can set."""

from __future__ import annotations

import difflib
import graphlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from components.common.commands import command
from components.common.errors import InputError, UsageError

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
}


@dataclass(frozen=True)
class Package:
    """A package that `compile` wrote.

    Attributes:
        nodes: node ids in topological order.
        parameters: KFP's definitions of the runtime parameters, by name.
    """

    path: Path
    name: str
    nodes: tuple[str, ...]
    parameters: dict[str, dict[str, Any]]

    def arguments(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Values of runtime parameters, by name, from "train.steps=500" or "train_steps=500". Raises UsageError."""
        return dict(self._argument(text) for text in overrides)

    def _argument(self, text: str) -> tuple[str, Any]:
        key, equals, raw = text.partition("=")
        name = key.strip().replace(".", "_")
        if not equals:
            raise UsageError(f"--set {text}: expected section.key=value", "For example: --set train.steps=500")
        if name not in self.parameters:
            near = difflib.get_close_matches(name, self.parameters, n=1, cutoff=0.0)
            raise UsageError(
                f"{key.strip()} is not a parameter of {self.path} (the nearest is {', '.join(near) or 'none'})",
                f"Its parameters are {', '.join(self.parameters)}. To change another setting, compile again: "
                f"{command('pipeline', 'compile', '--set', text)}",
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
    """Read a package. Raises InputError if `compile` did not write the file."""
    try:
        spec = next(iter(yaml.safe_load_all(path.read_text())))
        tasks = spec["root"]["dag"]["tasks"]
        order = graphlib.TopologicalSorter({k: sorted(v.get("dependentTasks", [])) for k, v in sorted(tasks.items())})
        parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return Package(path, spec["pipelineInfo"]["name"], tuple(order.static_order()), parameters)
    except OSError as e:
        raise InputError(
            f"{path}: cannot be read ({e.strerror})", f"Compile it: {command('pipeline', 'compile')}"
        ) from e
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, StopIteration) as e:
        raise InputError(
            f"{path}: not a compiled pipeline", f"Compile it again: {command('pipeline', 'compile')}"
        ) from e
