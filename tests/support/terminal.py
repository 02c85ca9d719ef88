"""Runs a command on a pseudo-terminal of a given size, as in a user's window."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.conftest import ROOT, environment

_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


@dataclass(frozen=True)
class Screen:
    """What was written; `lines` are without control sequences, each redrawn line as often as it was drawn."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in re.split(r"\r?\n|\r", _CONTROL.sub("", self.raw))]


def on_terminal(command: Sequence[str], columns: int = 80, rows: int = 24, **variables: str) -> Screen:
    """Run a command whose stdout and stderr are a terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    variables = {"TERM": "xterm-256color"} | variables
    env = {k: v for k, v in environment().items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | variables
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, cwd=ROOT, env=env) as process:
        os.close(follower)
        written = b""
        with suppress(OSError):  # at the end of the last process on it
            while part := os.read(leader, 65536):
                written += part
    os.close(leader)
    return Screen(process.returncode, written.decode(errors="replace"))
