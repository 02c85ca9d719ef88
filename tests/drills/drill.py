"""One drill: a fault in a home that is being served, and the conditions that must hold during and after it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import wait_until
from tests.drills.faults.checks import NEWEST, DrillFailed, expect, expect_exit
from tests.drills.probe import Probe, probing
from tests.drills.product import Product, settings
from tests.support.synthetic import write_data_set

Fault = Callable[[Product, Probe], str]


@dataclass(frozen=True)
class Row:
    """The result of a drill.

    Attributes:
        fault: name of the fault.
        happened: description of what happened.
        before, after, repeated: the version that responded before the fault, after it, and after the pipeline was
            run again: v1, v2, ... by age.
        answered: number of requests that were answered during the drill.
        problems: violated conditions; [] if the drill passed.
    """

    fault: str
    happened: str
    before: str
    after: str
    repeated: str
    answered: int
    problems: list[str]


class DrillHome:
    """Data, and a home with two pushed versions that is restored before each drill."""

    def __init__(self, folder: Path) -> None:
        data = folder / "data"
        self.product = Product(folder / "home", data if data.is_dir() else write_data_set(data))
        self._pristine = folder / "pristine"
        if not self._pristine.is_dir():
            shutil.rmtree(self.product.home, ignore_errors=True)
            for arguments in (settings("train.seed=1"), NEWEST):
                done = self.product.run(*arguments)
                if done.code:
                    raise RuntimeError(done.stderr)
            shutil.copytree(self.product.home, self._pristine)

    def restore(self) -> None:
        """Copy the pristine home to the same path, because MLMD stores absolute paths."""
        for mounted in (self.product.base, self.product.home.parent / "disk"):
            if os.path.ismount(mounted):
                subprocess.run(["umount", mounted], check=True)
        shutil.rmtree(self.product.home, ignore_errors=True)
        shutil.copytree(self._pristine, self.product.home)

    def run(self, name: str, fault: Fault) -> Row:
        """Inject a fault, check, run the pipeline again and validate."""
        self.restore()
        product, problems, happened = self.product, [], ""
        with probing(product) as probe:
            before = after = repeated = probe.now
            try:
                happened = fault(product, probe)
                probe.settle()
                after = probe.now
                _run_again(product, probe)
                repeated = probe.now
            except DrillFailed as e:
                problems.append(str(e))
            problems += probe.violations + probe.failures[:3]
            if not wait_until(lambda: not product.leftover_processes()):
                problems.append(f"processes {product.leftover_processes()} are left")
        ages = {version: f"v{age}" for age, version in enumerate(product.versions(), 1)}
        served = {"before": before, "after": after, "repeated": repeated}
        self.restore()
        return Row(
            fault=name,
            happened=happened,
            **{when: ages.get(version or 0, "none") for when, version in served.items()},
            answered=probe.answered,
            problems=problems,
        )


def _run_again(product: Product, probe: Probe) -> None:
    """Without any clean-up: exit code 0, the newest version responds and is valid, MLMD has no unfinished execution."""
    expect_exit(product.run(*NEWEST), 0, "run again")
    expect(not product.unfinished_executions(), "MLMD has unfinished executions")
    newest = product.versions()[-1]
    expect(probe.is_served(newest), f"version {probe.now} responds, but {newest} is the newest")
    expect_exit(product.validate(), 0, "validate after the rerun")
