"""What ML Metadata raises on a full disk, and what the user reads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import lineage
from pipeline.failure import explain


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB; needs root."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)  # a store closes its file some time later


def write_much(store: MetadataStore) -> None:
    for number in range(100):
        store.put_artifact_type(mlmd.ArtifactType(name=f"{number}" * 5000))


def test_a_full_disk(small_disk: Path) -> None:
    store = MetadataStore(lineage.connection_config(small_disk / "metadata.sqlite"))
    with pytest.raises(Exception) as caught:  # noqa: PT011  # MLMD's errors have no common base
        write_much(store)
    assert explain("ExampleGen", caught.value, None) == (
        "ExampleGen: the disk is full\nMake room, or name another home: --home DIR",
        5,
    )


def test_a_disk_too_small_for_the_database(small_disk: Path) -> None:
    (small_disk / "file").write_bytes(bytes(300_000))
    with pytest.raises(Exception) as caught:  # noqa: PT011
        MetadataStore(lineage.connection_config(small_disk / "metadata.sqlite"))
    assert explain("start-up", caught.value, None)[1] == 5
