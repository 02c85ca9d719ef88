"""A home's server in a container, by docker or podman.

The container is named after its home, and only the engine starts, finds and stops it. So nothing depends on a client
process, which may be killed while the container keeps running.
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from components.common.container_engine import IMAGE, call, pull_command
from components.common.errors import InputError
from components.common.signals import postponed

LABEL: Final = "mnist-tfx.home"
PULL_TIMEOUT_S: Final = 1800
STOP_GRACE_S: Final = 5  # the requests in flight have been answered before
SAVED_LINES: Final = 1000


@dataclass(frozen=True)
class Container:
    """A container that may exist or not. All methods raise InputError if the engine fails or does not respond."""

    engine: str
    name: str

    @classmethod
    def of(cls, engine: str, owner: Path) -> Container:
        """Return the container of a folder. Two folders never share one."""
        return cls(engine, f"mnist-tfx-{hashlib.sha256(str(owner).encode()).hexdigest()[:12]}")

    def __str__(self) -> str:
        return f"{self.engine} container {self.name}"

    @property
    def log_command(self) -> str:
        return f"{self.engine} logs {self.name}"

    def state(self, attempts: int = 3) -> str | None:
        """Return the engine's word for its state, such as "running" or "exited"; None if it does not exist."""
        try:
            return call(self.engine, "container", "inspect", "--format", "{{.State.Status}}", self.name).strip()
        except InputError:
            if not call(self.engine, "ps", "--all", "--quiet", "--filter", f"name=^{self.name}$"):
                return None
            if attempts == 1:
                raise
        time.sleep(0.2)  # it is being created
        return self.state(attempts - 1)

    def is_running(self) -> bool:
        return self.state() in ("running", "paused", "stopping")

    def run(self, image: str, entrypoint: str, flags: Sequence[str], options: Sequence[str], owner: Path) -> None:
        """Start it in the background. A container of the same name is removed first: it was left behind."""
        with postponed():  # an engine that is interrupted halfway may still create the container
            self.remove()
            call(
                *(self.engine, "run", "--detach", "--init", "--pull", "never", "--name", self.name),
                *("--label", f"{LABEL}={owner}", "--entrypoint", entrypoint, *options, image, *flags),
            )

    def wait(self) -> int:
        """Wait until it ends and return its exit code. Prints its log on stdout and stderr meanwhile."""
        with subprocess.Popen([self.engine, "logs", "--follow", self.name], stdin=subprocess.DEVNULL) as log:
            try:
                return int(call(self.engine, "wait", self.name, timeout_s=None))
            finally:
                log.terminate()

    def logs(self, lines: int) -> str:
        return call(self.engine, "logs", "--tail", str(lines), self.name, with_stderr=True)

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL STOP_GRACE_S later."""
        call(self.engine, "stop", "-t", str(STOP_GRACE_S), self.name)

    def remove(self, log_file: Path | None = None) -> None:
        """Kill and remove it if it exists, after appending its log to `log_file`."""
        if self.state() is None:
            return
        if log_file is not None:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            with open(log_file, "a") as file:
                file.write(self.logs(SAVED_LINES))
        call(self.engine, "rm", "--force", self.name)


def pull(engine: str) -> None:
    """Pull TensorFlow Serving's image; the engine shows its progress on stderr. Raises InputError."""
    print(f"pulling {IMAGE}", file=sys.stderr, flush=True)
    try:
        code = subprocess.run(
            [engine, "pull", IMAGE], stdin=subprocess.DEVNULL, stdout=2, timeout=PULL_TIMEOUT_S, check=False
        ).returncode
    except subprocess.TimeoutExpired as e:
        raise InputError(f"{pull_command(engine)}: not done within {PULL_TIMEOUT_S} s") from e
    if code:
        raise InputError(
            f"{pull_command(engine)} failed with exit code {code}; {engine} printed the reason above",
            "Get the image on a machine that reaches its registry and load it here "
            f"({engine} save, {engine} load), or choose another backend: --backend embedded",
        )


def mount(source: Path, target: str) -> str:
    """Return the value of --mount for a read-only folder, whatever characters its path contains."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={source}", f"target={target}", "readonly"])
    return line.getvalue()
