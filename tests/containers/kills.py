"""Journeys with `kill -9`: each process in turn, and what the next command makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Final

from components.common.container_engine import call
from components.common.errors import InputError
from components.common.ports import version_states
from serving.launch.container import Container
from tests.containers.journal import Journal
from tests.containers.product import Home, launch
from tests.support.servers import wait_for

START_S: Final = 120.0
GONE_S: Final = 30.0
PARENT: Final = "import os, subprocess, sys; subprocess.run([*sys.argv[1:], '--with-parent', str(os.getpid())])"


def serving(journal: Journal, home: Home) -> None:
    """Kills what is behind a server in the background and in the foreground."""
    step = journal.step
    step("kill -9 of `up` while it starts", "killed, then up: exit 0, containers 1", lambda: _kill_up(home))
    if home.engine == "podman":
        step("kill -9 of conmon", "status exit 0, down exit 0, containers 0", lambda: _kill_conmon(home))
    step("kill -9 of the server", "status exit 5, up exit 0, containers 1", lambda: _kill_server(home))
    step("down", "exit 0, containers 0", lambda: _down(home))
    step("kill -9 of `up --foreground`", "status exit 0, down exit 0, containers 0", lambda: _kill_foreground(home))
    step("SIGTERM to `up --foreground`", "exit 0, containers 0", lambda: _terminate_foreground(home))
    step("kill -9 of the parent of `up --with-parent`", "containers 0", lambda: _kill_parent(home))


def pipeline(journal: Journal, home: Home) -> None:
    """Kills a run and all its processes while InfraValidator's container runs."""
    journal.step("kill -9 of a run in InfraValidator", "killed, containers 1", lambda: _kill_run(home))
    journal.step("the next run", "exit 0, containers 0", lambda: _next_run(home))


def _kill_up(home: Home) -> str:
    process = launch(home.up_command())
    wait_for(lambda: home.container.state() is not None, START_S)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f"killed, then up: exit {home.up().code}, containers {home.containers()}"


def _kill_conmon(home: Home) -> str:
    monitor = call(home.engine, "container", "inspect", "--format", "{{.State.ConmonPid}}", home.container.name)
    os.kill(int(monitor), signal.SIGKILL)
    return f"{_status(home)}, down {_down(home)}"


def _kill_server(home: Home) -> str:
    if home.container.state() is None:
        home.up()
    # All processes in the container but its init, which then ends.
    with suppress(InputError):  # the shell is among them
        call(home.engine, "exec", home.container.name, "sh", "-c", "kill -9 -1")
    wait_for(lambda: not home.container.is_running(), GONE_S)
    return f"{_status(home)}, up exit {home.up().code}, containers {home.containers()}"


def _kill_foreground(home: Home) -> str:
    process = launch(home.up_command("--foreground"))
    _wait_available(home)
    process.kill()
    process.wait()
    return f"{_status(home)}, down {_down(home)}"


def _terminate_foreground(home: Home) -> str:
    process = launch(home.up_command("--foreground"))
    _wait_available(home)
    process.terminate()
    return f"exit {process.wait(GONE_S)}, containers {home.containers()}"


def _kill_parent(home: Home) -> str:
    command = [sys.executable, "-c", PARENT, *home.up_command("--foreground")]
    parent = launch(command)
    _wait_available(home)
    parent.kill()
    parent.wait()
    wait_for(lambda: home.containers() == 0, GONE_S)
    return f"containers {home.containers()}"


def _kill_run(home: Home) -> str:
    validation = Container.of(home.engine, home.path / "artifacts" / "InfraValidator" / "blessing")
    process = launch(home.run_command("train.steps=130"))
    wait_for(lambda: validation.is_running() or process.poll() is not None, START_S)
    children = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True, check=False)
    for pid in children.stdout.split():  # the run, its nodes and `up`, which is to have no time to clean up
        os.kill(int(pid), signal.SIGKILL)
    process.wait()
    return f"killed, containers {home.containers()}"


def _next_run(home: Home) -> str:
    return f"exit {home.pipeline('train.steps=130').code}, containers {home.containers()}"


def _status(home: Home) -> str:
    return f"status exit {home.serving('status').code}"


def _down(home: Home) -> str:
    return f"exit {home.serving('down').code}, containers {home.containers()}"


def _wait_available(home: Home) -> None:
    wait_for(lambda: any(state["state"] == "AVAILABLE" for state in version_states(home.rest_port)), START_S)
