"""The local orchestrator: TFX's LocalDagRunner, node by node, with states, reasons and log files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import local_dag_runner, runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from components.common.contract import UNVERIFIED_VERSIONS
from components.common.signals import Stop
from pipeline import integrity, lineage
from pipeline.node_keys import PARAMETER
from pipeline.plan import Decision, Planner, unverified_text
from pipeline.progress import State

log = logging.getLogger(__name__)


class NodeFailedError(Exception):
    """A node raised; the cause is chained."""

    def __init__(self, node_id: str, log_file: Path) -> None:
        super().__init__(node_id)
        self.node_id = node_id
        self.log_file = log_file


class Events(Protocol):
    """Receives the start and the end of each node."""

    def node_started(self, node_id: str) -> Path:
        """Returns the log file that the node writes to from now on."""

    def node_finished(self, node_id: str, state: State, reason: str) -> None:
        """`reason` says why the node ran or was cached."""


def compiled(pipeline: Pipeline, run_id: str) -> pipeline_pb2.Pipeline:
    """The pipeline's intermediate representation (IR) for one run."""
    ir = compiler.Compiler().compile(pipeline)
    runtime_parameter_utils.substitute_runtime_parameter(ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    return ir


class LocalRunner(local_dag_runner.LocalDagRunner):
    """Runs a compiled pipeline in this process, one node after another (they are in topological order).

    Args:
        planner: decides which nodes come from the cache.
        stop: no node starts after a signal.

    Attributes:
        execution_ids: MLMD execution id of each node that ran or was cached, by node id.
    """

    def __init__(self, events: Events, planner: Planner, stop: Stop) -> None:
        super().__init__()
        self._planner = planner
        self._stop = stop
        self.execution_ids: dict[str, int] = {}
        self._events = events

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options: Any = None) -> None:
        """Launch every node. Raises NodeFailedError on the first that fails; the nodes after it do not run."""
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        store_kinds = deployment.metadata_connection_config
        connection = getattr(store_kinds, store_kinds.WhichOneof("connection_config"))
        for wrapper in pipeline.nodes:
            node = wrapper.pipeline_node
            node_id = node.node_info.id
            executor = runner_utils.extract_executor_spec(deployment, node_id)
            decision = self._planner.decide_now(node_id, self.execution_ids)
            node.execution_options.caching_options.enable_cache = decision.cached
            node.parameters.parameters[PARAMETER].field_value.string_value = self._planner.keys[node_id].text
            if node_id in ("Baseline", "Pusher") and (unverified := unverified_text(self._planner.unverified)):
                # Part of the Pusher's cache key: it runs again, so that the newest version is one that a run recorded.
                node.parameters.parameters[UNVERIFIED_VERSIONS].field_value.string_value = unverified
            launch = launcher.Launcher(
                pipeline_node=node,
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=pipeline.pipeline_info,
                pipeline_runtime_spec=pipeline.runtime_spec,
                executor_spec=executor,
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
            )
            self._launch(decision, launch, connection)

    def _launch(self, decision: Decision, launch: launcher.Launcher, connection: Any) -> None:
        node_id, reason = decision.node, decision.reason
        self._stop.check()  # the node before may have caught the exception of the signal
        log_file = self._events.node_started(node_id)
        try:
            info = launch.launch()
        except Exception as e:
            log.exception("node %s failed", node_id)
            self._stop.check()
            self._events.node_finished(node_id, "failed", reason)
            raise NodeFailedError(node_id, log_file) from e
        if info is None or not info.execution_id:
            self._events.node_finished(node_id, "skipped", "")
            return
        with metadata.Metadata(connection) as handle:
            (execution,) = handle.store.get_executions_by_id([info.execution_id])
            if execution.last_known_state == mlmd.Execution.COMPLETE:
                artifacts = [a for found in lineage.outputs(handle.store, execution.id).values() for a in found]
                integrity.remember(artifacts, self._planner.home.artifacts)
        if execution.last_known_state == mlmd.Execution.FAILED:  # TFX does not raise for unresolvable inputs
            self._events.node_finished(node_id, "failed", reason)
            raise NodeFailedError(node_id, log_file) from RuntimeError("its inputs could not be resolved")
        self.execution_ids[node_id] = info.execution_id
        cached = execution.last_known_state == mlmd.Execution.CACHED
        if decision.cached and not cached:
            reason = "TFX's own cache key is new"
        self._events.node_finished(node_id, "cached" if cached else "ran", reason)


def sweep_interrupted(store: MetadataStore) -> None:
    """Mark the executions of killed runs as failed; MLMD would list them as RUNNING for ever.

    Only safe for the run that has locked the home: any other execution that is RUNNING is dead.
    """
    dead = [e for e in store.get_executions() if e.last_known_state in (mlmd.Execution.RUNNING, mlmd.Execution.NEW)]
    for execution in dead:
        log.warning("execution %d was interrupted: marked as failed", execution.id)
        execution.last_known_state = mlmd.Execution.FAILED
    if dead:
        store.put_executions(dead)
