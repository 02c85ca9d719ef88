"""The DAG with the cluster's paths, and the settings that a run in the cluster can change.

A compiled pipeline has runtime parameters (`train_steps`), but TFX's nodes have properties computed from settings
(`custom_config`, `eval_config`, ...). So each task receives the compiled settings and the values of its parameters, and
recomputes its properties with the same `create_pipeline`, so settings become properties in the same way everywhere.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Final

from components.common.errors import UsageError
from components.common.home import Home
from components.common.settings import REAL_MNIST, GateSettings
from components.data.idx import IdxFiles
from pipeline.settings import SECTIONS, Settings

_GATE_NUMBERS: Final = tuple(
    f"gate.{name}" for name, kind in typing.get_type_hints(GateSettings).items() if kind in (int, float)
)
# Settings that each run of a compiled pipeline can override.
RUNTIME_SETTINGS: Final = ("data.source", "train.steps", "train.learning_rate", "train.seed", *_GATE_NUMBERS)
_FILE_NAMES: Final = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class ExpectedFiles(IdxFiles):
    """Files that only a task can read; on the compiling machine only their paths are known.

    Attributes:
        content: a placeholder for their hashes.
    """

    content = ""

    def hashes(self) -> dict[str, str]:
        return dict.fromkeys(self._fields, self.content)


def expected_files(settings: Settings, content: str = "") -> ExpectedFiles:
    source = settings.data.source
    folder = home_of(settings).data(REAL_MNIST) if source == REAL_MNIST else Path(source)
    files = ExpectedFiles(*(folder / name for name in _FILE_NAMES))
    files.content = content
    return files


def parameter_name(setting: str) -> str:
    """KFP's name for a runtime setting: "train.steps" -> "train_steps"."""
    return setting.replace(".", "_")


def value_of(settings: Settings, setting: str) -> Any:
    section, key = setting.split(".")
    return getattr(getattr(settings, section), key)


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """`settings` with new values, by "section.key". KFP has only doubles, so 500.0 is valid for an int.

    Raises:
        UsageError: the setting does not allow the value.
    """
    for setting, value in values.items():
        section, key = setting.split(".")
        kind = type(value_of(settings, setting))
        if kind is int and value != int(value):
            raise UsageError(f"{setting} must be a whole number, not {value}")
        settings = replace(settings, **{section: replace(getattr(settings, section), **{key: kind(value)})})
    return settings


def to_json(settings: Settings) -> str:
    """All settings on which the properties of a node can depend, as JSON."""
    sections = asdict(settings) | {"kubeflow": {"volume_path": settings.kubeflow.volume_path}}
    del sections["home"]  # of local runs
    return json.dumps(sections, sort_keys=True)


def from_json(text: str) -> Settings:
    """The settings that `to_json` wrote; the others have their defaults."""

    def from_list(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def section(name: str, kind: Any) -> Any:
        values = sections.get(name, {})
        return kind(**{f.name: from_list(values[f.name]) for f in fields(kind) if f.name in values})

    sections = json.loads(text)
    return Settings(**{name: section(name, kind) for name, kind in SECTIONS.items()})


def home_of(settings: Settings) -> Home:
    """The home in the cluster: the volume, with the raw data and the pushed versions."""
    return Home(Path(settings.kubeflow.volume_path))


def dag(settings: Settings, files: IdxFiles | None = None) -> Any:
    """The tfx Pipeline with the cluster's paths.

    Args:
        files: the checked data; None where it is not available.
    """
    from pipeline.dag import create_pipeline

    return create_pipeline(settings, files or expected_files(settings), home_of(settings))


def properties(pipeline: Any) -> dict[str, dict[str, Any]]:
    """Execution properties of each node of a tfx Pipeline as KFP's constants, by node id and name."""
    from google.protobuf import json_format
    from tfx.orchestration.kubeflow.v2 import compiler_utils

    return {
        node.id: {
            name: json_format.MessageToDict(compiler_utils.value_converter(value).constant)
            for name, value in node.exec_properties.items()
            if value is not None
        }
        for node in pipeline.components
    }
