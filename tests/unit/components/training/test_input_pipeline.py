from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from components.common import resources
from components.common.errors import InputError, UsageError
from components.common.settings import TrainSettings
from components.example_gen import to_examples
from components.training.input_pipeline import (
    Resident,
    Source,
    Streamed,
    batch_order,
    load_eval_split,
    load_train_split,
)
from tests.support.synthetic import digits

SIZE = 6
SMALL = TrainSettings(batch_size=16)
STREAMED = TrainSettings(batch_size=16, resident_max_mb=0)


def write(folder: Path, images: np.ndarray, labels: np.ndarray, shards: int = 1) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        name = str(folder / f"part-{shard}.gz")
        with tf.io.TFRecordWriter(name, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
            for record in to_examples(images[shard::shards], labels[shard::shards]):
                writer.write(record)
    return [str(folder / "part-*")]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    return digits(100, seed=0, size=SIZE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, data: tuple[np.ndarray, np.ndarray]) -> Sequence[str]:
    return write(tmp_path_factory.mktemp("train"), *data)


def load(files: Sequence[str], settings: TrainSettings = SMALL, classes: int = 10) -> Source:
    return load_train_split(files, SIZE * SIZE, classes, settings)


def taken(source: Source, start: int, stop: int) -> list[tuple[np.ndarray, ...]]:
    """Images and labels of each step."""
    parts = source.take(start, stop)

    def step(i: int) -> tuple[np.ndarray, ...]:
        images, labels = source.pick(tf.nest.map_structure(lambda t: t[i], parts))
        return images.numpy(), labels.numpy()

    return [step(i) for i in range(stop - start)]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200), st.integers(0, 9), st.integers(0, 199))
def test_every_epoch_visits_each_example_at_most_once(
    examples: int, batch: int, steps: int, seed: int, cut: int
) -> None:
    batch, cut = min(batch, examples), min(cut, steps - 1)
    chosen = TrainSettings(steps=steps, batch_size=batch, seed=seed)
    order = batch_order(examples, chosen, 0, steps)
    assert order.shape == (steps, batch) and order.dtype == np.int32
    per_epoch = examples // batch
    for start in range(0, steps, per_epoch):
        epoch = order[start : start + per_epoch].ravel()
        assert len(np.unique(epoch)) == len(epoch)
        assert epoch.min() >= 0 and epoch.max() < examples
    np.testing.assert_array_equal(order[cut:], batch_order(examples, chosen, cut, steps))  # as in a resumed run


@pytest.mark.parametrize(("settings", "kind"), [(SMALL, Resident), (STREAMED, Streamed)], ids=["resident", "streamed"])
class TestBothSources:
    def test_it_is_chosen_by_size(self, files: Sequence[str], settings: TrainSettings, kind: type) -> None:
        source = load(files, settings)
        assert isinstance(source, kind) and source.examples == 100

    def test_an_epoch_is_the_data_in_another_order(
        self, files: Sequence[str], data: tuple[np.ndarray, np.ndarray], settings: TrainSettings, kind: type
    ) -> None:
        source = load(files, settings)
        pairs = {(image.tobytes(), int(label)) for image, label in zip(*data, strict=True)}
        for epoch in range(2):
            batches = taken(source, 6 * epoch, 6 * epoch + 6)  # 96 of the 100
            found = [(i.tobytes(), int(y)) for images, labels in batches for i, y in zip(images, labels, strict=True)]
            assert len(set(found)) == 96 and set(found) <= pairs

    def test_any_step_is_the_same_from_any_start(
        self, files: Sequence[str], settings: TrainSettings, kind: type
    ) -> None:
        whole, again = taken(load(files, settings), 0, 20), load(files, settings)
        for start, stop in ((7, 15), (15, 20), (2, 3)):
            for got, wanted in zip(taken(again, start, stop), whole[start:stop], strict=True):
                np.testing.assert_array_equal(got[0], wanted[0])
                np.testing.assert_array_equal(got[1], wanted[1])

    def test_batches_returns_all_examples(
        self, files: Sequence[str], data: tuple[np.ndarray, np.ndarray], settings: TrainSettings, kind: type
    ) -> None:
        labels = np.concatenate([batch.labels for batch in load(files, settings).batches()])
        np.testing.assert_array_equal(np.sort(labels), np.sort(data[1]))

    def test_a_batch_larger_than_the_data_is_refused(
        self, files: Sequence[str], settings: TrainSettings, kind: type
    ) -> None:
        large = TrainSettings(batch_size=101, resident_max_mb=settings.resident_max_mb)
        with pytest.raises(UsageError, match=r"train.batch_size is 101, .* only 100 examples"):
            load(files, large)

    def test_a_label_outside_the_classes_is_refused(
        self, files: Sequence[str], settings: TrainSettings, kind: type
    ) -> None:
        with pytest.raises(InputError, match=r"label [89] in the train split .* allows 0 to 7"):
            load(files, settings, classes=8)

    def test_a_class_without_examples_is_refused_unless_allowed(
        self, files: Sequence[str], settings: TrainSettings, kind: type
    ) -> None:
        with pytest.raises(InputError, match="class 10, 11 has no example") as caught:
            load(files, settings, classes=12)
        assert "train.allow_missing_classes" in caught.value.remedy
        allowed = TrainSettings(batch_size=16, resident_max_mb=settings.resident_max_mb, allow_missing_classes=True)
        assert load(files, allowed, classes=12).examples == 100


def test_a_split_larger_than_an_eighth_of_the_memory_is_streamed(
    files: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for share, kind in ((8, Resident), (7, Streamed)):  # the limits themselves: test_resources.py
        monkeypatch.setattr(resources, "memory_bytes", lambda share=share: share * 100 * SIZE * SIZE)
        assert type(load(files)) is kind


def test_resident_data_does_not_depend_on_the_order_in_the_files(
    tmp_path: Path, files: Sequence[str], data: tuple[np.ndarray, np.ndarray]
) -> None:
    shuffled = np.random.default_rng(1).permutation(100)
    other = load(write(tmp_path, data[0][shuffled], data[1][shuffled], shards=3))
    one = load(files)
    assert other.digest == one.digest
    for got, wanted in zip(taken(other, 0, 6), taken(one, 0, 6), strict=True):
        np.testing.assert_array_equal(got[0], wanted[0])


def test_other_data_has_another_digest(
    tmp_path: Path, files: Sequence[str], data: tuple[np.ndarray, np.ndarray]
) -> None:
    changed = data[0].copy()
    changed[50, 0, 0] ^= 1
    other = write(tmp_path, changed, data[1])
    for settings in (SMALL, STREAMED):
        assert load(other, settings).digest != load(files, settings).digest


def test_an_empty_eval_split_is_refused(tmp_path: Path) -> None:
    nothing = write(tmp_path, np.zeros((0, SIZE, SIZE), np.uint8), np.zeros(0, np.uint8), shards=0)
    with pytest.raises(InputError, match="eval split is empty"):
        load_eval_split(nothing, SIZE * SIZE, 10)
