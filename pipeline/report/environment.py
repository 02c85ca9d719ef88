"""Section "Environment": what the run used, and the time and memory of each node."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from components.common import resources
from pipeline.report.sources import Sources

PACKAGES: Final = (
    *("tfx", "tensorflow", "tensorflow-data-validation", "tensorflow-model-analysis", "tensorflow-transform"),
    *("apache-beam", "ml-metadata", "tensorflow-serving-api", "numpy", "protobuf"),
)


@dataclass(frozen=True)
class Section:
    """Content of the section; `versions` and `machine` are empty for runs that did not record them."""

    versions: Mapping[str, str]
    machine: Mapping[str, str]
    nodes: Sequence[Mapping[str, Any]]
    startup_seconds: float | None
    seconds: float | None


def section(sources: Sources) -> Section:
    recorded = sources.result.get("environment") or {}
    return Section(
        versions=recorded.get("versions") or {},
        machine=recorded.get("machine") or {},
        nodes=sources.run.nodes,
        startup_seconds=sources.result.get("startup_seconds"),
        seconds=sources.run.seconds,
    )


def measure() -> dict[str, dict[str, str]]:
    """The environment of this process, for run.json."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    machine = {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": str(resources.cores()),
        "memory": f"{resources.memory_bytes() / 2**30:.1f} GiB",
    }
    return {"versions": versions, "machine": machine}
