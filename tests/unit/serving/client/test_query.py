"""Predictions of digits and the comparison of the transports, with a fake client."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.common.errors import InputError
from serving.client import query
from serving.client.base import Metadata
from serving.client.digits import Selection
from serving.protocol import serving_pb2 as pb
from tests.support.fake_client import FakeClient
from tests.support.synthetic import write_data_set

SIZE = 8
REST = "http://rest"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("idx"), train=20, test=40, size=SIZE)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeClient]:
    """The clients for "grpc" and REST by address; both classify the synthetic digits correctly."""
    found = {address: FakeClient(address) for address in ("grpc", REST)}
    monkeypatch.setattr(query, "connect", found.__getitem__)
    return found


def test_summary_and_rows(folder: Path, clients: dict[str, FakeClient]) -> None:
    result = query.query(lambda version: Selection(folder, indices=[3, 5]), "grpc", REST)
    summary = result.summary()
    assert summary.pop("milliseconds").keys() == {"grpc", "rest"}
    right = sum(row["grpc"]["class"] == row["label"] for row in result.rows())
    assert summary == {
        "model": "mnist",
        "version": 7,
        "asked": 2,
        "labelled": 2,
        "right": {"grpc": right, "rest": right},
        "versions": {"grpc": 7, "rest": 7},
        "max_difference": 0,
        "same_classes": True,
        "identical": True,
    }
    assert [row["index"] for row in result.rows()] == [3, 5]
    for row in result.rows():
        assert row["grpc"] == row["rest"]
        assert np.argmax(row["grpc"]["probabilities"]) == row["grpc"]["class"]


def test_a_file_is_resized_to_the_models_input(folder: Path, clients: dict[str, FakeClient], tmp_path: Path) -> None:
    pixels = np.full((30, 40), 255, np.uint8)
    pixels[4:7] = 0
    path = tmp_path / "drawn.png"
    Image.fromarray(pixels).save(path)
    file, test = query.query(lambda version: Selection(folder, [path], [2], invert=True), "grpc").rows()
    assert file["grpc"]["class"] == 1 and file["label"] is None and test["index"] == 2
    clients["grpc"].size = -1  # any size: the files are not resized
    with pytest.raises(InputError, match=r"images of different sizes: 8 x 8, 30 x 40 pixels"):
        query.query(lambda version: Selection(folder, [path], [2]), "grpc")


def test_version_and_label_reach_the_requests(folder: Path, clients: dict[str, FakeClient]) -> None:
    query.query(lambda version: Selection(folder), "grpc", REST, version=7)
    query.query(lambda version: Selection(folder), "grpc", label="stable")
    assert [spec.version.value for spec in (*clients["grpc"].specs[:2], *clients[REST].specs)] == [7, 7, 7]
    assert clients["grpc"].specs[-1].version_label == "stable"


def test_the_answers_are_all_of_one_version(folder: Path, clients: dict[str, FakeClient]) -> None:
    asked: list[int] = []

    def select(version: int) -> Selection:
        asked.append(version)
        if len(asked) == 1:  # the served version changes between the first two requests
            clients["grpc"].version = clients[REST].version = 8
        return Selection(folder)

    summary = query.query(select, "grpc", REST).summary()
    assert asked == [7, 8]
    assert (summary["version"], summary["versions"]) == (8, {"grpc": 8, "rest": 8})
    clients[REST].version = 9
    with pytest.raises(InputError, match=r"versions \[8, 9\] answered"):
        query.query(select, "grpc", REST)


def test_different_classes_are_reported(folder: Path, clients: dict[str, FakeClient]) -> None:
    clients[REST].shift = 1
    summary = query.query(lambda version: Selection(folder), "grpc", REST).summary()
    assert summary["same_classes"] is summary["identical"] is False
    assert summary["max_difference"] > 0


def test_a_model_without_the_signature_is_refused() -> None:
    with pytest.raises(InputError, match="has no signature 'serving_default' with an input 'images'"):
        query.input_size(Metadata("mnist", 1, {"serving_default": pb.SignatureDef()}))
