"""Checks where the real MNIST can be had: in the home, from the mirrors, from npm."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from components.common.home import Home
from components.common.settings import REAL_MNIST
from components.data import mirrors, mnist
from pipeline.doctor.finding import Finding

TIMEOUT_S: Final = 3.0
PROBE: Final = "t10k-labels-idx1-ubyte.gz"  # the smallest file


def data(home: Home, *, offline: bool) -> Iterator[Finding]:
    folder = home.data(REAL_MNIST)
    missing = mnist.missing(folder)
    if not missing:
        yield Finding("data", "ok", f"MNIST is in {folder}, all four files as published")
        return
    by_hand = f"put {', '.join(missing)} into {folder}, or name a folder that has them: --set data.source=DIR"
    if offline:
        yield Finding("data", "warning", f"{len(missing)} MNIST files are missing; sources not checked", by_hand)
        return
    asked = {base: partial(_mirror_problem, base) for base in mirrors.MIRRORS} | {"npm": _npm_problem}
    with ThreadPoolExecutor(len(asked)) as pool:
        problems = dict(zip(asked, pool.map(lambda ask: ask(), asked.values()), strict=True))
    reached = [source for source, problem in problems.items() if problem is None]
    if reached:
        yield Finding("data", "ok", f"MNIST can be downloaded from {reached[0]}")
    else:
        found = "MNIST cannot be downloaded: " + "; ".join(f"{source}: {why}" for source, why in problems.items())
        yield Finding("data", "error", found, by_hand)


def _mirror_problem(base: str) -> str | None:
    try:
        request = urllib.request.Request(f"{base}{PROBE}", method="HEAD")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=mirrors.tls_context()):
            return None
    except (OSError, ValueError) as e:
        return mirrors.reason(e)


def _npm_problem() -> str | None:
    npm = shutil.which("npm")
    if npm is None:
        return "not installed"
    try:
        command = [npm, "view", mirrors.NPM_PACKAGE, "version", "--fetch-retries=0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"no response within {TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
