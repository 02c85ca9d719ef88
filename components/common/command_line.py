"""Shared by the two command lines: options, printing, and error messages with documented exit codes."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from components.common import commands
from components.common.commands import DEFAULT_HOME as DEFAULT_HOME
from components.common.errors import UserError, from_os_error
from components.common.files import check_utf_8
from components.common.signals import ANNOUNCEMENT, Stop


def _home(text: str | Path) -> Path:  # typer passes the default as a Path
    if not str(text).strip():
        raise typer.BadParameter("is empty; name a folder")
    check_utf_8(Path(text))
    commands.use_home(Path(text))
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


def application(program: str, help_text: str) -> typer.Typer:
    return typer.Typer(
        name=program,
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


def say_next(program: str, subcommand: str, *arguments: object) -> None:
    """Print the command that usually follows, as the last line of a command that went well."""
    say(f"next: {commands.command(program, subcommand, *arguments)}")


def wrapped(text: str, indent: str = "  ") -> str:
    """The text with lines broken between words if stdout is a terminal; else each stays one line, for grep.

    Args:
        indent: of continued lines.
    """
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    rows = (textwrap.wrap(row, width, subsequent_indent=indent, break_on_hyphens=False) for row in text.splitlines())
    return "\n".join(line for row in rows for line in row)


def run(app: typer.Typer) -> None:
    """Run the app and end the process.

    A UserError becomes its message on stderr and its exit code. Ctrl-C and SIGTERM become "stopping..." and exit code
    130 or 143; the command gets the Stop as `context.obj`.
    """
    _open_standard_streams()
    _name_home_folder()
    _keep_files_from_others()
    commands.use_home(DEFAULT_HOME)
    program = str(app.info.name)
    for info in app.registered_commands:
        info.help = _help(info.callback)
    code: str | int | None = 0
    stop, stderr = Stop(), os.dup(2)  # a command may redirect descriptor 2 to a log file
    try:
        with stop.installed(lambda: os.write(stderr, ANNOUNCEMENT)):
            app(prog_name=shlex.join(commands.launcher(program)), obj=stop)
    except SystemExit as e:
        code = e.code
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        code = e.exit_code
    except BrokenPipeError:
        _discard_stdout()
    except OSError as e:
        problem = from_os_error(e)
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        code = problem.exit_code
    except KeyboardInterrupt:
        pass
    os.close(stderr)
    sys.exit(code if stop.number is None else stop.exit_code)


def _help(command: object) -> str:
    """The command's docstring; its examples start this program as a user can in this folder, each on one line."""
    text = re.sub(
        r"mnist-(pipeline|serving)", lambda m: shlex.join(commands.launcher(m[1])), inspect.getdoc(command) or ""
    )
    return text.replace("\n\nExample", "\n\n\b\nExample")


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
