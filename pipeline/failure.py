"""The message about a failed node: the root exception, our file and line, the log file."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Final

from components.common import ROOT
from components.common.errors import CHANGE_PERMISSIONS, DISK_FULL, InputError, UserError, from_os_error

_OUR_FRAME: Final = re.compile(r'File "([^"]*/(?:components|pipeline)/[^"]+\.py)", line (\d+)')
DATABASE_LOCKED: Final = ("another process has locked metadata.sqlite", "Wait for it to end, then run again.")
_IN_TEXT: Final = {  # of errors of C++ libraries: the problem and what to do
    "No space left on device": DISK_FULL,
    "Disk quota exceeded": DISK_FULL,
    "database or disk is full": DISK_FULL,  # SQLite
    " requested and ": DISK_FULL,  # NumPy: "235200 requested and 135040 written"
    "database is locked": DATABASE_LOCKED,
    "Concurrent writes aborted after max number of retries": DATABASE_LOCKED,  # ML Metadata, after some 20 s
    "readonly database": ("metadata.sqlite cannot be written", CHANGE_PERMISSIONS),
}


def explain(node_id: str, error: BaseException, log_file: Path | None) -> tuple[str, int]:
    """The error message (a few lines) and the exit code. `log_file` is None if the message goes to the log itself."""
    root = root_cause(error)
    see_log = f"\nLog: {log_file}" if log_file else ""
    if isinstance(root, UserError):
        return f"{node_id}: {root}{see_log}", root.exit_code
    text = "".join(traceback.format_exception(error))
    in_text = (InputError(*message) for words, message in _IN_TEXT.items() if words in text)
    if (known := from_os_error(root) or next(in_text, None)) is not None:
        return f"{node_id}: {known}{see_log}", known.exit_code
    where = our_line(root) or our_line(error) or "outside our code"
    return f"{node_id} failed: {type(root).__name__}: {_first_line(root)}\nAt: {where}{see_log}", 1


def root_cause(error: BaseException) -> BaseException:
    """The innermost exception of a chain; a UserError anywhere in the chain takes precedence."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    return next((e for e in chain if isinstance(e, UserError)), chain[-1])


def our_line(error: BaseException) -> str | None:
    """`components/trainer.py:123`: our innermost frame. Beam keeps some tracebacks only as text."""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    ours = [(name, number) for name, number in frames if _is_ours(name)]
    ours += [(name, int(number)) for name, number in _OUR_FRAME.findall(str(error)) if _is_ours(name)]
    if not ours:
        return None
    name, number = ours[-1]
    return f"{Path(name).resolve().relative_to(ROOT)}:{number}"


def _is_ours(name: str) -> bool:
    """Whether a frame is in our code, except in the runner, which is in every node's traceback."""
    path = Path(name).resolve()
    in_packages = any(path.is_relative_to(ROOT / package) for package in ("components", "pipeline"))
    return in_packages and path.name not in {"local_runner.py", "run.py"}


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else "(no message)"
