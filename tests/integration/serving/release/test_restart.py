"""Labels across restarts of the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from components.common.errors import InputError
from components.common.ports import free_port, version_states
from serving.launch import server
from serving.release import decisions
from tests.conftest import ROOT, environment
from tests.integration.serving.release.home import Home
from tests.support.pushed import push
from tests.support.servers import wait_for


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
