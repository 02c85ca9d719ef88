"""Versions that appear and disappear, broken versions, and the swap from one version to the next."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import grpc
import pytest

from tests.integration.serving.conftest import Start
from tests.support import saved_models
from tests.support.clients import refused
from tests.support.servers import model_config, wait_for

FAST_RETRIES = ("--max_num_load_retries=1", "--load_retry_interval_micros=50000")
X = {"x": [1.0]}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    return folder


def test_versions_by_folder(start: Start, base: Path, models: Path) -> None:
    """One server gets a new version, then broken ones, a missing base path, and finally no version."""
    source = models / "versioned"
    saved_models.copy_version(source / "1", base / "00000001")
    for name in ("notes", "1.5", "x2", ".3"):
        (base / name).mkdir()
    server = start(model_config("versioned", base), flags=("--file_system_poll_wait_seconds=1", *FAST_RETRIES))
    assert server.responding_version("versioned") == 1

    # A new version replaces the old one under load; then the old one is unloaded.
    failures: list[object] = []
    responded: list[int] = []
    over = threading.Event()

    def predict() -> None:
        while not over.is_set():
            try:
                responded.append(server.responding_version("versioned"))
            except Exception as e:
                failures.append(e)

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        saved_models.copy_version(source / "2", base / "2")
        wait_for(lambda: server.status("versioned") == [(2, "AVAILABLE"), (1, "END")])
        saved_models.copy_version(source / "3", base / "3")
        wait_for(lambda: server.status("versioned")[0] == (3, "AVAILABLE"))
        wait_for(lambda: 3 in responded)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert not failures and set(responded) == {1, 2, 3}

    # A broken version never replaces a good one.
    cut = saved_models.copy_version(source / "4", base / "cut") / "saved_model.pb"
    cut.write_bytes(cut.read_bytes()[:100])
    (base / "10").mkdir()
    wait_for(lambda: (10, "END") in server.status("versioned"))
    (base / "cut").rename(base / "11")
    wait_for(lambda: (11, "END") in server.status("versioned"))
    (base / "12").write_text("a file, not a folder")
    wait_for(lambda: (12, "END") in server.status("versioned"))
    assert "Could not find SavedModel .pb or .pbtxt" in server.load_error("versioned", 10)[1]
    assert all(server.load_error("versioned", number)[0] != 0 for number in (10, 11, 12))
    assert server.responding_version("versioned") == 3
    assert "error_message" in server.get("versioned").text

    # While the base path is missing, nothing changes.
    logged = len(server.output)
    base.rename(base.with_name("away"))
    wait_for(lambda: len(server.output) > logged)  # a poll has found it missing
    assert server.responding_version("versioned") == 3
    base.with_name("away").rename(base)

    # Without any version on disk, all are unloaded.
    for child in list(base.iterdir()):
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
    wait_for(lambda: (3, "END") in server.status("versioned"))
    with refused(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(versioned)"):
        server.predict("versioned", X)


def test_a_version_without_its_variables_loads_and_fails(start: Start, base: Path, models: Path) -> None:
    """As in production, such a copy replaces the old version, and every request fails."""
    saved_models.copy_version(models / "versioned" / "1", base / "1")
    shutil.copytree(models / "versioned" / "2", base / "writing")
    shutil.rmtree(base / "writing" / "variables")
    server = start(model_config("versioned", base))
    (base / "writing").rename(base / "2")
    wait_for(lambda: server.status("versioned")[0] == (2, "AVAILABLE"))
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        server.predict("versioned", X)


def test_a_failed_version_can_be_repaired_within_its_retries(start: Start, base: Path, models: Path) -> None:
    saved_models.copy_version(models / "versioned" / "1", base / "1")
    flags = ("--max_num_load_retries=100", "--load_retry_interval_micros=100000")
    server = start(model_config("versioned", base), flags=flags)
    (base / "2").mkdir()
    wait_for(lambda: server.status("versioned")[0][0] == 2)
    assert server.responding_version("versioned") == 1
    shutil.copytree(models / "versioned" / "2" / "variables", base / "2" / "variables")
    shutil.copy(models / "versioned" / "2" / "saved_model.pb", base / "2" / "saved_model.new")
    (base / "2" / "saved_model.new").rename(base / "2" / "saved_model.pb")
    wait_for(lambda: server.responding_version("versioned") == 2)


def test_an_old_version_stays_until_its_last_request_has_ended(start: Start, base: Path, models: Path) -> None:
    saved_models.copy_version(models / "slow" / "1", base / "1")
    server = start(model_config("slow", base), model_config("half", models / "half"))
    call = server.sleep(800)
    assert server.predict("half", X)  # sent later, so the first request is running
    saved_models.copy_version(models / "slow" / "1", base / "2")
    wait_for(lambda: (1, "UNLOADING") in server.status("slow"))
    time.sleep(0.1)  # several iterations of the manager
    assert (1, "UNLOADING") in server.status("slow") and not call.done()
    assert call.result().model_spec.version.value == 1
    wait_for(lambda: (1, "END") in server.status("slow"))


def test_the_config_file_is_polled(start: Start, models: Path) -> None:
    """Errors in the file are logged, and the old config stays active; a label waits for its version."""
    half, pair = model_config("half", models / "half"), model_config("pair", models / "pair")
    server = start(half, flags=("--model_config_file_poll_wait_seconds=1",))
    server.configure(half, pair)
    wait_for(lambda: "AVAILABLE" in server.get("pair").text)
    assert server.predict("pair", {"a": [1.0], "b": [1.0]})
    before = len(server.output)
    server.config_file.write_text("model_config_list { what }")
    wait_for(lambda: len(server.output) > before)
    assert server.predict("pair", {"a": [1.0], "b": [1.0]})
    server.configure(half)
    wait_for(lambda: server.status("pair") == [(1, "END")])
    server.configure(model_config("half", models / "half", labels={"stable": 123}))
    wait_for(lambda: server.post("half/labels/stable:predict", {"instances": [1]}).code == 200)
