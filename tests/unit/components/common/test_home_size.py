from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.common.home import Home
from components.common.home_size import FILE_NAME, HomeSize, measure


def test_a_home_is_measured_by_part_without_following_links(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    sizes = {"data/mnist/images": 10, "artifacts/Trainer/model/1/a": 200, "logs/run/a.log": 3000, "metadata.sqlite": 5}
    for name, size in {**sizes, "serving_model/mnist/1/b": 60, "serving/release.json": 7}.items():
        (home.root / name).parent.mkdir(parents=True, exist_ok=True)
        (home.root / name).write_bytes(b"x" * size)
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    (home.root / "data" / "link").symlink_to(tmp_path / "big")
    (home.root / "elsewhere").symlink_to(tmp_path)
    size = measure(home)
    links = len(str(tmp_path / "big")), len(str(tmp_path))
    parts = {"data": 10 + links[0], "artifacts": 200, "serving_model": 60, "logs": 3000, "metadata": 5}
    parts["other"] = 7 + links[1]
    assert size.bytes == parts | {"total": sum(parts.values())}
    size.record(home)
    assert HomeSize.read(home) == size


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"bytes": {"total": 1}, "recorded_utc": ""}', '{"bytes": 1}']
)
def test_a_missing_or_damaged_record_is_no_size(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
    assert HomeSize.read(Home(tmp_path)) is None


def test_a_record_of_another_release_is_no_size(tmp_path: Path) -> None:
    measure(Home(tmp_path)).record(Home(tmp_path))
    record = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps(record | {"more": 1}))
    assert HomeSize.read(Home(tmp_path)) is None
