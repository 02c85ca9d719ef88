"""The file with the evaluation's predictions: small, readable as earlier versions wrote it, refused if damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.validation import reference_predictions
from components.validation.reference_predictions import FILE_NAME, ReferencePredictions

COUNT = 200


@pytest.fixture(scope="module")
def predictions() -> ReferencePredictions:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, 28, 28), np.uint8)
    images[:, :, 6:22] = 0  # most of a digit's image is empty
    labels, baseline_classes = random.integers(0, 10, (2, COUNT))
    return ReferencePredictions(images, labels, random.random((COUNT, 10), np.float32), baseline_classes)


@pytest.fixture(scope="module")
def written(predictions: ReferencePredictions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    reference_predictions.write(predictions, folder)
    return folder


def check_equal(found: ReferencePredictions, expected: ReferencePredictions) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_the_file_is_compressed(written: Path, predictions: ReferencePredictions) -> None:
    check_equal(reference_predictions.read(written), predictions)
    assert (written / FILE_NAME).stat().st_size < 0.6 * sum(array.nbytes for array in predictions)


def test_an_uncompressed_file_of_an_earlier_version_is_read(tmp_path: Path, predictions: ReferencePredictions) -> None:
    earlier = {name: array for name, array in predictions._asdict().items() if name != "baseline_classes"}
    np.savez(tmp_path / FILE_NAME, **earlier)
    found = reference_predictions.read(tmp_path)
    assert found.baseline_classes is None
    check_equal(found._replace(baseline_classes=predictions.baseline_classes), predictions)


@given(data=st.data())
def test_damage_is_never_read_as_other_predictions(
    written: Path, predictions: ReferencePredictions, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = (written / FILE_NAME).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    folder = tmp_path_factory.mktemp("damaged")
    (folder / FILE_NAME).write_bytes(data.draw(st.sampled_from([content[:at], flipped])))
    try:
        found = reference_predictions.read(folder)
    except (OSError, ValueError):
        return
    check_equal(found, predictions)
