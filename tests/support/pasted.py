"""Commands that messages print, run as a user does who pastes them into a shell without the environment."""

from __future__ import annotations

import os
import re
import subprocess

from components.common.commands import launcher
from tests.conftest import ROOT
from tests.support.done import Done

_STARTS = "|".join(["make", *(re.escape(" ".join(launcher(program))) for program in ("pipeline", "serving"))])
_COMMAND = re.compile(rf"(?:^|[:;] )((?:{_STARTS}) .*)$", re.MULTILINE)


def printed_commands(output: str) -> list[str]:
    """The commands in the output; each is the rest of its line."""
    return _COMMAND.findall(output)


def paste(command: str) -> Done:
    """Run a printed command in the checkout. A make target is only looked up, because most of them take long."""
    shown = command.replace("make ", "make -n ", 1) if command.startswith("make ") else command
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(shown, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    return Done(done.returncode, done.stdout, done.stderr)
