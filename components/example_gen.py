"""ExampleGen for IDX files: images and labels become tf.Examples in the splits train, eval and test."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import tensorflow as tf
from google.protobuf import wrappers_pb2
from tfx.components.example_gen import utils
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.example_gen.driver import FileBasedDriver
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2
from tfx.types import standard_component_specs
from tfx.utils import proto_utils

from components.common import contract
from components.common.settings import DataSettings
from components.data.idx import IdxFiles, UInt8Array, batches, read_labels, read_split
from components.data.split import eval_examples, read_train_file

log = logging.getLogger(__name__)
BATCH: Final = 5000  # images per Beam element: small enough for a bundle, large enough to amortise the cost per element


def to_examples(images: UInt8Array, labels: UInt8Array) -> Iterator[bytes]:
    """Serialize a batch of images as tf.Examples (see contract.py).

    Args:
        images: uint8 [batch, height, width], 0..255
        labels: uint8 [batch]
    """
    flat = images.reshape(len(images), -1)  # [batch, height * width]
    mean_intensity = flat.mean(axis=1) / contract.MAX_PIXEL  # [batch], 0..1
    ink_fraction = (flat > contract.MAX_PIXEL // 2).mean(axis=1)  # [batch], 0..1
    columns = (flat, labels.tolist(), mean_intensity.tolist(), ink_fraction.tolist())
    for pixels, label, mean, ink in zip(*columns, strict=True):
        example = tf.train.Example()
        feature = example.features.feature
        feature[contract.IMAGE].bytes_list.value.append(pixels.tobytes())
        feature[contract.LABEL].int64_list.value.append(label)
        feature[contract.MEAN_INTENSITY].float_list.value.append(mean)
        feature[contract.INK_FRACTION].float_list.value.append(ink)
        yield example.SerializeToString(deterministic=True)


def split_ranges(train_count: int, test_count: int, settings: DataSettings) -> dict[str, list[tuple[int, int]]]:
    """The (start, stop) ranges of the images of each split, in batches.

    The eval split is the end of the training images (see `read_train_file`); train is the rest, `repeat` times.
    """
    cut = train_count - eval_examples(train_count, settings)
    return {
        contract.TRAIN_SPLIT: list(batches(cut, BATCH)) * settings.repeat,
        contract.EVAL_SPLIT: [(cut + start, cut + stop) for start, stop in batches(train_count - cut, BATCH)],
        contract.TEST_SPLIT: list(batches(test_count, BATCH)),
    }


class ReadBatch(beam.DoFn):
    """(start, stop) -> serialized tf.Examples of that range. Each worker reads the files once."""

    def __init__(self, read: Callable[[], tuple[UInt8Array, UInt8Array]]) -> None:
        self._read = read  # returns images and labels
        self._split: tuple[UInt8Array, UInt8Array] | None = None

    def process(self, span: tuple[int, int]) -> Iterator[bytes]:
        if self._split is None:
            self._split = self._read()
        images, labels = self._split
        yield from to_examples(images[slice(*span)], labels[slice(*span)])


class Executor(BaseExampleGenExecutor):
    """Reads the files named in `ExampleGen`'s custom config from `input_base`."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:
        raise NotImplementedError("the splits are index ranges: see GenerateExamplesByBeam")

    def GenerateExamplesByBeam(self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]) -> dict[str, Any]:
        config = _unpack(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        settings = DataSettings(**config["settings"])
        base = Path(exec_properties[standard_component_specs.INPUT_BASE_KEY])
        files = IdxFiles(*(base / name for name in config["files"]))
        ranges = split_ranges(len(read_labels(files.train_labels)), len(read_labels(files.test_labels)), settings)

        log.info("%s", ", ".join(f"{sum(b - a for a, b in spans):,} {name}" for name, spans in ranges.items()))

        train = partial(read_train_file, files, settings)
        test = partial(read_split, files.test_images, files.test_labels, settings)

        def split(name: str) -> beam.PCollection:
            read = test if name == contract.TEST_SPLIT else train
            return (
                pipeline
                | f"Batches[{name}]" >> beam.Create(ranges[name], reshuffle=False)
                | f"Examples[{name}]" >> beam.ParDo(ReadBatch(read)).with_output_types(bytes)
            )

        return {name: split(name) for name in ranges}


class Driver(FileBasedDriver):
    """TFX's driver, without the files' times: data with the same content has the same cache key."""

    def resolve_exec_properties(
        self, exec_properties: dict[str, Any], pipeline_info: Any, component_info: Any
    ) -> dict[str, Any]:
        resolved: dict[str, Any] = super().resolve_exec_properties(exec_properties, pipeline_info, component_info)
        hashes = _unpack(resolved[standard_component_specs.CUSTOM_CONFIG_KEY])["sha256"]
        resolved[utils.FINGERPRINT_PROPERTY_NAME] = json.dumps(hashes, sort_keys=True)
        return resolved


class ExampleGen(FileBasedExampleGen):
    """TFX component: four IDX files in, Examples with the splits train, eval and test out.

    Args:
        files: the four files, all in one folder, which becomes `input_base`.
        settings: split sizes, and the size and classes of the images.
        hashes: SHA-256 of the files' content; part of the cache key.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, files: IdxFiles, settings: DataSettings, hashes: Mapping[str, str]) -> None:
        # TFX's driver fingerprints the files that these patterns match; the executor uses index ranges instead.
        train, test = _pattern(files.train_images, files.train_labels), _pattern(files.test_images, files.test_labels)
        patterns = {contract.TRAIN_SPLIT: train, contract.EVAL_SPLIT: train, contract.TEST_SPLIT: test}
        Split = example_gen_pb2.Input.Split
        super().__init__(
            input_base=str(files.train_images.parent),
            input_config=example_gen_pb2.Input(splits=[Split(name=k, pattern=v) for k, v in patterns.items()]),
            custom_config=_pack(
                {"files": [path.name for path in files], "settings": settings.of_examples(), "sha256": dict(hashes)}
            ),
        )


def _pattern(images: Path, labels: Path) -> str:
    """A glob that matches both names: their common prefix."""
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(images.name, labels.name, strict=False))
    return "".join(a for a, _ in shared) + "*"


def _pack(config: dict[str, Any]) -> example_gen_pb2.CustomConfig:
    packed = example_gen_pb2.CustomConfig()
    packed.custom_config.Pack(wrappers_pb2.StringValue(value=json.dumps(config, sort_keys=True)))
    return packed


def _unpack(exec_property: str) -> dict[str, Any]:
    packed, text = example_gen_pb2.CustomConfig(), wrappers_pb2.StringValue()
    proto_utils.json_to_proto(exec_property, packed)
    packed.custom_config.Unpack(text)
    config: dict[str, Any] = json.loads(text.value)
    return config
