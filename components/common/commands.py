"""The commands that messages tell the user to run, as they can be pasted; and the first steps of a command line.

Uses the standard library only: it runs before the packages of the project are known to be installed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from components.common import ROOT, signals

DEFAULT_HOME: Final = Path("workspace")
EXIT_ENVIRONMENT: Final = 5
VENV_BIN: Final = ROOT / ".venv" / "bin"
MAKE_TARGETS: Final = {
    ("pipeline", "run"): "pipeline",
    ("pipeline", "report"): "report",
    ("pipeline", "validate"): "validate",
    ("pipeline", "doctor"): "doctor",
    ("pipeline", "tensorboard"): "tensorboard",
    ("serving", "up"): "serve",
    ("serving", "down"): "stop",
    ("serving", "query"): "query",
}

_home = DEFAULT_HOME


def use_home(home: Path) -> None:
    """Set the home of the running command, which the commands that it prints refer to."""
    global _home
    _home = home


def begin(program: str) -> None:
    """The first step of `python -m pipeline` and `python -m serving`, before any import that takes time.

    From here on Ctrl-C and SIGTERM cause no traceback. Without the project's packages, as with a Python outside of
    .venv, the process ends with one line that says what to run.
    """
    signals.exit_at_once()
    if find_spec("typer") is not None:
        return
    words = [*launcher(program, VENV_BIN / "python"), *sys.argv[1:]]
    setup = shlex.join(["make", "-C", str(ROOT), "setup"])
    remedy = f"run: {shlex.join(words)}" if (VENV_BIN / "python").exists() else f"first run: {setup}"
    print(f"error: {sys.executable} does not have the packages of this project; {remedy}", file=sys.stderr)
    raise SystemExit(EXIT_ENVIRONMENT)


def command(program: str, subcommand: str, *arguments: object) -> str:
    """A command as the user can paste it in this folder: a make target if there is one, else the installed script.

    Args:
        program: "pipeline" or "serving".
        arguments: further words; `--home` is added if the running command's home is not the default.
    """
    words = [str(argument) for argument in arguments]
    folder = _folder() or Path()
    if folder / _home != folder / (os.environ.get("MNIST_TFX_HOME") or DEFAULT_HOME):
        words += ["--home", str(_home)]
    target = MAKE_TARGETS.get((program, subcommand))
    if target is not None and folder == ROOT and (ROOT / "Makefile").is_file():
        options = shlex.join(words).replace("$", "$$")
        return f"make {target} ARGS={shlex.quote(options)}" if words else f"make {target}"
    return shlex.join([*launcher(program), subcommand, *words])


def launcher(program: str, python: Path | None = None) -> list[str]:
    """The words that start a program of ours from this folder: its script beside `python`, else `python -m`."""
    python = python or Path(sys.executable)
    script = python.with_name(f"mnist-{program}")
    if not script.is_file():
        return [_relative(python), "-m", program]
    return [script.name] if shutil.which(script.name) == str(script) else [_relative(script)]


def _relative(path: Path) -> str:
    folder = _folder()
    if folder is None or not path.is_relative_to(folder):
        return str(path)
    return ("./" if path.parent == folder else "") + str(path.relative_to(folder))


def _folder() -> Path | None:
    """The current folder; None if it has been deleted."""
    try:
        return Path.cwd()
    except OSError:
        return None
