"""Shared by the two command lines: options, printing, and error messages with documented exit codes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer

from components.common.errors import InputError, UserError, from_os_error
from components.common.signals import Terminated

EXIT_INTERRUPTED: Final = 130  # Ctrl-C
EXIT_TERMINATED: Final = 143  # SIGTERM
DEFAULT_HOME: Final = Path("workspace")


def _home(text: str | Path) -> Path:  # typer passes the default as a Path
    if not str(text).strip():
        raise typer.BadParameter("is empty; name a folder")
    try:
        os.path.realpath(text).encode()
    except UnicodeEncodeError:
        raise InputError(f"{text}: the home's path is not valid UTF-8", "Name another home: --home DIR") from None
    return Path(text)


HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="MNIST_TFX_HOME",
        parser=_home,
        metavar="DIR",
        help="Folder for data, metadata, artifacts and models.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, the rest on stderr.")]


def application(help_text: str) -> typer.Typer:
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def say(text: str) -> None:
    """Print a line on stdout. A closed pipe (`| head`) is not an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _discard_stdout()
    except OSError as e:
        _discard_stdout()
        print(f"error: stdout cannot be written ({e.strerror})", file=sys.stderr)


def run(app: typer.Typer) -> None:
    """Run the app. A UserError becomes its message on stderr and its exit code."""
    _open_standard_streams()
    _name_home_folder()
    _keep_files_from_others()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(standalone_mode=True)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except BrokenPipeError:
        _discard_stdout()
    except OSError as e:
        problem = from_os_error(e)
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)


def _terminate(_: int, __: FrameType | None) -> None:
    raise Terminated


def _open_standard_streams() -> None:
    """Replace closed standard streams with /dev/null, so that no other file gets descriptor 0, 1 or 2."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # for the rest of the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _keep_files_from_others() -> None:
    """Replace a umask that lets everyone change new files, such as 000, by 022 at least."""
    before = os.umask(0o077)
    os.umask(before if before & 0o002 else before | 0o022)


def _name_home_folder() -> None:
    """If there is no HOME and the user has no name, as in some containers, `import tfx` would fail."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"


def _discard_stdout() -> None:
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
