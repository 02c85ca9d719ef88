"""The package of configs/quick.toml, compiled once for all tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipeline import settings
from pipeline.kubeflow.compile import compiled
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def text() -> str:
    """The package as YAML."""
    return compiled(settings.load(ROOT / "configs" / "quick.toml", []))


@pytest.fixture(scope="session")
def spec(text: str) -> dict[str, Any]:
    """The pipeline spec, first document of the package. Read only."""
    content: dict[str, Any] = next(iter(yaml.safe_load_all(text)))
    return content
