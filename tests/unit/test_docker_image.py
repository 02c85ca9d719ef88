"""Dockerfile, .dockerignore and tools/slim.py: the content and the user of the image for Kubeflow tasks."""

from __future__ import annotations

from tests.conftest import ROOT
from tools.slim import names


def test_dockerignore_lets_through_exactly_what_the_dockerfile_copies() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_as_the_user_that_owns_the_volume() -> None:
    user = (ROOT / "Dockerfile").read_text().rpartition("\nUSER ")[2].split()[0]
    prepare_volume = (ROOT / "serving" / "deploy" / "kubernetes" / "base" / "prepare-volume.yaml").read_text()
    assert f"chown {user} " in prepare_volume


def test_developer_packages_are_removed_and_product_packages_stay() -> None:
    removed = set(names((ROOT / "pyproject.toml").read_text()))
    assert {"mypy", "pytest", "ruff", "tensorboard"} <= removed
    assert not {"kfp", "pyyaml", "tfx", "uvicorn"} & removed
