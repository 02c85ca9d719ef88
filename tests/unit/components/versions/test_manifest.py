"""A version matches its manifest only if it is unchanged since the push."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.errors import InputError
from components.versions import manifest
from tests.support.pushed import push


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return push(tmp_path, 7)


def test_an_unchanged_version_is_verified(version: Path) -> None:
    assert manifest.verify(version).version == 7


def _edit(**changes: object) -> Callable[[Path], None]:
    def edit(version: Path) -> None:
        path = version / manifest.FILE_NAME
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def _replaced(path: Path, create: Callable[[Path], object]) -> None:
    path.unlink()
    create(path)


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (lambda version: (version / "saved_model.pb").write_bytes(b"no modeL"), "saved_model.pb"),
        (lambda version: (version / "saved_model.pb").unlink(), "saved_model.pb"),
        (lambda version: (version / "extra").write_text(""), "extra"),
        (lambda version: (version / manifest.FILE_NAME).unlink(), "has no manifest.json"),
        (lambda version: (version / manifest.FILE_NAME).write_text("{"), "not a manifest"),
        (lambda version: (version / manifest.FILE_NAME).write_text("[]"), "not a manifest"),
        (_edit(unknown=1), "not a manifest"),
        (_edit(version=8), "manifest is for version 8"),
        (_edit(blessed=False), "blessed"),
        (_edit(infra_blessed=None), "blessed"),
        (_edit(files={}), "saved_model.pb"),
        (_edit(files=5), "files is not an object"),
        (lambda version: (version / manifest.FILE_NAME).write_text("[" * 100_000), "not a manifest"),
        (lambda version: os.mkfifo(version / "fifo"), "fifo: not a regular file"),
        (lambda version: _replaced(version / "saved_model.pb", os.mkfifo), "saved_model.pb: not a regular file"),
        (lambda version: _replaced(version / manifest.FILE_NAME, os.mkfifo), "manifest.json: not a regular file"),
        (lambda version: (version / "link").symlink_to("nowhere"), "link: cannot be read"),
        (lambda version: (version / "assets.extra").symlink_to(version.parent), "assets.extra: not a regular file"),
        (lambda version: (version / "endless").symlink_to("/dev/zero"), "endless: not a regular file"),
    ],
)
def test_every_change_is_named(version: Path, tamper: Callable[[Path], object], says: str) -> None:
    tamper(version)
    with pytest.raises(InputError, match=says):
        manifest.verify(version)


def test_a_version_under_another_number_is_refused(version: Path) -> None:
    moved = version.rename(version.with_name("9"))
    with pytest.raises(InputError, match="manifest is for version 7"):
        manifest.verify(moved)
