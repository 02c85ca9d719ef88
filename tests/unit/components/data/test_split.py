from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.common.errors import InputError
from components.common.settings import DataSettings
from components.data import idx, split
from tests.support.synthetic import NAMES, UInt8Array, write_data_set, write_idx


def data_set(folder: Path, labels: UInt8Array) -> idx.IdxFiles:
    """Files whose training labels are `labels`; the first pixels of an image are its index in the file."""
    write_data_set(folder, train=1, test=10)
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(len(labels)), 256)
    for name, values in zip(NAMES, (images, labels), strict=False):
        write_idx(folder / name, values)
    return idx.locate(folder)


def positions(images: UInt8Array) -> list[int]:
    found: list[int] = (images[:, 0, 0].astype(int) * 256 + images[:, 0, 1]).tolist()
    return found


@pytest.mark.parametrize(("images", "expected"), [(60_000, 5000), (50_000, 5000), (3000, 300), (5, 1)])
def test_the_eval_split_is_a_tenth_of_the_training_file_and_at_most_5000(images: int, expected: int) -> None:
    assert split.eval_examples(images, DataSettings()) == expected
    assert split.eval_examples(images, DataSettings(eval_examples=7)) == 7


def test_3000_images_are_accepted_with_the_default_settings(tmp_path: Path) -> None:
    assert split.check(idx.locate(write_data_set(tmp_path, train=3000, test=100)), DataSettings()) == []


def test_an_eval_split_as_large_as_the_training_file_is_refused(tmp_path: Path) -> None:
    files = idx.locate(write_data_set(tmp_path, train=30, test=10))
    with pytest.raises(InputError, match="eval_examples is 30"):
        split.check(files, DataSettings(eval_examples=30))
    split.check(files, DataSettings(eval_examples=29))


def test_a_file_with_every_class_at_its_end_keeps_its_order(tmp_path: Path) -> None:
    files = data_set(tmp_path, np.tile(np.arange(10, dtype=np.uint8), 30))
    chosen = DataSettings(eval_examples=30)
    assert split.check(files, chosen) == []
    images, _ = split.read_train_file(files, chosen)
    assert positions(images) == list(range(300))


def test_a_file_sorted_by_class_is_stratified_with_one_warning(tmp_path: Path) -> None:
    files = data_set(tmp_path, np.repeat(np.arange(10, dtype=np.uint8), 30))
    chosen = DataSettings(eval_examples=50)
    (warning,) = split.check(files, chosen)
    assert "the last 50 images of" in warning
    assert "none of class 0, 1, 2, 3, 4, 5, 6, 7:" in warning
    images, labels = split.read_train_file(files, chosen)
    assert np.bincount(labels[-50:]).tolist() == [5] * 10
    assert sorted(positions(images)) == list(range(300))
    assert positions(images) != list(range(300))
    again, _ = split.read_train_file(files, chosen)
    assert positions(images) == positions(again)


@settings(deadline=None)  # a busy machine
@given(st.lists(st.integers(0, 9), min_size=2, max_size=200), st.data())
def test_a_stratified_order_is_a_permutation_with_the_frequencies_of_the_classes(
    values: list[int], data: st.DataObject
) -> None:
    labels = np.array(values, np.uint8)
    count = data.draw(st.integers(1, len(labels) - 1))
    order = split.stratified_order(labels, count)
    assert sorted(order) == list(range(len(labels)))
    in_eval, total = (np.bincount(part, minlength=10) for part in (labels[order[-count:]], labels))
    several = total > 1
    if several.sum() <= count:
        assert (in_eval[several] > 0).all()
    # No class can have another example in the sample before every other class has had its share.
    assert ((in_eval[several] - 1) / total[several]).max(initial=0) <= (in_eval[several] / total[several]).min(
        initial=1
    )


@settings(deadline=None)  # a busy machine
@given(st.lists(st.integers(0, 255), min_size=1, max_size=50), st.data())
def test_a_class_is_left_out_only_if_the_file_has_enough_of_it(values: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    expected = {v for v in values if values.count(v) > 1 and v not in values[-count:]}
    assert set(split.classes_left_out(np.array(values, np.uint8), count)) == expected
