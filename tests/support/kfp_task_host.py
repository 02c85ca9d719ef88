"""Runs tasks of a compiled package, each in a fork of this process, which has imported TFX once for all of them.

Reads one JSON object per line from stdin: args of the entrypoint, cwd, env, log (file for stdout and stderr). Writes
the exit code of each task as a line on stdout.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile

import pipeline.dag  # noqa: F401  # all components
from pipeline.kubeflow import entrypoint

TASK_TIMEOUT_S = 600


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(TASK_TIMEOUT_S)
            _become_task(request)
            sys.exit(entrypoint.main(request["args"]))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become_task(request: dict[str, object]) -> None:
    """Give a fork the streams, environment and working folder of a new process."""
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(str(request["log"]), os.O_WRONLY | os.O_CREAT, 0o644)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]
    os.chdir(str(request["cwd"]))
    tempfile.tempdir = None


if __name__ == "__main__":
    main()
