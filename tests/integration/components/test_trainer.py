"""run_fn on real TFRecords and a real Transform graph, as TFX calls it."""

from __future__ import annotations

import json
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
from components.example_gen import to_examples
from components.schema import curated_schema
from components.training.input_pipeline import pixel_scale
from components.transform import preprocessing_fn
from components.versions.weights import weights_sha256
from pipeline.beam import BeamSettings, pipeline_args
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
    """What TFX's Trainer hands over, with train and eval files of the synthetic digits."""
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


def test_the_loop_scales_as_the_graph_which_standardises_the_train_split(standard: Path) -> None:
    scale = pixel_scale(tft.TFTransformOutput(str(standard)), DATA.pixels)
    pixels = IMAGES.reshape(len(IMAGES), -1) * scale.scale + scale.offset
    assert pixels.mean() == pytest.approx(0, abs=1e-4) and pixels.std() == pytest.approx(1, abs=1e-4)


def test_the_order_in_which_beam_adds_up_does_not_matter(standard: Path, tmp_path: Path) -> None:
    scale = pixel_scale(tft.TFTransformOutput(str(standard)), DATA.pixels)
    order = np.random.default_rng(0).permutation(len(IMAGES))
    other = pixel_scale(transform_graph(tmp_path / "graph", IMAGES[order], "standard"), DATA.pixels)
    np.testing.assert_array_equal(other.scale, scale.scale)
    np.testing.assert_array_equal(other.offset, scale.offset)


@pytest.mark.parametrize(("scaling", "low", "high"), [("unit", 0, 1), ("symmetric", -1, 1), ("standard", 0, 1)])
def test_other_scalings_and_data_without_variance(tmp_path: Path, scaling: str, low: float, high: float) -> None:
    black = np.zeros((2, SIZE, SIZE), np.uint8)
    scale = pixel_scale(transform_graph(tmp_path / "graph", black, scaling), DATA.pixels)
    np.testing.assert_allclose(scale.offset, low, atol=1e-6)
    np.testing.assert_allclose(scale.scale * 255 + scale.offset, high, atol=1e-6)


def test_history_and_export_agree(trained: SimpleNamespace) -> None:
    found = history(trained)
    exported = tf.saved_model.load(trained.serving_model_dir).signatures["serving_default"]
    classes = exported(images=tf.constant(IMAGES))["classes"].numpy()
    assert found["eval_accuracy"] == pytest.approx(np.mean(classes[300:] == LABELS[300:]), abs=1e-6)
    assert found["train_accuracy"] == pytest.approx(np.mean(classes[:300] == LABELS[:300]), abs=1e-6)
    assert (found["exported_step"], found["resumed_at_step"]) == (150, 0)
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
    assert found["loss"] == found["learning_rate"] == found["steps_per_second"] == [150]
    assert found["eval_accuracy"] == found["eval_loss"] == [150]


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


def test_a_graph_that_is_not_linear_in_its_pixels_is_refused() -> None:
    class Output:
        """The two questions that pixel_scale asks a TFTransformOutput, answered by another preprocessing."""

        def __init__(self, function: object) -> None:
            self.function = function

        def raw_feature_spec(self) -> dict[str, tf.io.FixedLenFeature]:
            return {contract.IMAGE: tf.io.FixedLenFeature([1], tf.string)}

        def transform_features_layer(self) -> object:
            def layer(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
                raw = tf.cast(tf.io.decode_raw(features[contract.IMAGE][:, 0], tf.uint8), tf.float32)
                return {contract.PIXELS: self.function(raw)}  # type: ignore[operator]

            return layer

    with pytest.raises(UserError, match="not one scale and one offset"):
        pixel_scale(Output(tf.square), 4)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not one scale and one offset"):
        pixel_scale(Output(lambda raw: tf.reverse(raw, [1])), 4)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="NaN or infinite"):
        pixel_scale(Output(lambda raw: raw / 0.0), 4)  # type: ignore[arg-type]
