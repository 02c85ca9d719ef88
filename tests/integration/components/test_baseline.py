"""Which pushed version becomes the baseline of a candidate; with real SavedModels and a real MLMD store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import baseline
from components.common import contract
from components.validation import model_signature
from components.validation.model_signature import ModelSignature
from components.versions import manifest
from tests.support.pushed import folder, push


def save(target: Path, seed: int, size: int = 4) -> Path:
    """A SavedModel with the product's signature for images of `size` by `size` pixels and weights from `seed`."""
    module = tf.Module()
    weights = np.random.default_rng(seed).normal(size=(size * size, 10))
    module.weights = tf.Variable(weights, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, size, size), tf.uint8, contract.IMAGES)])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.reshape(tf.cast(images, tf.float32), [-1, size * size]) @ module.weights
        return {contract.PROBABILITIES: tf.nn.softmax(logits), contract.CLASSES: tf.argmax(logits, axis=1)}

    tf.saved_model.save(module, str(target), signatures={contract.SERVING_DEFAULT: serve})
    return target


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`candidate` is a Model artifact, the others are SavedModels."""
    root = tmp_path_factory.mktemp("models")
    save(Path(path_utils.serving_model_dir(str(root / "candidate"))), seed=0)
    return {"candidate": root / "candidate", "other": save(root / "other", 1), "larger": save(root / "larger", 2, 5)}


@pytest.fixture
def candidate(models: dict[str, Path]) -> Path:
    return Path(path_utils.serving_model_path(str(models["candidate"])))


def test_the_signature_has_the_image_size_and_the_classes(candidate: Path, tmp_path: Path) -> None:
    assert model_signature.read(candidate) == ModelSignature(4, 4, 10)
    assert model_signature.read(tmp_path) is None


def test_the_baseline_is_the_newest_blessed_version_of_the_same_shape(
    models: dict[str, Path], candidate: Path, tmp_path: Path
) -> None:
    push(tmp_path, 9, models["other"])
    push(tmp_path, 10, models["other"])  # newer than 9: by number, not by name
    push(tmp_path, 11, models["larger"])
    push(tmp_path, 12, candidate)  # a model is never its own baseline
    push(tmp_path, 13, models["other"], blessed=False)
    push(tmp_path, 14, models["other"], infra_blessed=False)
    push(tmp_path, 15, models["other"])
    (folder(tmp_path, 15) / manifest.FILE_NAME).write_text("{half")
    push(tmp_path, 16, models["other"])
    (folder(tmp_path, 16) / "saved_model.pb").write_bytes(b"tampered")

    push(tmp_path, 17, models["other"])
    (folder(tmp_path, 17) / manifest.FILE_NAME).write_text('{"files": null}')

    versions = folder(tmp_path, 10).parent
    assert [choice.split()[0] for choice in baseline.choices(versions, candidate)] == ["10", "9"]
    assert [choice.split()[0] for choice in baseline.choices(versions, candidate, tampered=[10])] == ["9"]
    node = Node(tmp_path, models["candidate"])
    assert node.run().startswith("10 ")
    copied = Path(path_utils.serving_model_path(str(tmp_path / "output")))
    assert manifest.file_hashes(copied) == manifest.file_hashes(versions / "10")


@pytest.mark.parametrize("exists", [False, True])
def test_without_a_baseline_the_artifact_is_marked_as_absent(
    models: dict[str, Path], tmp_path: Path, exists: bool
) -> None:
    node = Node(tmp_path, models["candidate"])
    if exists:
        Path(node.versions).mkdir(parents=True)
    assert node.run() == ""
    assert [p.name for p in (tmp_path / "output").iterdir()] == [contract.ABSENT_FILE]


def test_a_version_that_vanishes_after_the_choice_is_no_baseline(models: dict[str, Path], tmp_path: Path) -> None:
    node = Node(tmp_path, models["candidate"])
    pushed = push(tmp_path, 1, models["other"])
    choice = node.choice()
    assert choice
    pushed.rename(tmp_path / "away")
    output = node.execute(choice)
    assert [p.name for p in (tmp_path / "output").iterdir()] == [contract.ABSENT_FILE]
    assert output.get_string_custom_property(baseline.CHOICE) == ""


class Node:
    """The node as the launcher runs it: driver, then executor, with a Model artifact of the candidate in MLMD."""

    def __init__(self, home: Path, uri: Path) -> None:
        self.versions = str(home / "serving_model" / "mnist")
        self.home = home
        self.connection = sqlite_metadata_connection_config(str(home / "metadata.sqlite"))
        self.candidate = standard_artifacts.Model()
        self.candidate.uri = str(uri)
        with metadata.Metadata(self.connection) as handle:
            (self.type_id,) = [handle.store.put_artifact_type(self.candidate.artifact_type)]
            self.candidate.type_id = self.type_id
            (self.candidate.id,) = handle.store.put_artifacts([self.candidate.mlmd_artifact])

    def choice(self) -> str:
        given: Any = SimpleNamespace(
            input_dict={baseline.CANDIDATE: [self.candidate]}, exec_properties={baseline.VERSIONS: self.versions}
        )
        driver = baseline.Driver(metadata.Metadata(self.connection))
        return str(driver.run(given).exec_properties[baseline.CHOICE].string_value)

    def execute(self, choice: str) -> Any:
        """Run the executor; returns its Model artifact."""
        model = standard_artifacts.Model()
        model.uri = str(self.home / "output")
        properties = {baseline.VERSIONS: self.versions, baseline.CHOICE: choice}
        baseline.Executor().Do({baseline.CANDIDATE: [self.candidate]}, {"model": [model]}, properties)
        return model

    def run(self) -> str:
        """Run driver and executor, and record its output; returns the driver's choice."""
        choice = self.choice()
        model = self.execute(choice)
        model.type_id = self.type_id
        with metadata.Metadata(self.connection) as handle:
            execution_type = handle.store.put_execution_type(mlmd.ExecutionType(name="Baseline"))
            event = mlmd.Event.INPUT, mlmd.Event.OUTPUT
            pairs = [(a.mlmd_artifact, mlmd.Event(type=e)) for a, e in zip([self.candidate, model], event, strict=True)]
            handle.store.put_execution(mlmd.Execution(type_id=execution_type), pairs, [])
        return choice


def test_the_choice_depends_on_pushed_versions_other_than_the_candidate(
    models: dict[str, Path], candidate: Path, tmp_path: Path
) -> None:
    node = Node(tmp_path, models["candidate"])
    assert node.choice() == ""
    push(tmp_path, 1, models["other"], weights_sha256="abc")
    assert node.run() == "1 abc"
    push(tmp_path, 2, candidate)
    assert node.choice() == "1 abc"
    push(tmp_path, 3, models["other"], weights_sha256="def")
    assert node.choice() == "3 def"


def test_the_choice_stays_when_the_push_of_the_candidate_deleted_its_baseline(
    models: dict[str, Path], candidate: Path, tmp_path: Path
) -> None:
    """With push.keep_versions = 1; otherwise the next run would evaluate and push the same model again."""
    node = Node(tmp_path, models["candidate"])
    first = push(tmp_path, 1, models["other"], weights_sha256="abc")
    assert node.run() == "1 abc"
    first.rename(tmp_path / "away")
    assert node.choice() == ""  # not pushed: an operator has deleted the baseline
    push(tmp_path, 2, candidate)
    assert node.choice() == "1 abc"
