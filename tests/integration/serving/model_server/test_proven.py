"""`--proven_only`: only verified versions are loaded. Also `up --with-parent`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from serving.launch.server import find
from tests.conftest import ROOT
from tests.integration.serving.conftest import Start
from tests.support.pushed import folder, push
from tests.support.servers import embedded_only, free_port, model_config, wait_for

X = {"x": [1.0]}
PROVEN_ONLY = ("--proven_only", "--max_num_load_retries=0")


@embedded_only
def test_unverified_versions_are_not_loaded_and_the_old_one_keeps_serving(
    start: Start, models: Path, tmp_path: Path
) -> None:
    push(tmp_path, 1, models / "versioned" / "1")
    server = start(model_config("mnist", folder(tmp_path, 1).parent), flags=PROVEN_ONLY)
    assert server.responding_version("mnist") == 1

    shutil.copytree(models / "versioned" / "2", folder(tmp_path, 2))  # complete, but without a manifest
    wait_for(lambda: (2, "END") in server.status("mnist"))
    push(tmp_path, 3, models / "versioned" / "3", blessed=False)
    wait_for(lambda: (3, "END") in server.status("mnist"))
    tampered = push(tmp_path.with_name(f"{tmp_path.name}-beside"), 4, models / "versioned" / "4")
    (tampered / "saved_model.pb").write_bytes(b"another")
    tampered.rename(folder(tmp_path, 4))
    wait_for(lambda: (4, "END") in server.status("mnist"))
    assert server.responding_version("mnist") == 1

    beside = push(tmp_path.with_name(f"{tmp_path.name}-beside"), 5, models / "versioned" / "5")
    beside.rename(folder(tmp_path, 5))
    wait_for(lambda: server.responding_version("mnist") == 5)


def test_up_with_a_parent_that_has_ended_starts_nothing(tmp_path: Path) -> None:
    push(tmp_path, 1)
    parent = subprocess.Popen(["true"])
    parent.wait()
    ports = ["--grpc-port", str(free_port()), "--rest-port", str(free_port())]
    words = ["up", "--foreground", "--with-parent", str(parent.pid), "--home", str(tmp_path), *ports]
    done = subprocess.run([sys.executable, "-m", "serving", *words], cwd=ROOT, timeout=60)
    assert done.returncode == 0
    assert find(tmp_path) is None
