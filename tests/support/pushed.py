"""Homes with pushed versions and their manifests, without running a pipeline."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.versions import manifest
from components.versions.manifest import Manifest


def folder(home: Path, version: int) -> Path:
    return home / "serving_model" / "mnist" / str(version)


def push(home: Path, version: int, source: Path | None = None, **changes: Any) -> Path:
    """Create a version: a copy of `source`, or a file that is not a model. Keywords change fields of its manifest."""
    target = folder(home, version)
    if source is None:
        target.mkdir(parents=True)
        (target / "saved_model.pb").write_bytes(b"no model")
    else:
        shutil.copytree(source, target)
    created = described(version, manifest.file_hashes(target))
    manifest.write(replace(created, **changes), target)
    return target


def described(version: int, files: dict[str, str]) -> Manifest:
    """Return the manifest of a blessed version, as for `publish`."""
    return Manifest(
        model="mnist",
        version=version,
        run_id="run",
        git_commit=None,
        created_utc="2026-01-01T00:00:00+00:00",
        settings={},
        data_sha256={},
        blessed=True,
        infra_blessed=True,
        gate=[],
        infra=[],
        metrics={},
        weights_sha256="",
        files=files,
    )
