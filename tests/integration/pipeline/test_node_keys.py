"""The keys that explain the cache, against the parameters that TFX hashes."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from components.common.home import Home
from components.common.settings import CHOICES, ON_DRIFT, SCALINGS
from components.data import idx
from components.data.idx import IdxFiles
from pipeline.dag import create_pipeline
from pipeline.local_runner import compiled
from pipeline.node_keys import USED, node_keys
from pipeline.settings import SECTIONS, Settings, load
from tests.conftest import ROOT
from tests.support.synthetic import write_data_set

OTHER: dict[str, Any] = {  # a valid value that is not the default, where none can be derived from the type
    "data.source": "/elsewhere",
    "data.on_drift": ON_DRIFT[1],
    "data.max_mean_intensity": 0.6,
    "transform.scaling": SCALINGS[0],
    "serving.backend": "embedded",
    "beam.runner": "FlinkRunner",
    "data.class_names": [f"class {k}" for k in range(10)],
} | {f"train.{key}": allowed[1] for key, allowed in CHOICES.items()}
OTHER |= {"train.optimizer": "sgd", "train.keep": "best"}


def other(key: str, value: Any) -> Any:
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return [*value, value[0] if value else "x"]
    return value + 1 if isinstance(value, int) else value / 2 or 0.5 if isinstance(value, float) else "other"


def changed(key: str) -> Settings:
    section, name = key.split(".")
    settings = load(ROOT / "configs" / "default.toml")
    group = getattr(settings, section)
    now = other(key, getattr(group, name))
    now = tuple(now) if isinstance(now, list) else now
    return dataclasses.replace(settings, **{section: dataclasses.replace(group, **{name: now})})


KEYS = [
    f"{section}.{field.name}"
    for section, kind in SECTIONS.items()
    if section not in ("kubeflow", "home")
    for field in dataclasses.fields(kind)
    if f"{section}.{field.name}" != "data.source"  # a folder, of which the nodes get the path and the hashes
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> IdxFiles:
    return idx.locate(write_data_set(tmp_path_factory.mktemp("data"), train=20, test=10))


def parameters(settings: Settings, files: IdxFiles, home: Home) -> dict[str, str]:
    """What TFX hashes of each node, besides inputs: parameters and executor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TFX's use of protobuf
        ir = compiled(create_pipeline(settings, files, home), "run")
    executors = json.loads(_json(ir.deployment_config))["executorSpecs"]
    return {
        node.pipeline_node.node_info.id: _json(node.pipeline_node.parameters)
        + json.dumps(executors.get(node.pipeline_node.node_info.id))
        for node in ir.nodes
    }


def _json(message: Any) -> str:
    from google.protobuf import json_format
    from tfx.proto.orchestration import executable_spec_pb2  # noqa: F401  # the types in the deployment config

    return json_format.MessageToJson(message)


def test_each_setting_is_in_the_keys_of_exactly_the_nodes_whose_parameters_it_changes(
    files: IdxFiles, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    default = load(ROOT / "configs" / "default.toml")
    base, base_keys = parameters(default, files, home), node_keys(default, home, files.hashes())
    assert list(base) == list(USED)
    wrong = {}
    for key in KEYS:
        settings = changed(key)
        now, keys = parameters(settings, files, home), node_keys(settings, home, files.hashes())
        rerun = {node for node in USED if base[node] != now[node]}
        explained = {node for node in USED if base_keys[node] != keys[node]}
        if rerun != explained:
            wrong[key] = (rerun, explained)
    assert wrong == {}
