"""Beam's settings and arguments. Nothing is downloaded or packaged at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from components.common.errors import UsageError

IN_MEMORY: Final = "FnApiRunner"
RUNNERS: Final = (IN_MEMORY, "PortableRunner", "FlinkRunner", "SparkRunner", "DataflowRunner", "DaskRunner")


@dataclass(frozen=True)
class BeamSettings:
    """Where the Beam nodes run.

    Attributes:
        runner: "FnApiRunner" runs in this process; other Beam runners by name. Never "DirectRunner":
            since Beam 2.68 it first tries Prism, a Go binary that it downloads.
        args: further Beam options, e.g. ("--job_endpoint=localhost:8099",).
    """

    runner: str = IN_MEMORY
    args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.runner in {"DirectRunner", "PrismRunner", "SwitchingDirectRunner"}:
            raise UsageError(
                f"beam.runner is {self.runner}, which downloads a binary at run time",
                f"Use --set beam.runner={IN_MEMORY}, which runs in memory, or the runner of a Beam cluster.",
            )
        if self.runner not in RUNNERS and "." not in self.runner:
            raise UsageError(
                f"beam.runner is '{self.runner}', which is not a Beam runner",
                f"Use one of {', '.join(RUNNERS)}, or the import path of a runner's class.",
            )


def pipeline_args(settings: BeamSettings) -> list[str]:
    return [
        f"--runner={settings.runner}",
        # Unless the image of remote workers is named, TFX builds an sdist of itself in every Beam node (6.5 s of a
        # run). In memory there are no remote workers.
        *(["--sdk_container_image=none"] if settings.runner == IN_MEMORY else []),
        *settings.args,
    ]
