"""Runs a home's server in the foreground: this process becomes the server, or waits for its container."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

from components.common.command_line import say
from components.common.commands import command
from components.common.errors import InputError
from components.common.signals import only_raised, postponed
from serving.launch import backends, server
from serving.launch.backends import Choice, Preferred, Setup
from serving.launch.prepare import prepare
from serving.launch.server import Running

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def serve(setup: Setup, preferred: Preferred, parent: int | None) -> NoReturn:
    """Serve until the server ends or SIGTERM or Ctrl-C arrives. Exits with the server's exit code; 0 after a signal.

    Args:
        parent: process ID of the caller, with which the server is to end; its image is then never pulled.

    Raises:
        InputError: a server of the home is running, or the server cannot be started.
    """
    if parent is not None:
        _exit_with(parent)
    choice, own = register(setup, preferred, pull=parent is None)
    say(f"serving with the {choice.name} backend ({choice.why})")
    if choice.name != "container":
        words = backends.command(choice, setup)
        os.execvpe(words[0], words, backends.environment(choice))
    with only_raised():
        try:
            backends.run_container(choice, setup)
            code = backends.container_of(choice.program, setup).wait()
        except KeyboardInterrupt:
            code = 0
        finally:
            with postponed():  # a second signal must not leave the container behind
                server.stop_own(setup.home, own, drained=parent is not None)
    sys.exit(code)


def register(setup: Setup, preferred: Preferred, *, pull: bool = True) -> tuple[Choice, Running]:
    """Prepare for this process to become the server, and register it as the home's. Raises InputError."""
    with server.locked(setup.folder):
        running = server.find(setup.home)
        if running and not running.stopping:
            raise InputError(f"{running} already serves this home", f"Stop it first: {command('serving', 'down')}")
        server.stop(setup.home)
        choice = prepare(setup, preferred, pull=pull)
        return choice, server.register(choice, setup, os.getpid(), "its terminal")


def _exit_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent process ends, for whatever reason (Linux only).

    Args:
        parent: the parent's process ID, to detect that it ended before this call.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)
