"""The DAG as a cluster sees it, and the settings that a run in the cluster may change.

A compiled pipeline has runtime parameters (`train_steps`), while TFX's nodes have properties that were made from
settings (`custom_config`, `eval_config`, ...). So a task gets the compiled settings and the values of its parameters,
and makes its properties anew with the same `create_pipeline`: one way from a setting to a property, wherever it runs.
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
# Settings that can be chosen for each run of a compiled pipeline.
RUNTIME_SETTINGS: Final = ("data.source", "train.steps", "train.learning_rate", "train.seed", *_GATE_NUMBERS)
_FILE_NAMES: Final = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class ExpectedFiles(IdxFiles):
    """Files that only a task can read: the compiling machine knows no more than where they will be.

    Attributes:
        content: stands for their hash.
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
    """KFP's name of a runtime setting: "train.steps" -> "train_steps"."""
    return setting.replace(".", "_")


def value_of(settings: Settings, setting: str) -> Any:
    section, key = setting.split(".")
    return getattr(getattr(settings, section), key)


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """`settings` with other values, by "section.key"; checked as ever. KFP has only doubles: 500.0 passes for an int.

    Raises:
        UsageError: a value that the setting does not allow.
    """
    for setting, value in values.items():
        section, key = setting.split(".")
        kind = type(value_of(settings, setting))
        if kind is int and value != int(value):
            raise UsageError(f"{setting} must be a whole number, not {value}")
        settings = replace(settings, **{section: replace(getattr(settings, section), **{key: kind(value)})})
    return settings


def to_json(settings: Settings) -> str:
    """Everything that a task's properties can depend on; how tasks are run is not among it."""
    sections = asdict(settings) | {"kubeflow": {"volume_path": settings.kubeflow.volume_path}}
    return json.dumps(sections, sort_keys=True)


def from_json(text: str) -> Settings:
    def kept(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    sections = json.loads(text)
    return Settings(**{
        name: kind(**{f.name: kept(sections[name][f.name]) for f in fields(kind) if f.name in sections.get(name, {})})
        for name, kind in SECTIONS.items()
    })  # fmt: skip


def home_of(settings: Settings) -> Home:
    """The home in the cluster: the volume, with the raw data and the pushed versions."""
    return Home(Path(settings.kubeflow.volume_path))


def dag(settings: Settings, files: IdxFiles | None = None) -> Any:
    """The tfx Pipeline as tasks in the cluster see it.

    Args:
        files: the checked data, for tasks that need it.
    """
    from pipeline.dag import create_pipeline

    return create_pipeline(settings, files or expected_files(settings), home_of(settings), local=False)


def properties(pipeline: Any) -> dict[str, dict[str, Any]]:
    """Properties of each node of a tfx Pipeline as KFP carries them: numbers and texts, by node id and name."""
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
