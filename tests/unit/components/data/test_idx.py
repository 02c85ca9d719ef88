from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from components.common.errors import InputError
from components.common.settings import DataSettings
from components.data import idx
from tests.support.synthetic import NAMES, digits, idx_bytes, write_data_set, write_idx

SETTINGS = DataSettings(eval_examples=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For files that each example overwrites."""
    return tmp_path_factory.mktemp("idx")


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=3, max_dims=3, max_side=6)))
@settings(max_examples=30)
def test_images_are_read_as_they_were_written(folder: Path, images: np.ndarray) -> None:
    for name in ("plain", "packed.gz"):
        np.testing.assert_array_equal(idx.read_images(write_idx(folder / name, images)), images)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused_or_read_completely(folder: Path, content: bytes) -> None:
    path = folder / "x"
    path.write_bytes(content)
    try:
        labels = idx.read_labels(path)
    except InputError as e:
        assert str(path) in e.problem
        assert e.remedy
    else:
        assert idx_bytes(labels) == content


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = idx_bytes(digits(3, seed=0, size=4)[0])
    path = tmp_path / "t10k-images-idx3-ubyte"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="t10k-images-idx3-ubyte"):
            idx.read_images(path)


def test_a_broken_gzip_is_refused_with_its_name(tmp_path: Path) -> None:
    packed = gzip.compress(idx_bytes(digits(50, seed=0)[0]))
    for name, content in {"short.gz": packed[:-20], "flipped.gz": packed[:200] + b"\xff\xff" + packed[202:]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: broken gzip"):
            idx.read_images(tmp_path / name)


def test_a_header_with_a_huge_size_allocates_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"abc")
    with pytest.raises(InputError, match="truncated"):
        idx.read_images(tmp_path / "x")


def test_different_counts_are_refused(tmp_path: Path) -> None:
    images, labels = digits(20, seed=0)
    pair = write_idx(tmp_path / "images", images), write_idx(tmp_path / "labels", labels[:19])
    with pytest.raises(InputError, match="images has 20 images but labels has 19 labels"):
        idx.read_split(*pair, SETTINGS)


def test_a_label_beyond_the_classes_is_named_with_its_index(tmp_path: Path) -> None:
    images, labels = digits(20, seed=0)
    labels[7] = 10
    pair = write_idx(tmp_path / "images", images), write_idx(tmp_path / "labels", labels)
    with pytest.raises(InputError, match="label 10 at index 7"):
        idx.read_split(*pair, SETTINGS)


def test_another_image_size_is_refused_with_the_setting_to_use(tmp_path: Path) -> None:
    images, labels = digits(20, seed=0, size=20)
    pair = write_idx(tmp_path / "images", images), write_idx(tmp_path / "labels", labels)
    with pytest.raises(InputError, match="20 x 20 pixels, but the settings say 28 x 28") as caught:
        idx.read_split(*pair, SETTINGS)
    assert "data.image_height=20" in caught.value.remedy


@pytest.mark.parametrize(
    "pattern",
    ["{}-images-idx3-ubyte", "{}-images.idx3-ubyte", "emnist-digits-{}-images-idx3-ubyte.gz"],
)
def test_the_usual_names_are_found(tmp_path: Path, pattern: str) -> None:
    test_word = "test" if "emnist" in pattern else "t10k"
    for split in ("train", test_word):
        name = pattern.format(split)
        write_idx(tmp_path / name, digits(5, seed=0)[0])
        write_idx(tmp_path / name.replace("images", "labels"), digits(5, seed=0)[1])
    files = idx.locate(tmp_path)
    assert [("train" in path.name, "images" in path.name) for path in files] == [(1, 1), (1, 0), (0, 1), (0, 0)]


def test_a_missing_or_ambiguous_file_is_named_by_its_role(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        idx.locate(tmp_path / "nowhere")
    write_data_set(tmp_path)
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(gzip.compress((tmp_path / NAMES[0]).read_bytes()))
    assert idx.locate(tmp_path).train_images == tmp_path / NAMES[0]  # a gzip beside its unpacked file is not ambiguous
    (tmp_path / "my-train-images").write_bytes(b"")
    with pytest.raises(InputError, match="several files of training images"):
        idx.locate(tmp_path)
    (tmp_path / NAMES[3]).unlink()
    (tmp_path / "my-train-images").unlink()
    with pytest.raises(InputError, match="no file of test labels"):
        idx.locate(tmp_path)


def test_the_content_hash_does_not_depend_on_packing(tmp_path: Path) -> None:
    plain = idx.locate(write_data_set(tmp_path / "plain"))
    packed = idx.locate(write_data_set(tmp_path / "packed", suffix=".gz"))
    other = idx.locate(write_data_set(tmp_path / "other", train=1201))
    assert plain.hashes() == packed.hashes() != other.hashes()


@given(st.integers(0, 1000), st.integers(1, 100))
@settings(max_examples=50)
def test_batches_cover_everything_once_in_order(count: int, size: int) -> None:
    spans = list(idx.batches(count, size))
    assert [i for start, stop in spans for i in range(start, stop)] == list(range(count))
    assert all(stop - start <= size for start, stop in spans)
