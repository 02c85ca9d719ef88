"""IDX files through the real executor on Beam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples
from tfx.utils import proto_utils

from components.common import contract
from components.common.settings import DataSettings
from components.data import idx
from components.example_gen import ExampleGen, Executor, split_ranges, to_examples
from pipeline.beam import BeamSettings, pipeline_args
from tests.support.synthetic import digits


def parse(record: bytes) -> dict[str, object]:
    feature = tf.train.Example.FromString(record).features.feature
    (image,) = feature[contract.IMAGE].bytes_list.value
    return {
        "image": image,
        "label": feature[contract.LABEL].int64_list.value[0],
        "mean": feature[contract.MEAN_INTENSITY].float_list.value[0],
        "ink": feature[contract.INK_FRACTION].float_list.value[0],
    }


def test_an_example_has_the_pixels_and_their_summaries() -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    images[1, :2] = 255
    blank, half = (parse(record) for record in to_examples(images, np.array([3, 9], np.uint8)))
    assert blank == {"image": bytes(16), "label": 3, "mean": 0.0, "ink": 0.0}
    assert half == {"image": b"\xff" * 8 + bytes(8), "label": 9, "mean": 0.5, "ink": 0.5}


def test_eval_is_the_end_of_the_training_file_and_train_repeats() -> None:
    ranges = split_ranges(100, 10, DataSettings(eval_examples=30, repeat=2))
    assert ranges == {"train": [(0, 70), (0, 70)], "eval": [(70, 100)], "test": [(0, 10)]}


def test_the_executor_writes_each_image_into_its_split(data: Path, tmp_path: Path) -> None:
    settings = DataSettings(eval_examples=200, repeat=2)
    component = ExampleGen(idx.locate(data), settings, hashes={})
    properties = {
        name: proto_utils.proto_to_json(value) if hasattr(value, "DESCRIPTOR") else value
        for name, value in component.exec_properties.items()
    }
    examples = Examples()
    examples.uri = str(tmp_path)
    executor = Executor(BaseBeamExecutor.Context(beam_pipeline_args=pipeline_args(BeamSettings()), unique_id="1"))
    executor.Do({}, {"examples": [examples]}, properties)

    assert artifact_utils.decode_split_names(examples.split_names) == list(contract.SPLITS)
    train_images, train_labels = digits(1200, seed=0)
    test_images, test_labels = digits(300, seed=1)
    expected = {
        "train": (train_images[:1000], train_labels[:1000], settings.repeat),
        "eval": (train_images[1000:], train_labels[1000:], 1),
        "test": (test_images, test_labels, 1),
    }
    for split, (images, labels, times) in expected.items():
        files = tf.io.gfile.glob(f"{tmp_path}/Split-{split}/*.gz")
        records = [parse(record) for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()]
        found = sorted((record["image"], record["label"]) for record in records)
        wanted = sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
        assert found == sorted(wanted * times), split


def test_the_hashes_of_the_content_are_part_of_the_cache_key(data: Path) -> None:
    files = idx.locate(data)
    one, other = (ExampleGen(files, DataSettings(), {"train_images": sha * 32}) for sha in ("aa", "bb"))
    assert str(one.exec_properties) != str(other.exec_properties)
