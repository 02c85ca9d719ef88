from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.common.errors import InputError
from serving.client import replay
from tests.support.fake_client import FakeClient


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", np.zeros((1200, 8, 8), np.uint8))
    return tmp_path / "images.npy"


def test_all_images_over_grpc_and_the_first_over_rest(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = {"grpc": FakeClient(), "rest": FakeClient()}
    monkeypatch.setattr(replay, "connect", clients.__getitem__)
    report = replay.replay(images, tmp_path / "out.npz", "grpc", "rest", 5, "stable")
    assert (report["version"], report["images"]) == (7, 1200)
    assert report["grpc"]["requests"] == report["rest"]["requests"] == 5
    assert len(clients["grpc"].specs) == 1 + 5 + 3  # connecting, single images, batches of 500
    assert {spec.version_label for spec in clients["grpc"].specs} == {"stable"}
    assert {spec.version.value for spec in clients["rest"].specs} == {7}
    with np.load(tmp_path / "out.npz") as written:
        assert (written["grpc"].shape, written["rest"].shape) == ((1200, 8), (5, 8))


def test_a_failed_request_names_its_images(images: Path) -> None:
    with pytest.raises(InputError, match=r"the request for images 0 to 0 failed: .*both version"):
        replay.predict_timed(FakeClient(), np.load(images), 2, version=1, label="stable")


@pytest.mark.parametrize("content", [b"", b"text", None, np.zeros((2, 8), np.uint8), np.zeros((0, 8, 8), np.uint8)])
def test_files_that_are_not_images_are_refused(tmp_path: Path, content: bytes | np.ndarray | None) -> None:
    path = tmp_path / "images.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"images\.npy"):
        replay.load_images(path)
