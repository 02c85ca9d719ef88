"""Keep the screen for our own lines: all other output of this process goes to log files."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


class OutputCapture:
    """Sends file descriptors 1 and 2 to a log file, so that C++ libraries' lines go there too.

    Attributes:
        stdout, stderr: the streams as they were, for our own lines.
        log_file: where everything else goes now.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.stdout: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        self.stderr: TextIO = os.fdopen(os.dup(2), "w", encoding="utf-8", buffering=1)
        self.log_file = folder / "startup.log"

    def to(self, name: str) -> Path:
        """From now on, write to `<folder>/<name>.log`."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.log_file = self._folder / f"{name}.log"
        with open(self.log_file, "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        return self.log_file

    def restore(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(self.stdout.fileno(), 1)
        os.dup2(self.stderr.fileno(), 2)
        self.stdout.close()
        self.stderr.close()


@contextmanager
def captured(folder: Path) -> Iterator[OutputCapture]:
    """Capture until the block ends. Python's own logging and warnings go to the files as well."""
    capture = OutputCapture(folder)
    capture.to("startup")
    handler = logging.StreamHandler()  # sys.stderr, that is: the log file
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    try:
        yield capture
    finally:
        capture.restore()
