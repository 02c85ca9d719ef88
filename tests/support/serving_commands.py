"""The commands of `python -m serving` in this process, without starting another one."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from pathlib import Path

import pytest

from components.common import command_line
from serving.__main__ import app
from tests.support.done import Done


def run(*arguments: str | Path) -> Done:
    """Run `python -m serving ARGUMENTS`."""
    handler = signal.getsignal(signal.SIGTERM)
    stdout, stderr = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MNIST_TFX_HOME", raising=False)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["serving", *map(str, arguments)])
        try:
            with (
                contextlib.redirect_stdout(stdout),
                contextlib.redirect_stderr(stderr),
                pytest.raises(SystemExit) as ended,
            ):
                command_line.run(app)
        finally:
            signal.signal(signal.SIGTERM, handler)
    texts = []
    for stream in (stdout, stderr):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Done(int(ended.value.code or 0), *texts)
