"""One drill: a fault against a home that is being served, and what must hold during it and after it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.drills.faults import GOOD, STRICT, Surprise, expect
from tests.drills.product import Product, Watch, wait_until, watched
from tests.support.synthetic import write_data_set

Fault = Callable[[Product, Watch], str]
FIRST: Final = (*STRICT, "--set", "train.seed=1")


@dataclass(frozen=True)
class Row:
    """What a drill found.

    Attributes:
        fault: its name.
        happened: in words.
        before, after, repeated: the version that answered before the fault, after it, and after the pipeline was
            run again: v1, v2, ... by age.
        answered, problems: requests answered meanwhile; what should not have been ([] is a pass).
    """

    fault: str
    happened: str
    before: str
    after: str
    repeated: str
    answered: int
    problems: list[str]


class Range:
    """Where drills are held: a folder with data and a home with two pushed versions, made anew for each drill."""

    def __init__(self, folder: Path) -> None:
        data = folder / "data"
        self.product = Product(folder / "home", data if data.is_dir() else write_data_set(data))
        self._pristine = folder / "pristine"
        if not self._pristine.is_dir():
            shutil.rmtree(self.product.home, ignore_errors=True)
            for words in (FIRST, GOOD):
                done = self.product.run(*words)
                if done.code:
                    raise RuntimeError(done.stderr)
            shutil.copytree(self.product.home, self._pristine)

    def restore(self) -> None:
        """The home as it was: at the same place, since MLMD holds absolute paths."""
        disk = self.product.home.parent / "disk"
        for mounted in (self.product.base, disk):
            if os.path.ismount(mounted):
                subprocess.run(["umount", mounted], check=True)
        shutil.rmtree(self.product.home, ignore_errors=True)
        shutil.copytree(self._pristine, self.product.home)

    def hold(self, name: str, fault: Fault, repeat: bool = True) -> Row:
        """Attack, look, and (unless told otherwise) run the pipeline again and validate."""
        self.restore()
        product, problems, happened = self.product, [], ""
        with watched(product) as watch:
            before = after = repeated = watch.now
            try:
                happened = fault(product, watch)
                watch.settle()
                after = watch.now
                if repeat:
                    _repeat(product, watch)
                repeated = watch.now
            except Surprise as e:
                problems.append(str(e))
            problems += watch.violations + watch.failures[:3]
            if not wait_until(lambda: not product.strays()):
                problems.append(f"processes {product.strays()} are left")
        ages = {version: f"v{age}" for age, version in enumerate(product.versions(), 1)}
        served = {"before": before, "after": after, "repeated": repeated}
        self.restore()
        return Row(
            fault=name,
            happened=happened,
            **{when: ages.get(version or 0, "none") for when, version in served.items()},
            answered=watch.answered,
            problems=problems,
        )


def _repeat(product: Product, watch: Watch) -> None:
    """Without any cleaning up: exit 0, the newest version is a true one and answers, nothing is under way in MLMD."""
    done = product.run(*GOOD)
    expect(done.code == 0, f"run again: exit code {done.code}: {done.stderr[-500:]}")
    expect(not product.unfinished_executions(), "MLMD holds executions that are under way")
    newest = product.versions()[-1]
    expect(watch.answers_with(newest), f"version {watch.now} answers, {newest} is the newest")
    proof = product.validate()
    expect(proof.code == 0, f"validate after the rerun: {proof.code}: {proof.stderr.strip()}")
