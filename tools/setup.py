"""Create .venv from requirements.lock. Needs only Python (pip, venv), make and a C++ compiler.

`python3 tools/setup.py` is what `make setup` runs. It uses the standard library alone, because it
runs before anything is installed. A second run finds the stamp that the first one wrote last and
does nothing; an interrupted run left no stamp, so the next one simply goes on.

Exit codes: 0 ready, 5 this machine lacks something (the message says what and how to get it).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "setup.sha256"
EXIT_ENVIRONMENT = 5
MIN_FREE_BYTES = 6 * 1024**3  # the environment takes 3 GB; its wheels are cached beside it


def refuse(problem: str, remedy: str) -> NoReturn:
    print(f"setup: {problem}\n       {remedy}", file=sys.stderr)
    raise SystemExit(EXIT_ENVIRONMENT)


def check_machine() -> None:
    """Refuse at once, in words, what would otherwise fail in the middle of an install."""
    version = sys.version_info[:2]
    if not (3, 11) <= version < (3, 14):
        refuse(
            f"Python {platform.python_version()} is outside 3.11 to 3.13, which TFX 1.21 supports.",
            "Name another interpreter: make setup PYTHON=python3.11",
        )
    if (sys.platform, platform.machine()) not in {("linux", "x86_64"), ("darwin", "arm64")}:
        refuse(
            f"{sys.platform} on {platform.machine()} has no wheels of TensorFlow 2.21's companions.",
            "Use Linux on x86-64 or macOS on Apple silicon.",
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        refuse("This Python has no venv or no pip.", "Debian, Ubuntu: apt-get install python3-venv python3-pip")
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        refuse(
            "No C++ compiler: two dependencies of TFX (pyfarmhash, rouge-score) come as source.",
            "Debian, Ubuntu: apt-get install g++    macOS: xcode-select --install",
        )
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        refuse("Python's C headers are missing (Python.h).", "Debian, Ubuntu: apt-get install python3-dev")
    free = shutil.disk_usage(ROOT).free
    if not STAMP.exists() and free < MIN_FREE_BYTES:
        refuse(
            f"{free / 1024**3:.1f} GB free in {ROOT}, {MIN_FREE_BYTES / 1024**3:.0f} GB needed.",
            "Free some space, or clone to a larger disk.",
        )


def wanted_state() -> str:
    """What .venv is made from: the lock, the project's metadata, the backfill, the interpreter."""
    digest = hashlib.sha256(f"{sys.version}|{ROOT}".encode())
    files = [LOCK, ROOT / "pyproject.toml", Path(__file__), *sorted((ROOT / "compat").rglob("*.*"))]
    for file in files:
        if "egg-info" not in str(file) and "build" not in file.parts:
            digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()


def step(what: str, *command: str | Path) -> None:
    """Run one command, showing its progress lines (without the list of every package installed)."""
    started = time.monotonic()
    print(f"setup: {what} ...", file=sys.stderr, flush=True)
    # Our own environment only: an active venv or PYTHONPATH must not leak into this one.
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}}
    words = [str(part) for part in command]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **output) as process:  # type: ignore[call-overload]
        for line in process.stdout:
            if not line.startswith((" + ", " - ", " ~ ")):
                print(f"  {line.strip()}", file=sys.stderr, flush=True)
    if process.returncode != 0:
        refuse(
            f"{what} failed (exit {process.returncode}); the lines above say why.",
            "Check the network to the package registry and the disk, then run `make setup` again.",
        )
    print(f"setup: {what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def uv_requirement() -> str:
    """The lock's own entry of uv, hashes included: the installer is as pinned as what it installs."""
    found = re.search(r"^uv==.*\n(?: +--hash=.*\n)*", LOCK.read_text(), re.MULTILINE)
    if found is None:
        refuse("requirements.lock does not name uv.", "Restore the file, or regenerate it: make lock")
    return found.group(0)


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
    # Compiled here because with PYTHONDONTWRITEBYTECODE set every process would compile TFX anew (16 s each).
    step(
        "install the locked packages (1 GB to download the first time)",
        *(uv, "pip", "sync", "--python", python, "--require-hashes", "--compile-bytecode", LOCK),
    )
    local = (uv, "pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "--quiet")
    packages = ["--editable", "."]
    if sys.version_info < (3, 12) and sys.platform == "linux":
        packages.append("./compat")  # see compat/README.md
    step("install this project", *local, *packages)


def main() -> None:
    check_machine()
    state = wanted_state()
    # Two `make` in one clone: the second waits here, then finds the stamp.
    with open(ROOT / ".setup.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another one is under way in this clone: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if STAMP.exists() and STAMP.read_text() == state:
            return
        started = time.monotonic()
        install()
        STAMP.write_text(state)
        print(f"setup: ready in {time.monotonic() - started:.0f} s, network included", file=sys.stderr)


if __name__ == "__main__":
    main()
