"""What a task makes of KFP's input, and how it finds its baseline; on TFX, without a launcher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.common import contract
from components.common.errors import UsageError
from components.pushed_baseline import copy_baseline, takes_of
from components.validation.model_signature import Takes, unfit
from components.versions import manifest
from pipeline import settings
from pipeline.kubeflow import compile as kubeflow_compile
from pipeline.kubeflow.entrypoint import read_task
from tests.conftest import ROOT

TAKES = Takes(28, 28, 10)
MODEL = {"artifactType": {"instanceSchema": "title: tfx.Model\ntype: object\n"}}
COMPONENT = {
    "inputDefinitions": {
        "artifacts": {"model": MODEL, "baseline_model": MODEL},
        "parameters": {"eval_config": {"parameterType": "STRING"}, "train_steps": {"parameterType": "NUMBER_INTEGER"}},
    },
    "outputDefinitions": {"artifacts": {"evaluation": MODEL}},
}


def artifact(uri: Path | str, **more: Any) -> dict[str, Any]:
    return {"artifacts": [{"name": "same", "uri": str(uri), "type": {"instanceSchema": ""}, "futureField": 1, **more}]}


def executor_input(tmp_path: Path) -> str:
    logs = {"artifacts": [{"uri": "minio://b/logs", "type": {"schemaTitle": "system.Artifact"}}]}
    return json.dumps({
        "inputs": {
            "parameterValues": {"eval_config": "{}", "train_steps": 500.0},
            "artifacts": {"model": artifact("minio://b/model"), "baseline_model": artifact(tmp_path)},
        },
        "outputs": {
            "artifacts": {"evaluation": artifact("s3://b/evaluation"), "executor-logs": logs},
            "outputFile": "/tmp/out.json",
        },
        "futureField": {"x": 1},
    })  # fmt: skip


def test_a_task_relies_on_the_compiled_component_only(tmp_path: Path) -> None:
    task = read_task(json.dumps(COMPONENT), executor_input(tmp_path))
    assert set(task.given.inputs.artifacts) == {"model", "baseline_model"}
    assert set(task.given.outputs.artifacts) == {"evaluation"}
    found = task.given.inputs.artifacts["model"].artifacts[0]
    assert found.uri == "/minio/b/model"
    assert "tfx.Model" in found.type.instance_schema
    assert task.given.inputs.artifacts["baseline_model"].artifacts[0].uri == str(tmp_path)
    assert task.addresses == {"/minio/b/model": "minio://b/model", "/s3/b/evaluation": "s3://b/evaluation"}
    assert task.parameters == {"train.steps": 500.0}
    assert set(task.given.inputs.parameter_values) == {"eval_config"}
    assert len({a.name for k in ("model", "baseline_model") for a in task.given.inputs.artifacts[k].artifacts}) == 2


def test_an_absent_input_is_left_out(tmp_path: Path) -> None:
    (tmp_path / contract.ABSENT_FILE).write_text("none")
    task = read_task(json.dumps(COMPONENT), executor_input(tmp_path))
    assert set(task.given.inputs.artifacts) == {"model"}


def test_resources_of_a_node_that_is_not_there_are_refused() -> None:
    chosen = settings.load(ROOT / "configs" / "quick.toml", ['kubeflow.resources=["Trainr=1,1Gi"]'])
    with pytest.raises(UsageError, match="'Trainr', which is no node"):
        kubeflow_compile.compiled(chosen)


def save(folder: Path, seed: int, takes: Takes = TAKES) -> Path:
    """A SavedModel with the signature of ours and weights from `seed`."""
    module = tf.Module()
    pixels = takes.image_height * takes.image_width
    module.weights = tf.Variable(np.random.default_rng(seed).normal(size=(pixels, takes.classes)), dtype=tf.float32)

    @tf.function(
        input_signature=[tf.TensorSpec((None, takes.image_height, takes.image_width), tf.uint8, contract.IMAGES)]
    )
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.reshape(tf.cast(images, tf.float32), [-1, pixels]) @ module.weights
        return {contract.PROBABILITIES: tf.nn.softmax(logits), contract.CLASSES: tf.argmax(logits, axis=1)}

    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={contract.SERVING_DEFAULT: serve})
    return folder


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("candidate") / "Format-Serving", seed=0)


def test_the_signature_tells_what_a_version_takes(tmp_path: Path, candidate: Path) -> None:
    assert takes_of(candidate) == TAKES
    assert takes_of(tmp_path) is None


def test_the_newest_blessed_version_that_fits_is_the_baseline(tmp_path: Path, candidate: Path) -> None:
    versions = tmp_path / "mnist"
    save(versions / "9", seed=1)
    save(versions / "10", seed=2)  # newer than 9: by number, not by name
    save(versions / "11", seed=3, takes=Takes(16, 16, 10))
    save(versions / "12", seed=0)  # the candidate itself
    save(versions / "13", seed=4)
    (versions / "13" / manifest.FILE_NAME).write_text('{"blessed": false}')
    save(versions / "14", seed=5)
    (versions / "14" / manifest.FILE_NAME).write_text("{half")
    save(versions / "15", seed=6)
    (versions / "15" / "saved_model.pb").write_bytes(b"\xff" * 100)
    save(versions / ".pushing-16", seed=7)

    found = copy_baseline(versions, TAKES, candidate, tmp_path / "model")
    assert found == versions / "10"
    assert unfit(tmp_path / "model", TAKES) is None
    copied, original = (
        tf.saved_model.load(str(p)).weights.numpy() for p in (tmp_path / "model" / "Format-Serving", versions / "10")
    )
    assert np.array_equal(copied, original)

    (versions / "13" / manifest.FILE_NAME).write_text('{"blessed": true}')
    assert copy_baseline(versions, TAKES, candidate, tmp_path / "second") == versions / "13"


@pytest.mark.parametrize("exists", [False, True])
def test_without_a_version_the_artifact_says_so(tmp_path: Path, candidate: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "mnist").mkdir()
    assert copy_baseline(tmp_path / "mnist", TAKES, candidate, tmp_path / "model") is None
    assert [p.name for p in (tmp_path / "model").iterdir()] == [contract.ABSENT_FILE]
