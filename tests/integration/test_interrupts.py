"""Ctrl-C and SIGTERM in every command that waits: a word, exit code 130 or 143, no traceback, nothing left running."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from components.common.ports import free_port
from tests.conftest import ROOT, environment
from tests.support import saved_models
from tests.support.pushed import push
from tests.support.servers import wait_for

WAIT_S = 60.0
COMMANDS = ["up", "query", "replay", "promote", "shadow", "validate"]
SIGNALS = dict(zip(COMMANDS, [signal.SIGINT, signal.SIGTERM] * 3, strict=True))


class Interrupted(NamedTuple):
    """A command that was interrupted while it waited. left: what it had started and what still runs."""

    announced_s: float
    stderr: str
    code: int
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening


def served_home(home: Path, port: int) -> Path:
    """A home with two versions whose server is this process, on the silent port."""
    for version in (1, 2):
        push(home, version)
    (home / "serving").mkdir()
    (home / "serving" / "release.json").write_text(json.dumps({"stable": 1, "canary": 2}))
    created = psutil.Process().create_time()
    running = {"pid": os.getpid(), "created": created, "backend": "embedded", "why": "test", "log_file": "none"}
    (home / "serving" / "server.json").write_text(json.dumps({**running, "grpc_port": port, "rest_port": port}))
    return home


@pytest.fixture(scope="module")
def interrupted(silent: socket.socket, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Interrupted]:
    """All commands at once, because they mostly wait."""
    folder = tmp_path_factory.mktemp("interrupts")
    port = silent.getsockname()[1]
    images = folder / "images.npy"
    np.save(images, np.zeros((2, 28, 28), np.uint8))
    homes = {name: served_home(folder / name, port) for name in ("query", "promote", "shadow", "validate")}
    saved_models.write_slow(folder / "slow", seconds=60)
    push(folder / "up", 1, folder / "slow", blessed=False)
    ports = ["--grpc-port", str(free_port()), "--rest-port", str(free_port())]
    silent_ports = ["--grpc-port", str(port), "--rest-port", str(port)]
    commands = {
        "up": ["serving", "up", "--unproven", "--backend", "embedded", "--home", folder / "up", *ports],
        "query": ["serving", "query", "--home", homes["query"], "--data", data],
        "replay": ["serving", "replay", images, "--output", folder / "out.npz", *silent_ports],
        "promote": ["serving", "promote", "2", "--home", homes["promote"]],
        "shadow": ["serving", "canary", "--shadow", "5", "--home", homes["shadow"], "--data", data],
        "validate": ["pipeline", "validate", "--home", homes["validate"]],
    }
    assert list(commands) == COMMANDS
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # no Ctrl-C of the test's own terminal
        )
        for name, words in commands.items()
    }
    wait_for((folder / "up" / "serving" / "server.json").exists, WAIT_S)
    time.sleep(3)  # all have sent their first request
    found = {}
    for name, process in started.items():
        children = psutil.Process(process.pid).children(recursive=True)
        assert process.stderr is not None
        number = SIGNALS[name]
        process.send_signal(number)
        sent = time.monotonic()
        select.select([process.stderr], [], [], 5)
        found[name] = time.monotonic() - sent, children
    results = {}
    started["promote"].send_signal(SIGNALS["promote"])  # it restores the labels, which this server does not confirm
    for name, (announced_s, children) in found.items():
        stderr = started[name].communicate(timeout=30)[1].decode()
        left = psutil.wait_procs(children, timeout=2)[1]
        results[name] = Interrupted(announced_s, stderr, started[name].returncode, left)
        for process in left:
            process.kill()
    return results


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_waits_can_be_interrupted(interrupted: dict[str, Interrupted], name: str) -> None:
    found = interrupted[name]
    assert found.stderr.startswith("stopping...\n")
    assert found.announced_s < 1  # 0.3 s on an idle machine
    assert "Traceback" not in found.stderr
    assert found.code == 128 + SIGNALS[name]
    assert found.left == []


def test_while_the_command_starts_there_is_no_traceback() -> None:
    for delay_s in (0.08, 0.12, 0.16, 0.2):
        with subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "serving", "--help"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.rstrip().endswith("components.common.signals"):
                    break  # the handlers are about to be installed; typer is next
            time.sleep(delay_s - 0.07)
            process.send_signal(signal.SIGINT)
            assert "Traceback" not in process.stderr.read()
