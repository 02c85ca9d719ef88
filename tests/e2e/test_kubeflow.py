"""Every task of a compiled package as a process of its own, against a local run of the same settings.

The launcher is an emulation (tests/support/kfp_emulation.py): nothing here has run on a cluster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.conftest import ROOT, Done, Pipeline, quick
from tests.support.kfp_emulation import Cluster, TaskFailed, TaskRun
from tests.support.synthetic import write_data_set

CLAIM = "digits-claim"
STEPS = 130  # of the second run: another model, so that there is something to compare


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
    outputs = runs["Evaluator"].outputs.values()
    (path,) = (path for artifact in outputs for path in cluster.content(artifact).rglob("verdict.json"))
    content: dict[str, Any] = json.loads(path.read_text())
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


@dataclass(frozen=True)
class Runs:
    """What the tests look at. All runs are made at once, two at a time, as most of a task is imports."""

    first: dict[str, TaskRun]
    second: dict[str, TaskRun]
    unfit: TaskFailed
    lost: TaskFailed
    local_first: Done
    local_second: Done


@pytest.fixture(scope="module")
def runs(pipeline: Pipeline, cluster: Cluster, root: Path) -> Runs:
    def at_once(*calls: Callable[[], Any]) -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            return [future.result() for future in [pool.submit(call) for call in calls]]

    def local(*more: str) -> Done:
        done = pipeline(*quick(cluster.claim(CLAIM) / "digits", root / "home", *more))
        assert done.code == 0, done.stderr
        return done

    def failing(*arguments: Any) -> TaskFailed:
        with pytest.raises(TaskFailed) as failure:
            cluster.run(*arguments)
        return failure.value

    def before(node: str, *more: str) -> dict[str, TaskRun]:
        anew = cluster.downstream(node)
        return {name: run for name, run in first.items() if name in more or name not in anew}

    first, local_first = at_once(cluster.run, local)
    second, local_second, unfit, lost = at_once(
        lambda: cluster.run({"train_steps": STEPS}, before("Trainer")),
        lambda: local("--set", f"train.steps={STEPS}"),
        lambda: failing({"train_steps": 1, "gate_min_accuracy": 0.99}, before("Trainer", "Baseline")),
        lambda: failing({"data_source": "/nowhere"}),
    )
    return Runs(first, second, unfit, lost, local_first, local_second)


def test_a_run_of_all_tasks_equals_a_local_run(cluster: Cluster, runs: Runs, root: Path) -> None:
    assert set(runs.first) == set(runs.local_first.states)
    assert told(runs.first, "metrics") == runs.local_first.json["metrics"]
    assert told(runs.first, "blessed") is runs.local_first.json["blessed"] is True
    version = pushed(cluster.claim(CLAIM) / "serving_model" / "mnist")[0]
    assert version.name == Path(told(runs.first, "pushed_destination")).name
    at_home = pushed(root / "home" / "serving_model" / "mnist")[0]
    assert weights_sha256(version) == weights_sha256(at_home)


def test_the_second_run_is_compared_with_the_first(cluster: Cluster, runs: Runs, root: Path) -> None:
    assert all(check["baseline"] is None for check in verdict(cluster, runs.first)["checks"])
    assert told(runs.second, "metrics") == runs.local_second.json["metrics"] != told(runs.first, "metrics")
    verdicts = (root / "home" / "artifacts" / "Evaluator").glob("*/*/verdict.json")
    at_home = json.loads(max(verdicts, key=lambda path: int(path.parent.name)).read_text())
    assert any(check["baseline"] is not None for check in at_home["checks"])
    assert verdict(cluster, runs.second) == at_home
    weights = [weights_sha256(version) for version in pushed(cluster.claim(CLAIM) / "serving_model" / "mnist")]
    assert weights == [weights_sha256(version) for version in pushed(root / "home" / "serving_model" / "mnist")]


def test_a_model_that_is_not_good_enough_fails_the_run_and_pushes_nothing(cluster: Cluster, runs: Runs) -> None:
    assert (runs.unfit.node, runs.unfit.run.code) == ("Pusher", 3)
    assert "not blessed, nothing pushed" in runs.unfit.run.told["error"]
    assert len(pushed(cluster.claim(CLAIM) / "serving_model" / "mnist")) == 2  # of the two good runs


def test_what_is_wrong_with_the_data_is_said_in_words(runs: Runs) -> None:
    assert (runs.lost.node, runs.lost.run.code) == ("ExampleGen", 5)
    assert "/nowhere: no such folder" in runs.lost.run.told["error"]
