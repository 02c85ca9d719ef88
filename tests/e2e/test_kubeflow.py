"""All tasks of a package under an emulation of KFP (tests/support/kfp_emulation.py), compared with a local run.

Nothing here has run on a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline import settings
from pipeline.kubeflow.compile import compiled
from tests.conftest import ROOT, Pipeline, quick
from tests.support.done import Done
from tests.support.kfp_emulation import Cluster, TaskFailed, TaskRun

CLAIM = "digits-claim"


def pushed(home: Path) -> list[Path]:
    """Return the folders of the pushed versions in a home, or on the volume in the cluster."""
    return [path for path in (home / "serving_model" / "mnist").iterdir() if path.name.isdecimal()]


def weights(version: Path) -> bytes:
    (data,) = (version / "variables").glob("variables.data-*")
    return data.read_bytes()


def reported(runs: Mapping[str, TaskRun], key: str) -> Any:
    """Return the values of a key in the tasks' reports: for metrics all of them merged, otherwise the last one."""
    values = [run.report[key] for run in runs.values() if run.report.get(key) not in (None, {}, [])]
    if key == "metrics":
        return {name: round(value, 6) for metrics in values for name, value in metrics.items()}
    return values[-1] if values else None


def checks(cluster: Cluster, runs: Mapping[str, TaskRun]) -> dict[tuple[str, str], dict[str, Any]]:
    """The Evaluator's checks, by metric and slice."""
    outputs = runs["Evaluator"].outputs.values()
    (path,) = (path for artifact in outputs for path in cluster.content(artifact).rglob("verdict.json"))
    return {(check["metric"], check["slice"]): check for check in json.loads(path.read_text())["checks"]}


@dataclass(frozen=True)
class Runs:
    """A complete run in the cluster and one with the same settings in a local home; and a run that trains one step."""

    cluster: Cluster
    home: Path
    complete: dict[str, TaskRun]
    local: Done
    one_step: TaskFailed


@pytest.fixture(scope="module")
def runs(pipeline: Pipeline, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    root = tmp_path_factory.mktemp("kubeflow")
    package, home, volume = root / "pipeline.yaml", root / "home", root / "volume"
    overrides = [f"kubeflow.volume_path={volume}", f"kubeflow.volume_claim={CLAIM}", "serving.backend=embedded"]
    package.write_text(compiled(settings.load(ROOT / "configs" / "quick.toml", overrides)))
    with Cluster(root / "cluster", package) as cluster, ThreadPoolExecutor() as pool:
        (cluster.claim(CLAIM) / "digits").symlink_to(data)
        source = {"data_source": f"{volume}/digits"}
        local = pool.submit(pipeline, *quick(data, home))
        complete = cluster.run(source)
        # One step is not enough to be blessed. What does not depend on the training is reused, as from KFP's cache.
        reused = complete.keys() - (cluster.downstream("Trainer") - {"InfraValidator"})
        with pytest.raises(TaskFailed) as failure:
            cluster.run(
                source | {"train_steps": 1, "gate_min_accuracy": 0.99}, {node: complete[node] for node in reused}
            )
        yield Runs(cluster, home, complete, local.result(), failure.value)


def test_a_complete_run_equals_a_local_run(runs: Runs) -> None:
    assert runs.local.code == 0, runs.local.stderr
    assert set(runs.complete) == set(runs.local.states)
    assert reported(runs.complete, "metrics") == runs.local.json["metrics"]
    assert reported(runs.complete, "blessed") is runs.local.json["blessed"] is True
    assert all(check["baseline"] is None for check in checks(runs.cluster, runs.complete).values())
    (version,), (local_version,) = pushed(runs.cluster.claim(CLAIM)), pushed(runs.home)
    assert version.name == Path(reported(runs.complete, "pushed_destination")).name
    assert weights(version) == weights(local_version)
    accepted = [[p.name for p in (home / "statistics").iterdir()] for home in (runs.cluster.claim(CLAIM), runs.home)]
    assert accepted[0] == accepted[1]  # both remember the data, for the next run
    assert len(accepted[0]) == 1


def test_a_run_with_other_parameters_is_compared_with_the_pushed_version_and_fails(runs: Runs) -> None:
    failed = runs.one_step
    assert (failed.node, failed.runs["Pusher"].code) == ("Pusher", 3)
    assert "not blessed, nothing pushed" in failed.runs["Pusher"].report["error"]
    assert len(pushed(runs.cluster.claim(CLAIM))) == 1
    before, after = (checks(runs.cluster, r) for r in (runs.complete, failed.runs))
    accuracy = after["accuracy", "overall"]
    assert (accuracy["bound"], accuracy["passed"]) == (0.99, False)
    assert accuracy["baseline"] == before["accuracy", "overall"]["value"]
