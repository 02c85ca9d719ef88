"""The SavedModel, exported with a real Transform graph and loaded in a fresh process."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from components.common import contract
from components.common.settings import DataSettings
from components.example_gen import to_examples
from components.schema import curated_schema
from components.training import export
from components.training.model import MLP
from components.transform import preprocessing_fn
from pipeline.beam import BeamSettings, pipeline_args
from tests.support.synthetic import digits

SETTINGS = DataSettings()

LOAD_AND_PREDICT = """
import sys, numpy as np, tensorflow as tf
folder, inputs, outputs = sys.argv[1:]
given = np.load(inputs, allow_pickle=True)
loaded = tf.saved_model.load(folder)
outputs_by_name = {}
arguments = {"serving_default": "images", "serving_encoded": "encoded_images", "serving_examples": "inputs"}
for name, argument in arguments.items():
    values = given[argument]
    tensor = tf.constant(values.tolist() if values.dtype == object else values)
    for key, value in loaded.signatures[name](**{argument: tensor}).items():
        outputs_by_name[f"{name}/{key}"] = value.numpy()
np.savez(outputs, **outputs_by_name)
print("components" in sys.modules)
"""


@pytest.fixture(scope="module")
def transform_output(tmp_path_factory: pytest.TempPathFactory) -> tft.TFTransformOutput:
    folder = str(tmp_path_factory.mktemp("transform"))
    metadata = dataset_metadata.DatasetMetadata(curated_schema(SETTINGS))
    row = {"image": [bytes(784)], "label": [0], "mean_intensity": [0.0], "ink_fraction": [0.0]}
    options = PipelineOptions(pipeline_args(BeamSettings()))
    with beam.Pipeline(options=options) as pipeline, tft_beam.Context(temp_dir=f"{folder}-temporary"):
        examples = pipeline | beam.Create([row])
        analyze = tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, {"pixels": SETTINGS.pixels}))
        _ = (examples, metadata) | analyze | tft_beam.WriteTransformFn(folder)
    metadata_io.write_metadata(metadata, f"{folder}/{tft.TFTransformOutput.RAW_METADATA_DIR}")  # as TFX does
    return tft.TFTransformOutput(folder)


@pytest.fixture(scope="module")
def saved_model(transform_output: tft.TFTransformOutput, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "1"
    export.save(MLP((784, 16, 10), seed=0), transform_output, (28, 28), str(folder))
    return folder


@pytest.fixture(scope="module")
def loaded(saved_model: Path) -> Any:
    return tf.saved_model.load(str(saved_model))


def png(image: np.ndarray, kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    Image.fromarray(image).save(target, kind)
    return target.getvalue()


def test_three_signatures_agree_in_a_fresh_process_without_our_code(saved_model: Path, tmp_path: Path) -> None:
    images, labels = digits(200, seed=5)
    np.savez(
        tmp_path / "in.npz",
        images=images,
        encoded_images=np.array([png(image) for image in images], object),
        inputs=np.array(list(to_examples(images, labels)), object),
    )
    command = [sys.executable, "-c", LOAD_AND_PREDICT, saved_model, tmp_path / "in.npz", tmp_path / "out.npz"]
    done = subprocess.run([str(part) for part in command], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert done.stdout.strip() == b"False"
    out = np.load(tmp_path / "out.npz", allow_pickle=True)
    probabilities = out["serving_default/probabilities"]
    assert probabilities.dtype == np.float32 and probabilities.shape == (200, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(out["serving_encoded/probabilities"], probabilities, atol=1e-6)
    np.testing.assert_allclose(out["serving_examples/scores"], probabilities, atol=1e-6)
    classes = probabilities.argmax(axis=1)
    np.testing.assert_array_equal(out["serving_default/classes"], classes)
    assert out["serving_default/classes"].dtype == np.int64
    np.testing.assert_array_equal(out["serving_encoded/classes"], classes)
    assert out["serving_examples/classes"].tolist() == [[str(digit).encode() for digit in range(10)]] * 200


def test_the_graph_is_the_model_applied_to_scaled_pixels(loaded: Any) -> None:
    images, _ = digits(20, seed=6)
    expected = tf.nn.softmax(MLP((784, 16, 10), seed=0)(images.reshape(20, 784).astype(np.float32) / 255))
    outputs = loaded.signatures["serving_default"](images=tf.constant(images))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-6)


def test_signatures_match_the_contract_and_nothing_is_keras(saved_model: Path, loaded: Any) -> None:
    inputs = {
        name: {key: (spec.dtype, spec.shape.as_list()) for key, spec in signature.structured_input_signature[1].items()}
        for name, signature in loaded.signatures.items()
    }
    assert inputs == {
        contract.SERVING_DEFAULT: {contract.IMAGES: (tf.uint8, [None, 28, 28])},
        contract.SERVING_ENCODED: {contract.ENCODED_IMAGES: (tf.string, [None])},
        contract.SERVING_EXAMPLES: {contract.EXAMPLES: (tf.string, [None])},
    }
    assert not (saved_model / "keras_metadata.pb").exists()
    assert b"tf_keras" not in (saved_model / "saved_model.pb").read_bytes()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_batch_size_is_served(loaded: Any, count: int) -> None:
    images, _ = digits(5, seed=7)
    outputs = loaded.signatures["serving_default"](images=tf.constant(images[:count]))
    assert outputs["probabilities"].shape == (count, 10)


def test_encoded_images_of_any_size_and_kind_are_served(loaded: Any) -> None:
    image = digits(1, seed=8)[0][0]
    large = np.kron(image, np.ones((10, 10), np.uint8))  # every pixel ten times in each direction
    colour = np.stack([image] * 3, axis=-1)
    encoded = [png(image), png(large), png(colour), png(image, "JPEG")]
    outputs = loaded.signatures["serving_encoded"](encoded_images=tf.constant(encoded))
    probabilities = outputs["probabilities"].numpy()
    np.testing.assert_allclose(probabilities[2], probabilities[0], atol=1e-5)
    np.testing.assert_allclose(probabilities, np.broadcast_to(probabilities[0], (4, 10)), atol=0.05)
