"""`python -m pipeline ...` in this process, for commands that import no TFX: a new process takes a second."""

from __future__ import annotations

import io
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from components.common import command_line
from pipeline.__main__ import app
from tests.support.done import Done


def in_process(*arguments: str | Path) -> Done:
    """Run a command of the pipeline in the test's environment."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    handler = signal.getsignal(signal.SIGTERM)
    try:
        argv = mock.patch.object(sys, "argv", ["pipeline", *map(str, arguments)])
        with argv, redirect_stdout(stdout), redirect_stderr(stderr):
            command_line.run(app)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    return Done(code, stdout.getvalue(), stderr.getvalue())
