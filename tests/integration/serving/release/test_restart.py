"""Labels across restarts of the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from components.common.errors import InputError
from components.common.ports import free_port, version_states
from serving.launch import server
from serving.launch.backends import Setup
from serving.release import decisions
from tests.conftest import ROOT, environment
from tests.integration.serving.release.home import Home
from tests.support.pushed import folder, push
from tests.support.servers import embedded_only, wait_for


def test_a_foreground_server_keeps_the_labels_and_accepts_changes(home: Home) -> None:
    decisions.promote(home.path, 2)
    decisions.canary(home.path, 3)
    home.stop()
    ports = ["--grpc-port", str(free_port()), "--rest-port", str(free_port())]
    up = [sys.executable, "-m", "serving", "up", "--foreground", "--backend", home.backend, *ports]
    with subprocess.Popen(
        [*up, "--home", home.path], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: len(version_states(int(ports[3]))) == 2, 60)
            wait_for(lambda: all(s["state"] == "AVAILABLE" for s in version_states(int(ports[3]))), 60)
            assert home.served() == (2, 3, 3)
            assert decisions.promote(home.path).in_effect
            assert home.served() == (3, 3, 3)
        finally:
            stopped = server.stop(home.path)
            process.terminate()
    assert stopped is not None


def test_a_labelled_version_that_does_not_load_fails_the_start(home: Home) -> None:
    decisions.promote(home.path, 2)
    home.stop()
    push(home.path, 5)
    assert not decisions.promote(home.path, 5).in_effect
    with pytest.raises(InputError, match="version 5 does not load: "):
        home.start()
    assert server.find(home.path) is None
    decisions.rollback(home.path)
    home.start()
    assert home.served() == (2, 2, 2)


@embedded_only
def test_a_server_that_verifies_nothing_takes_changes(home: Home) -> None:
    """`up --unproven` serves folders that no run pushed; a change of the release must not wait for them to go."""
    home.stop()
    shutil.copytree(home.model, folder(home.path, 5))
    server.start(Setup(home.path, free_port(), free_port(), unproven=True), home.backend)
    wait_for(lambda: home.newest() == 5)
    assert not decisions.unpin(home.path).changed
    decisions.promote(home.path, 3)
    assert home.served() == (3, 3, 3)
    decisions.unpin(home.path)
    wait_for(lambda: home.newest() == 5)
    home.stop()


@embedded_only
def test_folders_above_the_good_version_that_no_run_pushed_are_not_served(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.stop()
    base = folder(home.path, 4).parent
    (base / "5").symlink_to("nowhere")
    (base / "6").symlink_to("nowhere")
    shutil.copytree(home.model, base / "7")  # complete, but not blessed
    push(home.path, 8, home.model, blessed=False)
    os.mkfifo(base / "7" / "fifo")
    os.mkfifo(push(home.path, 9, home.model) / "fifo")
    try:
        with pytest.raises(InputError, match="9/fifo: not a regular file"):
            home.start()
        shutil.rmtree(base / "9")
        home.start()
        assert "pushed by no run, so not served: 5, 6, 7, 8" in capsys.readouterr().err
        assert home.newest() == 4
        push(home.path, 9, home.model)
        wait_for(lambda: home.newest() == 9)
        decisions.promote(home.path, 4)
        assert home.served() == (4, 4, 4)
        os.mkfifo(base / "9" / "fifo")
        with pytest.raises(InputError, match="9/fifo: not a regular file"):
            decisions.promote(home.path, 9)
        (base / "9" / "fifo").unlink()
        decisions.unpin(home.path)
        assert home.newest() == 9
    finally:
        for name in "56789":
            path = base / name
            path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
