"""Runs `python -m MODULE ARGUMENTS` in forks of one process that has imported TFX, which takes 6 s of CPU each time.

Only third-party packages stay imported: a fork imports this project's packages again, from its own working folder.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OURS = ("components", "pipeline", "serving", "tests")
TIMEOUT_S = 600


class ModuleHost:
    """The client of a host process: the first request starts the process, `close` ends it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path,
    ) -> int:
        """Run a module with its output in files; return the exit code, as subprocess.run does."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.support.module_host"]
            root = Path(__file__).resolve().parents[2]
            self._process = subprocess.Popen(
                command, cwd=root, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin
        assert self._process.stdout
        request = {
            "module": module,
            "arguments": list(arguments),
            "cwd": str(cwd),
            "environment": dict(environment),
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


def main() -> None:
    import pipeline.dag  # noqa: F401  # all components
    from pipeline.kubeflow import entrypoint  # noqa: F401

    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(TIMEOUT_S)
            _become(request)
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(request: dict[str, Any]) -> None:
    """Give a fork the streams, environment, arguments and working folder of a new process."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    sources = [os.open(os.devnull, os.O_RDONLY), *(os.open(request[k], flags, 0o644) for k in ("stdout", "stderr"))]
    for target, source in enumerate(sources):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv = [request["module"], *request["arguments"]]
    tempfile.tempdir = None


if __name__ == "__main__":
    main()
