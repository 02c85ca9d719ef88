"""Two processes that write to the same home."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.harness import wait_until
from components.versions import manifest
from components.versions.publish import publish
from tests.drills.faults.checks import NEWEST, expect, expect_exit
from tests.drills.probe import Probe
from tests.drills.product import Product, settings

PUSHES: Final = 5  # per process


def two_pushers(product: Product, probe: Probe) -> str:
    """Two processes push two models to the same folder."""
    before = product.versions()
    spawn = multiprocessing.get_context("spawn")
    pushers = [spawn.Process(target=_push, args=(product.base, version)) for version in before[-2:]]
    for pusher in pushers:
        pusher.start()
    for pusher in pushers:
        pusher.join(120)
        expect(pusher.exitcode == 0, f"a pusher ended with {pusher.exitcode}")
    new = product.versions()[len(before) :]
    expect(len(new) == 2 * PUSHES, f"{len(new)} versions instead of {2 * PUSHES}")
    expect(probe.is_served(new[-1]), f"version {probe.now} responds, but {new[-1]} is the newest")
    return f"{len(new)} versions under {len(new)} numbers, each complete"


def _push(base: Path, version: int) -> None:
    known = manifest.read(base / str(version))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        shutil.copytree(base / str(version), model, ignore=shutil.ignore_patterns(manifest.FILE_NAME))
        for count in range(PUSHES):
            (model / "pushed").write_text(f"{version} {count}")  # else publish would recognise the newest version
            publish(model, base, int(time.time()), lambda number, files: replace(known, version=number, files=files))


def second_run(product: Product, probe: Probe) -> str:
    """Two pipelines in one home."""
    first = product.start_run(*settings("train.seed=4"))
    lock = product.home / ".run.lock"
    expect(wait_until(lambda: lock.read_text() == str(first.pid)), "the first run does not start")
    second = product.run(*NEWEST)
    expect_exit(second, 5, "the second run")
    expect(first.wait() == 0, f"the first run: exit {first.returncode}")
    expect(probe.is_served(product.versions()[-1]), f"version {probe.now} responds")
    reason = second.stderr.splitlines()[0].removeprefix("error: ").replace(str(product.home), "the home")
    return f"the second: exit 5, {reason}; the first pushed"
