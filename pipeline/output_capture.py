"""Write only our own lines to the terminal; all other output of this process goes to log files."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO


class Screen(TextIOWrapper):
    """One of the original standard streams. A closed pipe (`| head`) does not stop the run."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(os.fdopen(os.dup(descriptor), "wb"), encoding="utf-8", errors="replace", line_buffering=True)

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        self._discard_output()
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._discard_output()

    def _discard_output(self) -> None:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())


class OutputCapture:
    """Sends file descriptors 1 and 2 to a log file, so that output of C++ libraries goes there too.

    Attributes:
        stdout, stderr: the original streams, for our own lines.
        log_file: the current target of everything else.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.stdout: TextIO = Screen(1)
        self.stderr: TextIO = Screen(2)
        self.log_file = folder / "startup.log"

    def to(self, name: str) -> Path:
        """Redirect to `<folder>/<name>.log`."""
        self._flush()
        self.log_file = self._folder / f"{name}.log"
        with open(self.log_file, "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        return self.log_file

    def restore(self) -> None:
        self._flush()
        os.dup2(self.stdout.fileno(), 1)
        os.dup2(self.stderr.fileno(), 2)
        self.stdout.close()
        self.stderr.close()

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # a log file on a full disk
                stream.flush()


@contextmanager
def captured(folder: Path) -> Iterator[OutputCapture]:
    """Capture until the block ends. Python's own logging and warnings go to the files as well."""
    capture = OutputCapture(folder)
    capture.to("startup")
    handler = logging.StreamHandler()  # writes to sys.stderr, which is the log file
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    try:
        yield capture
    finally:
        capture.restore()
