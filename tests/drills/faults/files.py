"""Pushed versions that were changed by hand, versions that no run pushed, and a full disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from components.versions import manifest
from tests.drills.faults.checks import POLLS_S, expect, expect_exit, restart_refused, validate_fails
from tests.drills.probe import Probe
from tests.drills.product import Product, settings


def tampered_weights(product: Product, probe: Probe) -> str:
    folder = product.base / str(product.versions()[-1])
    (path,) = folder.glob("variables/variables.data-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    probe.settle()
    return f"{validate_fails(product, 'files')}; {restart_refused(probe)}"


def edited_manifest(product: Product, probe: Probe) -> str:
    path = product.base / str(product.versions()[-1]) / manifest.FILE_NAME
    content = json.loads(path.read_text())
    content["metrics"]["sparse_categorical_accuracy"] = 0.9999
    path.write_text(json.dumps(content, indent=1) + "\n")
    probe.settle()
    return validate_fails(product, "record")


def swapped_versions(product: Product, probe: Probe) -> str:
    _swap(product, 0)
    probe.settle()
    return f"{validate_fails(product, 'manifest')}; {restart_refused(probe)}"


def slowly_swapped_versions(product: Product, probe: Probe) -> str:
    """The server sees every intermediate state."""
    _swap(product, POLLS_S)
    probe.settle()
    return validate_fails(product, "manifest")


def _swap(product: Product, pause_s: float) -> None:
    older, newer = (product.base / str(version) for version in product.versions()[-2:])
    temporary = product.base / "temporary"
    for source, target in ((newer, temporary), (older, newer), (temporary, older)):
        source.rename(target)
        time.sleep(pause_s)


def half_copied_version(product: Product, probe: Probe) -> str:
    """A manual copy that starts with the graph, so that TensorFlow Serving would load the version too early."""
    newest = product.versions()[-1]
    source, partial = product.base / str(newest), product.base / str(newest + 1)
    partial.mkdir()
    shutil.copy(source / "saved_model.pb", partial)
    time.sleep(POLLS_S)
    shutil.copytree(source / "variables", partial / "variables")
    time.sleep(POLLS_S)
    expect(probe.now == newest, f"version {probe.now} responds")
    expect_exit(product.validate(), 0, "validate")
    return "not loaded; `validate`: exit 0 (of the version that answers)"


def unblessed_version(product: Product, probe: Probe) -> str:
    """A complete SavedModel that no run pushed, under the highest number."""
    newest = product.versions()[-1]
    (model, *_) = product.home.glob("artifacts/Trainer/model/*/Format-Serving")
    shutil.copytree(model, product.base / str(newest + 1))
    time.sleep(POLLS_S)
    expect(probe.now == newest, f"version {probe.now} responds")
    return "not loaded"


def full_disk(product: Product, probe: Probe) -> str:
    """A real file system (needs root) with space for half a version; it is enlarged afterwards."""
    newest = product.base / str(product.versions()[-1])
    version_bytes = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    used_bytes = sum(path.stat().st_size + 4096 for path in product.base.rglob("*"))
    disk = product.home.parent / "disk"
    disk.mkdir(exist_ok=True)
    _command("mount", "-t", "tmpfs", "-o", f"size={used_bytes + version_bytes // 2}", "tmpfs", disk)
    shutil.copytree(product.base, disk, dirs_exist_ok=True)
    _command("mount", "--bind", disk, product.base)  # in one step: the server never sees an empty folder
    done = product.run(*settings("train.seed=3"))
    expect_exit(done, 5)
    expect(product.versions()[-1] == int(newest.name), "something was pushed")
    probe.settle()
    _command("mount", "-o", "remount,size=1g", disk)
    return f"`run`: exit 5, {done.json['error'].splitlines()[0]}"


def _command(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
