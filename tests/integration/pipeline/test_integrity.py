"""Compares the versions in serving_model/ with a real MLMD store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.common.contract import MANIFEST_PROPERTY
from components.versions import manifest
from pipeline.integrity import set_aside_unknown, unverified_versions
from tests.support.pushed import folder, push


@pytest.fixture
def store() -> MetadataStore:
    config = mlmd.ConnectionConfig()
    config.fake_database.SetInParent()  # SQLite in memory
    return MetadataStore(config)


def record(store: MetadataStore, home: Path, version: int) -> int:
    """Push a version and record it; return the artifact's ID."""
    pushed = push(home, version)
    kind = mlmd.ArtifactType(name="PushedModel")
    artifact = mlmd.Artifact(type_id=store.put_artifact_type(kind), uri=str(home), state=mlmd.Artifact.LIVE)
    artifact.custom_properties["pushed"].int_value = 1
    artifact.custom_properties["pushed_version"].string_value = str(version)
    artifact.custom_properties["pushed_destination"].string_value = str(pushed)
    artifact.custom_properties[MANIFEST_PROPERTY].string_value = manifest.sha256(pushed / manifest.FILE_NAME)
    (number,) = store.put_artifacts([artifact])
    return int(number)


def test_versions_are_compared_with_their_records(store: MetadataStore, tmp_path: Path) -> None:
    for version in (1, 2, 3):
        record(store, tmp_path, version)
    base = folder(tmp_path, 1).parent
    assert unverified_versions(store, base) == ([], [])

    (folder(tmp_path, 1) / "saved_model.pb").write_bytes(b"tampered")
    edited = json.loads((folder(tmp_path, 2) / manifest.FILE_NAME).read_text())
    (folder(tmp_path, 2) / manifest.FILE_NAME).write_text(json.dumps(edited | {"metrics": {"accuracy": 1.0}}))
    push(tmp_path, 4)  # killed before it was recorded
    folder(tmp_path, 5).mkdir()  # an incomplete copy
    assert unverified_versions(store, base) == ([1, 2, 5], [4])


def test_a_push_of_a_deleted_version_is_not_reused_from_the_cache(store: MetadataStore, tmp_path: Path) -> None:
    gone, there = record(store, tmp_path, 1), record(store, tmp_path, 2)
    shutil.rmtree(folder(tmp_path, 1))
    assert unverified_versions(store, folder(tmp_path, 1).parent) == ([], [])
    states = {artifact.id: artifact.state for artifact in store.get_artifacts()}
    assert states == {gone: mlmd.Artifact.DELETED, there: mlmd.Artifact.LIVE}


def test_a_home_without_versions_has_no_unverified_versions(store: MetadataStore, tmp_path: Path) -> None:
    assert unverified_versions(store, tmp_path / "nothing") == ([], [])


def test_artifacts_of_a_lost_store_are_set_aside_and_kept(store: MetadataStore, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    assert set_aside_unknown(store, artifacts) is None
    for run in (1, 2):
        model = artifacts / "Trainer" / "model" / "7"
        model.mkdir(parents=True)
        (model / "weights").write_text(str(run))
        aside = set_aside_unknown(store, artifacts)
        assert aside == tmp_path / f"artifacts.without-metadata-{run}"
        assert (aside / "Trainer" / "model" / "7" / "weights").read_text() == str(run)
        assert not artifacts.exists()
    store.put_executions([mlmd.Execution(type_id=store.put_execution_type(mlmd.ExecutionType(name="Trainer")))])
    (artifacts / "Trainer" / "model" / "1").mkdir(parents=True)
    assert set_aside_unknown(store, artifacts) is None
