"""The output of the `query` command, with a fake client."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.data import idx
from serving.client import query
from tests.support import serving_commands
from tests.support.fake_client import FakeClient
from tests.support.pushed import push
from tests.support.synthetic import write_data_set


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_data_set(folder / "data" / "mnist", train=20, test=40, size=8)
    return folder


@pytest.fixture(autouse=True)
def rest(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The fake REST client; gRPC has a separate one."""
    clients = {"127.0.0.1:8500": FakeClient(), "http://127.0.0.1:8501": FakeClient()}
    monkeypatch.setattr(query, "connect", clients.__getitem__)
    return clients["http://127.0.0.1:8501"]


def test_digits_of_the_test_set_are_drawn(home: Path) -> None:
    shown = serving_commands.run("query", "--home", home, "--count", "2", "--seed", "1").stdout
    assert shown.count("test image") == 2 and "█" in shown and "%" in shown and "REST" not in shown
    assert "mnist version 7, 2 digits. gRPC: " in shown


def test_a_dark_drawing_on_paper_gets_a_hint(home: Path, tmp_path: Path) -> None:
    pixels = np.full((30, 40), 255, np.uint8)
    pixels[4:7] = 0
    Image.fromarray(pixels).save(tmp_path / "drawn.png")
    assert "try --invert" in serving_commands.run("query", "--home", home, tmp_path / "drawn.png").stdout
    assert (
        "try --invert" not in serving_commands.run("query", "--home", home, tmp_path / "drawn.png", "--invert").stdout
    )


def test_with_many_digits_only_misclassified_ones_are_drawn(home: Path) -> None:
    done = serving_commands.run("query", "--home", home, "--count", "40")
    right = int(done.stdout.rsplit("gRPC: ", 1)[1].split(" of 40 right")[0])
    assert done.stdout.count("test image") == 40 - right > 0


def test_the_transports_are_compared(home: Path, rest: FakeClient) -> None:
    arguments = ("query", "--home", home, "--rest")
    assert "\ngRPC and REST: identical\n" in serving_commands.run(*arguments).stdout
    rest.shift = 1
    differ = serving_commands.run(*arguments, "--json")
    assert (differ.code, differ.json["same_classes"], len(differ.json["digits"])) == (6, False, 5)
    assert "DIFFERENT CLASSES" in serving_commands.run(*arguments).stdout
    rest.version = 8
    other = serving_commands.run(*arguments)
    assert (other.code, "versions [7, 8] answered" in other.stderr, other.stdout) == (5, True, "")


def test_mistakes_end_with_a_message_and_the_exit_code(home: Path, tmp_path: Path) -> None:
    both = serving_commands.run("query", "--home", home, "--version", "7", "--label", "stable")
    assert (both.code, "Give one of --version and --label" in both.stderr) == (2, True)
    missing = serving_commands.run("query", "--home", home, tmp_path / "x.png")
    assert (missing.code, "no such file" in missing.stderr) == (5, True)
    no_data = serving_commands.run("query", "--home", tmp_path)
    assert (no_data.code, "no such folder" in no_data.stderr) == (5, True)


def served_with(home: Path, data: Path, **changes: Any) -> Path:
    """A home whose version 7, which the fake client serves, was trained on `data`."""
    names = ["bag", "boot", "coat", "dress", "pullover", "sandal", "shirt", "sneaker"]
    settings = {"data": {"source": str(data), "class_names": names}}
    push(home, 7, settings=settings, data_sha256=idx.locate(data).hashes() | changes)
    return home


def test_the_digits_are_those_of_the_versions_own_data(tmp_path: Path) -> None:
    fashion = write_data_set(tmp_path / "fashion", train=20, test=40, size=8)
    write_data_set(tmp_path / "home" / "data" / "mnist", train=20, test=30)  # another size: it would be refused
    home = served_with(tmp_path / "home", fashion)
    done = serving_commands.run("query", "--home", home, "--index", "35", "--json")
    assert (done.code, done.json["asked"]) == (0, 1), done.stderr
    shown = serving_commands.run("query", "--home", home, "--index", "35").stdout
    assert done.json["digits"][0]["grpc"]["class"] == 3
    assert "test image 35: dress (" in shown and "is pullover" in shown


def test_without_that_data_the_query_says_so(tmp_path: Path) -> None:
    fashion = write_data_set(tmp_path / "fashion", train=20, test=40, size=8)
    write_data_set(tmp_path / "home" / "data" / "mnist", train=20, test=40, size=8)
    home = served_with(tmp_path / "home", fashion, test_labels="0" * 64)
    changed = serving_commands.run("query", "--home", home)
    assert changed.code == 5
    assert f"{fashion}: the test labels are not those that version 7 was evaluated on" in changed.stderr
    assert serving_commands.run("query", "--home", home, "--data", fashion).code == 0
    shutil.rmtree(fashion)
    gone = serving_commands.run("query", "--home", home)
    assert gone.code == 5
    assert f"the test data of version 7 cannot be read: {fashion}" in gone.stderr
    assert "--data DIR" in gone.stderr
