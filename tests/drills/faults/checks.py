"""Shared by all faults: the failure of a drill, and checks of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from components.common import ROOT
from tests.drills.probe import Probe
from tests.drills.product import Product, settings
from tests.support.done import Done

NEWEST: Final = settings("train.seed=2")  # arguments of the run that pushed v2; all of it is cached
POLLS_S: Final = 2.5  # time in which the server polls the folder of versions twice


class DrillFailed(AssertionError):
    """The product did not behave as required."""


def expect(condition: Any, message: str) -> None:
    if not condition:
        raise DrillFailed(message)


def expect_exit(done: Done, code: int, command: str = "run") -> None:
    expect(done.code == code, f"{command}: exit code {done.code}: {done.stdout[-500:]} {done.stderr[-500:]}")


def not_blessed(product: Product, check: str, *arguments: str, data: Path | None = None, checkout: Path = ROOT) -> str:
    """Run the pipeline: it must exit with code 3, name this check and push nothing."""
    before = product.versions()
    done = product.run(*arguments, data=data, checkout=checkout)
    expect_exit(done, 3)
    reason = done.json["error"].splitlines()[0]
    expect(check in reason, f"the reason is not {check}: {reason}")
    expect(product.versions() == before, f"pushed nevertheless: {product.versions()}")
    return f"`run`: exit 3, {reason if len(reason) < 120 else reason[:117] + '...'}"


def validate_fails(product: Product, row: str) -> str:
    """Validate: it must exit with code 6 and name this row."""
    done = product.validate()
    expect_exit(done, 6, "validate")
    expect(done.json["failed_row"] == row, f"validate names the row {done.json['failed_row']}, not {row}")
    return f"`validate`: exit 6, row {row}"


def restart_refused(probe: Probe) -> str:
    """Restart the server: it must refuse until the pipeline has pushed the version again."""
    expect_exit(probe.restart(), 5, "up")
    expect_exit(probe.product.run(*NEWEST), 0)
    expect_exit(probe.restart(), 0, "up after the rerun")
    probe.failures.clear()  # from the time without a server
    probe.settle()
    return "restart refused (exit 5) until the rerun has pushed it again"
