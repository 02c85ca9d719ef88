from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.pushed import push


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable fsync: no test here cuts the power, and fsync is slow on a busy disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Five pushed versions and no server."""
    for version in (1, 2, 3, 4, 5):
        push(tmp_path, version)
    return tmp_path
