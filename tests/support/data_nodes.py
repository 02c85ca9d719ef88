"""The nodes of the DAG up to ExampleValidator, run by the local runner in this process."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfx.orchestration import metadata

from components.common import contract
from components.common.home import Home
from components.common.settings import DataSettings
from components.common.signals import Stop
from components.validation.verdict import Verdict
from pipeline import lineage
from pipeline.dag import create_pipeline
from pipeline.local_runner import LocalRunner, NodeFailedError, compiled
from pipeline.node_keys import node_keys
from pipeline.plan import Planner, data_sha256
from pipeline.run import prepare_data
from pipeline.settings import Settings
from pipeline.unchanged import UnverifiedVersions

DATA_NODES = ("ExampleGen", "Schema", "StatisticsGen", "ExampleValidator")
_NUMBERS = itertools.count()


@dataclass
class DataRun:
    """A finished run.

    Attributes:
        states, reasons: by node.
        drift: what ExampleValidator measured; None if it failed.
        error: why it failed.
        lines: what the user was shown about the data.
    """

    states: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    drift: Verdict | None = None
    error: BaseException | None = None
    lines: list[str] = field(default_factory=list)

    def node_started(self, node_id: str) -> Path:
        self._node = node_id
        return Path(f"{node_id}.log")

    def node_finished(self, node_id: str, state: str, reason: str) -> None:
        self.states[node_id] = state
        self.reasons[node_id] = reason


def run_data_nodes(home: Path, data: Path, **settings: Any) -> DataRun:
    """Run ExampleGen, Schema, StatisticsGen and ExampleValidator on the IDX files in `data`."""
    run, everything, place = DataRun(), Settings(data=DataSettings(source=str(data), **settings)), Home(home)
    home.mkdir(exist_ok=True)
    files = prepare_data(everything, place, run.lines.append)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TFX's use of protobuf
        ir = compiled(create_pipeline(everything, files, place), f"run-{next(_NUMBERS)}")
    for node in [node for node in ir.nodes if node.pipeline_node.node_info.id not in DATA_NODES]:
        ir.nodes.remove(node)
    keys = node_keys(everything, place, data_sha256(everything))
    runner = LocalRunner(run, Planner(place, everything, keys, UnverifiedVersions([], []), {}), Stop())
    try:
        runner.run_with_ir(ir)
    except NodeFailedError as e:
        run.error = e.__cause__
        return run
    with metadata.Metadata(lineage.connection_config(place.metadata)) as handle:
        (found,) = lineage.outputs(handle.store, runner.execution_ids["ExampleValidator"])["anomalies"]
    run.drift = Verdict.read(Path(found.uri, contract.DRIFT_FILE))
    return run
