from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.common.errors import InputError, UsageError
from components.data import idx
from serving.client import digits
from tests.support.synthetic import write_data_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("idx"), train=20, test=30)


def saved(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_a_png_of_the_models_size_is_read_unchanged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    digit = digits.from_file(saved(tmp_path / "a.png", pixels), (28, 28))
    np.testing.assert_array_equal(digit.image, pixels, strict=True)
    assert digit.name == str(tmp_path / "a.png")
    assert digit.label is None and digit.index is None


def test_a_large_colour_jpeg_becomes_small_and_grayscale(tmp_path: Path) -> None:
    pixels = np.zeros((200, 100, 3), np.uint8)
    pixels[100:] = 255
    image = digits.from_file(saved(tmp_path / "a.jpeg", pixels, quality=95), (28, 20)).image
    assert image.shape == (28, 20) and image.dtype == np.uint8
    assert image[:13].max() < 10 and image[15:].min() > 245


def test_without_a_size_the_size_of_the_file_is_kept(tmp_path: Path) -> None:
    assert digits.from_file(saved(tmp_path / "a.png", np.zeros((5, 7), np.uint8)), None).image.shape == (5, 7)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    pixels = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert digits.from_file(saved(tmp_path / "a.png", pixels), None).image.tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize(("ink", "invert"), [(255, False), (0, True)])
def test_a_transparent_background_has_no_ink(tmp_path: Path, ink: int, invert: bool) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[1, 1] = (ink, ink, ink, 255)
    image = digits.from_file(saved(tmp_path / "a.png", pixels), None, invert=invert).image
    assert image[1, 1] == 255 and image.sum() == 255


def test_invert_makes_ink_on_paper_bright_on_dark(tmp_path: Path) -> None:
    paper = np.full((28, 28), 250, np.uint8)
    paper[10:18, 14] = 3
    path = saved(tmp_path / "a.png", paper)
    assert digits.looks_inverted(digits.from_file(path, None).image)
    inverted = digits.from_file(path, None, invert=True).image
    assert not digits.looks_inverted(inverted)
    np.testing.assert_array_equal(inverted, 255 - paper)


def test_files_that_are_not_images_are_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (50, 50)).astype(np.uint8))
    contents = {"text.png": b"hello", "empty.jpg": b"", "cut.png": whole.read_bytes()[:900], "a.gif": b"GIF89a" * 9}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: (not an image|cannot be read as an image)"):
            digits.from_file(tmp_path / name, (28, 28))
    with pytest.raises(InputError, match="missing: no such file"):
        digits.from_file(tmp_path / "missing", None)
    with pytest.raises(InputError, match="cannot be read as an image"):
        digits.from_file(tmp_path, None)


@pytest.mark.parametrize("kept", [8, 107, 503, 899])
def test_every_truncation_is_refused(tmp_path: Path, kept: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 30)).astype(np.uint8)
    path = saved(tmp_path / "a.png", pixels)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"a\.png"):
        digits.from_file(path, None)


def test_an_image_of_billions_of_pixels_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    content = bytearray(path.read_bytes())
    content[16:24] = np.array([60000, 60000], ">u4").tobytes()
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(InputError, match="too large"):
        digits.from_file(path, None)


def test_indices_of_the_test_set(folder: Path) -> None:
    images = idx.read_images(idx.locate(folder).test_images)
    labels = idx.read_labels(idx.locate(folder).test_labels)
    first, last = digits.from_test_set(folder, [0, 29])
    np.testing.assert_array_equal(first.image, images[0])
    assert (last.index, last.label, last.name) == (29, labels[29], "test image 29")


def test_random_digits_differ_and_a_seed_repeats_them(folder: Path) -> None:
    chosen = [digit.index for digit in digits.from_test_set(folder, [], count=30, seed=3)]
    assert sorted(i for i in chosen if i is not None) == list(range(30))
    assert [digit.index for digit in digits.from_test_set(folder, [], count=30, seed=3)] == chosen


def test_digits_beyond_the_test_set_are_refused(folder: Path, tmp_path: Path) -> None:
    for wrong in (30, -1):
        with pytest.raises(UsageError, match=rf"no test image {wrong}\b"):
            digits.from_test_set(folder, [0, wrong])
    for count in (0, 31):
        with pytest.raises(UsageError, match="test set has 30"):
            digits.from_test_set(folder, [], count=count)
    with pytest.raises(InputError, match="no such folder"):
        digits.from_test_set(tmp_path / "x", [0])


def test_a_selection_reads_files_before_digits_of_the_test_set(folder: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.zeros((5, 7), np.uint8))
    found = digits.Selection(folder, [path], [3]).read((28, 28))
    assert [digit.name for digit in found] == [str(path), "test image 3"]
    assert len(digits.Selection(folder, [path]).read(None)) == 1
    assert len(digits.Selection(folder, count=4, seed=1).read(None)) == 4
