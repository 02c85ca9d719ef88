"""Every task of a compiled package as a process of its own, against a local run of the same settings.

The launcher is an emulation (tests/kfp_emulation.py): nothing here has run on a cluster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.conftest import ROOT, Done, Pipeline, quick
from tests.kfp_emulation import Cluster, TaskFailed, TaskRun
from tests.synthetic import write_data_set

CLAIM = "digits-claim"
STEPS = 130  # of the second run: another model, so that there is something to compare
AGAIN = ("Trainer", "Baseline", "Evaluator", "Pusher")


def weights_sha256(version: Path) -> str:
    """Over the values of a SavedModel's variables in name order."""
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    names = [name for name in sorted(reader.get_variable_to_shape_map()) if name.endswith("VARIABLE_VALUE")]
    assert names
    digest = hashlib.sha256()
    for name in names:
        digest.update(reader.get_tensor(name).tobytes())
    return digest.hexdigest()


def pushed(base: Path) -> list[Path]:
    """Version folders, the oldest first."""
    return sorted((p for p in base.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name)) if base.is_dir() else []


def told(runs: Mapping[str, TaskRun], key: str) -> Any:
    values = [run.told[key] for run in runs.values() if run.told.get(key) not in (None, {}, [])]
    if key == "metrics":
        return {name: round(value, 6) for metrics in values for name, value in metrics.items()}
    return values[-1] if values else None


def verdict(cluster: Cluster, runs: Mapping[str, TaskRun]) -> dict[str, Any]:
    folder = cluster.content(runs["Evaluator"].outputs["evaluation"])
    content: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return content


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kubeflow")


@pytest.fixture(scope="module")
def cluster(pipeline: Pipeline, root: Path) -> Cluster:
    package = root / "pipeline.yaml"
    volume = root / "volume"  # where tasks see the claim; empty for those that do not mount it
    done = pipeline(
        *("compile", "--config", ROOT / "configs" / "quick.toml", "--output", package, "--home", root / "compiler"),
        *("--set", f"kubeflow.volume_path={volume}", "--set", f"kubeflow.volume_claim={CLAIM}"),
        *("--set", f"data.source={volume}/digits"),
    )
    assert done.code == 0, done.stderr
    cluster = Cluster(root / "cluster", package)
    write_data_set(cluster.claim(CLAIM) / "digits")
    return cluster


@pytest.fixture(scope="module")
def first(cluster: Cluster) -> dict[str, TaskRun]:
    return cluster.run()


@pytest.fixture(scope="module")
def local(pipeline: Pipeline, cluster: Cluster, root: Path) -> Done:
    done = pipeline(*quick(cluster.claim(CLAIM) / "digits", root / "home"))
    assert done.code == 0, done.stderr
    return done


def test_a_run_of_all_tasks_equals_a_local_run(
    cluster: Cluster, first: dict[str, TaskRun], local: Done, root: Path
) -> None:
    assert set(first) == set(local.states)
    assert told(first, "metrics") == local.json["metrics"]
    assert told(first, "blessed") is local.json["blessed"] is True
    (version,) = pushed(cluster.claim(CLAIM) / "serving_model" / "mnist")
    assert version.name == Path(told(first, "pushed_destination")).name
    (at_home,) = pushed(root / "home" / "serving_model" / "mnist")
    assert weights_sha256(version) == weights_sha256(at_home)


def test_the_second_run_is_compared_with_the_first(
    pipeline: Pipeline, cluster: Cluster, first: dict[str, TaskRun], local: Done, root: Path
) -> None:
    assert all(check["baseline"] is None for check in verdict(cluster, first)["checks"])
    second = cluster.run({"train_steps": STEPS}, {node: run for node, run in first.items() if node not in AGAIN})
    again = pipeline(*quick(cluster.claim(CLAIM) / "digits", root / "home", "--set", f"train.steps={STEPS}"))
    assert again.code == 0, again.stderr

    assert told(second, "metrics") == again.json["metrics"] != told(first, "metrics")
    evaluated = sorted((root / "home" / "artifacts" / "Evaluator" / "evaluation").iterdir(), key=lambda p: int(p.name))
    at_home = json.loads((evaluated[-1] / "verdict.json").read_text())
    assert any(check["baseline"] is not None for check in at_home["checks"])
    assert verdict(cluster, second) == at_home
    assert len(pushed(cluster.claim(CLAIM) / "serving_model" / "mnist")) == 2


def test_a_model_that_is_not_good_enough_fails_the_run_and_pushes_nothing(
    cluster: Cluster, first: dict[str, TaskRun]
) -> None:
    before = pushed(cluster.claim(CLAIM) / "serving_model" / "mnist")
    done = {node: run for node, run in first.items() if node not in ("Trainer", "Evaluator", "Pusher")}
    with pytest.raises(TaskFailed) as failure:
        cluster.run({"train_steps": 1, "gate_min_accuracy": 0.99}, done)
    assert (failure.value.node, failure.value.run.code) == ("Pusher", 3)
    assert "not blessed, nothing pushed" in failure.value.run.told["error"]
    assert pushed(cluster.claim(CLAIM) / "serving_model" / "mnist") == before


def test_what_is_wrong_with_the_data_is_said_in_words(cluster: Cluster) -> None:
    with pytest.raises(TaskFailed) as failure:
        cluster.run({"data_source": "/nowhere"})
    assert (failure.value.node, failure.value.run.code) == ("ExampleGen", 5)
    assert "/nowhere: no such folder" in failure.value.run.told["error"]
