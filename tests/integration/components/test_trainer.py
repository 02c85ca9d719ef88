"""run_fn on real TFRecords and a real Transform graph, as TFX calls it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from components import trainer
from components.common import contract
from components.common.errors import UserError
from components.common.settings import DataSettings
from components.common.source_key import source_sha256
from components.example_gen import to_examples
from components.schema import curated_schema
from components.training.input_pipeline import pixel_scale
from components.transform import preprocessing_fn
from components.versions.weights import weights_sha256
from pipeline.beam import BeamSettings, pipeline_args
from tests.conftest import ROOT
from tests.support.synthetic import digits
from tests.support.training import small_settings

SIZE = 12
DATA = DataSettings(image_height=SIZE, image_width=SIZE)
IMAGES, LABELS = digits(400, seed=0, size=SIZE)


def transform_graph(folder: Path, images: np.ndarray, scaling: str) -> tft.TFTransformOutput:
    metadata = dataset_metadata.DatasetMetadata(curated_schema(DATA))
    rows = [
        {"image": [image.tobytes()], "label": [0], "mean_intensity": [0.0], "ink_fraction": [0.0]} for image in images
    ]
    config = {"pixels": DATA.pixels, "scaling": scaling}
    options = PipelineOptions(pipeline_args(BeamSettings()))
    with beam.Pipeline(options=options) as pipeline, tft_beam.Context(temp_dir=f"{folder}-temporary"):
        analyze = tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, config))
        _ = (pipeline | beam.Create(rows), metadata) | analyze | tft_beam.WriteTransformFn(str(folder))
    metadata_io.write_metadata(metadata, str(folder / tft.TFTransformOutput.RAW_METADATA_DIR))  # as TFX does
    return tft.TFTransformOutput(str(folder))


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transform") / "graph"
    transform_graph(folder, IMAGES, "standard")
    return folder


def fn_args(folder: Path, transform: Path, **settings: object) -> SimpleNamespace:
    """The arguments of TFX's Trainer, with train and eval files of the synthetic digits."""
    for name, part in (("train", slice(0, 300)), ("eval", slice(300, 400))):
        with tf.io.TFRecordWriter(str(folder / f"{name}.gz"), "GZIP") as writer:
            for record in to_examples(IMAGES[part], LABELS[part]):
                writer.write(record)
    model = folder / "Trainer" / "model" / "7"
    model.mkdir(parents=True)
    return SimpleNamespace(
        train_files=[str(folder / "train.gz")],
        eval_files=[str(folder / "eval.gz")],
        transform_output=str(transform),
        serving_model_dir=str(model / "Format-Serving"),
        model_run_dir=str(folder / "Trainer" / "model_run" / "7"),
        custom_config=json.loads(json.dumps({"train": asdict(small_settings(**settings)), "data": asdict(DATA)})),
    )


@pytest.fixture(scope="module")
def trained(standard: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    arguments = fn_args(tmp_path_factory.mktemp("trained"), standard)
    trainer.run_fn(arguments)
    return arguments


def history(arguments: SimpleNamespace) -> dict[str, object]:
    content: dict[str, object] = json.loads(Path(arguments.model_run_dir, contract.HISTORY_FILE).read_text())
    return content


def test_the_graph_standardises_the_train_split(standard: Path) -> None:
    scale = pixel_scale(tft.TFTransformOutput(str(standard)), DATA.pixels)
    pixels = IMAGES.reshape(len(IMAGES), -1) * scale.scale + scale.offset
    assert pixels.mean() == pytest.approx(0, abs=1e-4) and pixels.std() == pytest.approx(1, abs=1e-4)


def test_the_order_of_beams_additions_does_not_matter(standard: Path, tmp_path: Path) -> None:
    scale = pixel_scale(tft.TFTransformOutput(str(standard)), DATA.pixels)
    order = np.random.default_rng(0).permutation(len(IMAGES))
    other = pixel_scale(transform_graph(tmp_path / "graph", IMAGES[order], "standard"), DATA.pixels)
    np.testing.assert_array_equal(other.scale, scale.scale)
    np.testing.assert_array_equal(other.offset, scale.offset)


def test_data_without_variance_is_not_divided_by_zero(tmp_path: Path) -> None:
    black = np.zeros((2, SIZE, SIZE), np.uint8)
    scale = pixel_scale(transform_graph(tmp_path / "graph", black, "standard"), DATA.pixels)
    np.testing.assert_allclose(scale.offset, 0, atol=1e-6)
    np.testing.assert_allclose(scale.scale * 255, 1, atol=1e-6)


def test_history_and_export_agree(trained: SimpleNamespace) -> None:
    found = history(trained)
    exported = tf.saved_model.load(trained.serving_model_dir).signatures["serving_default"]
    classes = exported(images=tf.constant(IMAGES))["classes"].numpy()
    assert found["eval_accuracy"] == pytest.approx(np.mean(classes[300:] == LABELS[300:]), abs=1e-6)
    assert found["train_accuracy"] == pytest.approx(np.mean(classes[:300] == LABELS[:300]), abs=1e-6)
    assert (found["exported_step"], found["resumed_at_step"]) == (151, 0)
    assert set(found["seconds"]) == {"read", "transform_graph", "loop", "evaluate_train_split", "export"}  # type: ignore[call-overload]
    beside_the_model = Path(trained.serving_model_dir).parent / contract.HISTORY_FILE
    assert json.loads(beside_the_model.read_text()) == found


def test_the_hash_is_of_the_exported_variables(trained: SimpleNamespace) -> None:
    stored = tf.train.load_checkpoint(f"{trained.serving_model_dir}/variables/variables")
    prefix, suffix = "model/", "/.ATTRIBUTES/VARIABLE_VALUE"
    keys = [key for key in stored.get_variable_to_shape_map() if key.startswith(prefix) and key.endswith(suffix)]
    arrays = {key.removeprefix(prefix).removesuffix(suffix): stored.get_tensor(key) for key in keys}
    assert weights_sha256(arrays) == history(trained)["weights_sha256"]


def test_tensorboard_finds_the_curves(trained: SimpleNamespace) -> None:
    (events,) = Path(trained.model_run_dir).glob("events.out.tfevents.*")
    found: dict[str, list[int]] = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(event.step)
            assert value.metadata.plugin_data.plugin_name == "scalars"
    assert found["loss"] == found["learning_rate"] == found["steps_per_second"] == [151]
    assert found["eval_accuracy"] == found["eval_loss"] == [151]


def test_streamed_training_learns_as_well_and_no_checkpoint_stays(standard: Path, tmp_path: Path) -> None:
    arguments = fn_args(tmp_path, standard, resident_max_mb=0, checkpoint_every_steps=40)
    trainer.run_fn(arguments)
    assert float(str(history(arguments)["eval_accuracy"])) > 0.9
    assert not list((tmp_path / "Trainer" / "checkpoints").iterdir())


def test_nothing_is_exported_when_training_diverges(standard: Path, tmp_path: Path) -> None:
    arguments = fn_args(tmp_path, standard, optimizer="sgd", learning_rate=1e38, schedule="constant", warmup_steps=0)
    with pytest.raises(UserError, match="Training diverged"):
        trainer.run_fn(arguments)
    assert not Path(arguments.serving_model_dir).exists()


class PixelGraph:
    """The part of TFTransformOutput that pixel_scale uses, for any function of the raw pixels."""

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
        self.function = function

    def raw_feature_spec(self) -> dict[str, tf.io.FixedLenFeature]:
        return {contract.IMAGE: tf.io.FixedLenFeature([1], tf.string)}

    def transform_features_layer(self) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
        def layer(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {contract.PIXELS: self.function(features[contract.IMAGE])}

        return layer


@pytest.mark.parametrize(("scaling", "low"), [("unit", 0), ("symmetric", -1)])
def test_scalings_without_an_analyzer(scaling: str, low: float) -> None:
    def pixels(images: tf.Tensor) -> tf.Tensor:
        inputs = {contract.IMAGE: images, contract.LABEL: tf.zeros([len(images), 1], tf.int64)}
        return preprocessing_fn(inputs, {"pixels": 4, "scaling": scaling})[contract.PIXELS]

    scale = pixel_scale(PixelGraph(pixels), 4)  # type: ignore[arg-type]
    np.testing.assert_allclose(scale.offset, low, atol=1e-6)
    np.testing.assert_allclose(scale.scale * 255 + scale.offset, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (tf.square, "not one scale and one offset"),
        (lambda raw: tf.reverse(raw, [1]), "not one scale and one offset"),
        (lambda raw: raw / 0.0, "NaN or infinite"),
    ],
    ids=["square", "reversed", "infinite"],
)
def test_a_graph_that_is_not_linear_in_its_pixels_is_refused(
    function: Callable[[tf.Tensor], tf.Tensor], message: str
) -> None:
    def pixels(images: tf.Tensor) -> tf.Tensor:
        return function(tf.cast(tf.io.decode_raw(images[:, 0], tf.uint8), tf.float32))

    with pytest.raises(UserError, match=message):
        pixel_scale(PixelGraph(pixels), 4)  # type: ignore[arg-type]


def test_the_checkpoint_key_depends_on_all_code_of_the_loop(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "components", tmp_path / "components")
    before = source_sha256([trainer.WEIGHTS_MODULE], tmp_path)
    for name in ("training/step.py", "training/distribution.py", "training/input_pipeline.py"):
        with open(tmp_path / "components" / name, "a") as file:
            file.write("# edited\n")
        after = source_sha256([trainer.WEIGHTS_MODULE], tmp_path)
        assert after != before, name
        before = after
