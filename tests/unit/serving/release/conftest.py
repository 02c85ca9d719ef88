from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.pushed import push


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power, and a disk that others use makes each fsync slow."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Five pushed versions and no server."""
    for version in (1, 2, 3, 4, 5):
        push(tmp_path, version)
    return tmp_path
