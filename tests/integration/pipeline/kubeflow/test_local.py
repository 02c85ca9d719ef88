"""The first nodes under kfp.local: KFP's own emulation, written by others than ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml
from kfp import components, local
from kfp.local.subprocess_task_handler import SubprocessTaskHandler

from pipeline import settings
from pipeline.kubeflow.compile import compiled
from tests.conftest import ROOT
from tests.support.synthetic import write_data_set

NODES = ("ExampleGen", "Schema", "StatisticsGen")


def test_the_first_three_nodes_run_under_kfp_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data_set(tmp_path / "digits", train=300, test=60)
    chosen = settings.load(ROOT / "configs" / "quick.toml", [f"data.source={data}", "kubeflow.image=python:local"])
    spec, _ = yaml.safe_load_all(compiled(chosen))
    tasks = spec["root"]["dag"]["tasks"]
    spec["root"]["dag"]["tasks"] = {node: tasks[node] for node in NODES}
    pipeline = components.load_component_from_text(yaml.safe_dump(spec))

    # Without a container engine it runs Python functions only. Ours is a container's command; it runs as a process.
    monkeypatch.setattr(SubprocessTaskHandler, "validate_not_container_component", lambda *_: None)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    pipeline()  # raises if a task fails

    assert len(list((tmp_path / "root").rglob("Split-*/data_tfrecord-*"))) == 3
    assert len(list((tmp_path / "root").rglob("Split-*/FeatureStats.pb"))) == 3
    assert len(list((tmp_path / "root").rglob("schema.pbtxt"))) == 1
