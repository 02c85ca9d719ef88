"""Create .venv from requirements.lock. Needs only Python with pip and venv, and make.

`make setup` runs `python3 tools/setup.py`. It uses the standard library only, because it runs before anything is
installed. Its last step writes a stamp. A run that finds the stamp does nothing; after an interrupted run there is
none, so the next run installs again.

Exit codes: 0 ready, 5 this machine lacks something (the message says what, and how to install it).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "setup.sha256"
EXIT_ENVIRONMENT = 5
LISTED = re.compile(rb" [+~-] ")  # a line of uv about one installed package
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")  # colours and movements of the cursor
MIN_FREE_BYTES = 6 * 1024**3  # the environment needs 3 GB, the wheel cache takes additional space


def refuse(problem: str, remedy: str) -> NoReturn:
    print(f"setup: {problem}\n       {remedy}", file=sys.stderr)
    raise SystemExit(EXIT_ENVIRONMENT)


def check_machine() -> None:
    """Check up front what would otherwise fail during the installation. Exits with EXIT_ENVIRONMENT."""
    version = sys.version_info[:2]
    if not (3, 11) <= version < (3, 14):
        refuse(
            f"Python {platform.python_version()} is outside 3.11 to 3.13, which TFX 1.21 supports.",
            "Use another interpreter: make setup PYTHON=python3.11",
        )
    if (sys.platform, platform.machine()) not in {("linux", "x86_64"), ("darwin", "arm64")}:
        refuse(
            f"{sys.platform} on {platform.machine()}: packages for TensorFlow 2.21 have no wheels for this platform.",
            "Use Linux on x86-64 or macOS on Apple silicon.",
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        refuse("This Python has no venv or no pip.", "Debian, Ubuntu: apt-get install python3-venv python3-pip")
    free = shutil.disk_usage(ROOT).free
    if not STAMP.exists() and free < MIN_FREE_BYTES:
        refuse(
            f"{free / 1024**3:.1f} GB free in {ROOT}, {MIN_FREE_BYTES / 1024**3:.0f} GB needed.",
            "Free some space, or clone to a larger disk.",
        )


def wanted_state() -> str:
    """Hash of everything that .venv depends on: the lock, the project's metadata, compat/, the interpreter."""
    digest = hashlib.sha256(f"{sys.version}|{ROOT}".encode())
    files = [LOCK, ROOT / "pyproject.toml", Path(__file__), *sorted((ROOT / "compat").rglob("*.*"))]
    for file in files:
        if "egg-info" not in str(file) and "build" not in file.parts:
            digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()


def has_cache(environment: Mapping[str, str]) -> bool:
    """Whether uv can have its cache where it wants it: without a writable home folder it would fail."""
    if environment.keys() & {"UV_CACHE_DIR", "XDG_CACHE_HOME"}:
        return True
    try:
        cache = Path.home() / ".cache" / "uv"
        cache.mkdir(parents=True, exist_ok=True)
        return os.access(cache, os.W_OK)
    except (OSError, RuntimeError):  # RuntimeError: no HOME, and the user has no name
        return False


def step(what: str, *command: str | Path) -> None:
    """Run one command and show its progress, without the list of installed packages."""
    started = time.monotonic()
    print(f"setup: {what} ...", file=sys.stderr, flush=True)
    # An active venv or PYTHONPATH must have no effect on .venv.
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}}
    if not has_cache(environment):
        environment["UV_CACHE_DIR"] = str(VENV / "cache")
    words = [str(part) for part in command]
    # On a terminal, uv draws bars with the bytes of each download: it must see a terminal as well.
    reader, writer = pty.openpty() if sys.stderr.isatty() else os.pipe()
    if sys.stderr.isatty():
        termios.tcsetwinsize(writer, termios.tcgetwinsize(sys.stderr.fileno()))
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=writer, stderr=writer) as process:
        os.close(writer)
        relay(reader)
    if process.returncode != 0:
        refuse(
            f"{what} failed (exit {process.returncode}); the lines above say why.",
            "Check the disk and the connection to the package registry, then run `make setup` again.",
        )
    print(f"setup: {what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def relay(reader: int) -> None:
    """Write what arrives to stderr, without the lines that list each package; closes the descriptor."""
    rest = b""
    with os.fdopen(reader, "rb", buffering=0) as source, contextlib.suppress(OSError):  # EIO: the end of a terminal
        while part := source.read(65536):
            *lines, rest = (rest + part).split(b"\n")
            shown = [line + b"\n" for line in lines if not LISTED.match(CONTROL.sub(b"", line))]
            if not CONTROL.sub(b"", rest).startswith(b" "):  # part of a bar, which is drawn before its line ends
                shown, rest = [*shown, rest], b""
            sys.stderr.buffer.write(b"".join(shown))
            sys.stderr.buffer.flush()


def uv_requirement() -> str:
    """uv's entry in the lock, with hashes: the installer is pinned like the packages."""
    found = re.search(r"^uv==.*\n(?: +--hash=.*\n)*", LOCK.read_text(), re.MULTILINE)
    if found is None:
        refuse("requirements.lock has no entry for uv.", "Restore the file, or regenerate it: make lock")
    return found.group(0)


def sync(uv: str | Path, python: Path, lock: Path) -> list[str | Path]:
    """The command that installs the packages of a lock. Source packages are built with the lock's setuptools only."""
    hashed = ("--require-hashes", "--build-constraints", lock)
    # Compile here: with PYTHONDONTWRITEBYTECODE set, every process would compile TFX again (16 s each).
    return [uv, "pip", "sync", "--python", python, *hashed, "--compile-bytecode", lock]


def install() -> None:
    STAMP.unlink(missing_ok=True)
    python, uv = VENV / "bin" / "python", VENV / "bin" / "uv"
    if not python.exists() or subprocess.run([python, "-c", ""], capture_output=True).returncode != 0:
        step("create .venv", sys.executable, "-m", "venv", "--clear", VENV)
    if not uv.exists():
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirement:
            requirement.write(uv_requirement())
            requirement.flush()
            pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes")
            step("install uv", *pip, "-r", requirement.name)
    step("install the locked packages (1 GB to download the first time)", *sync(uv, python, LOCK))
    local = (uv, "pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "--quiet")
    packages = ["--editable", "."]
    if sys.version_info < (3, 12) and sys.platform == "linux":
        packages.append("./compat")  # see compat/README.md
    step("install this project", *local, *packages)


def is_ready(state: str) -> bool:
    return STAMP.exists() and STAMP.read_text() == state


def main() -> None:
    check_machine()
    state = wanted_state()
    if is_ready(state):  # without the lock: the checkout may be read-only
        return
    # If two `make` processes run in one clone, the second waits here and then finds the stamp.
    try:
        descriptor = os.open(ROOT / ".setup.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # not through a link
    except OSError as e:
        refuse(
            f"{ROOT / '.setup.lock'} cannot be written ({e.strerror}).",
            "Run make setup as the owner, delete the file, or clone to another folder.",
        )
    with open(descriptor) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: waiting for another setup in this clone", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready(state):
            return
        started = time.monotonic()
        install()
        STAMP.write_text(state)
        print(f"setup: ready in {time.monotonic() - started:.0f} s, including downloads", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("setup: interrupted; run `make setup` again to continue", file=sys.stderr)
        sys.exit(130)
