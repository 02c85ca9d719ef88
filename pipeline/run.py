"""One local run, from settings to result. The heavy imports happen here, with their output in a log file."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from components.common.commands import command
from components.common.errors import DataAnomaliesError, InputError, from_os_error
from components.common.files import check_utf_8, write_durably
from components.common.home import RESULT_FILE, Home
from components.common.settings import REAL_MNIST
from components.common.signals import Stop
from components.data import idx, mnist, split
from components.data.idx import IdxFiles
from components.data.mirrors import Received, Report, no_bar
from pipeline import bars, peak_memory
from pipeline.failure import explain
from pipeline.history import check_metadata
from pipeline.node_keys import node_keys
from pipeline.output_capture import OutputCapture, captured
from pipeline.plan import Planner, data_sha256
from pipeline.progress import Progress, State
from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.gc import Collected

log = logging.getLogger(__name__)
Status = Literal["pushed", "not_blessed", "anomalies", "failed"]
EXIT_CODES: dict[Status, int] = {"pushed": 0, "not_blessed": 3, "anomalies": 4, "failed": 1}


@dataclass
class Result:
    """The output of `run --json`; its field names are a contract."""

    run_id: str | None
    status: Status = "failed"
    pushed_version: str | None = None
    blessed: bool | None = None
    infra_blessed: bool | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    startup_seconds: float = 0.0
    drift: list[str] = field(default_factory=list)
    environment: dict[str, dict[str, str]] = field(default_factory=dict)
    error: str | None = None
    exit_code: int = 1
    started_utc: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def prepare_data(settings: Settings, home: Home, report: Report, received: Received = no_bar) -> IdxFiles:
    """The checked IDX files of `data.source`; the real MNIST is downloaded. Raises InputError.

    Args:
        report: called with one line of progress or one warning at a time.
        received: called as the bytes of a download arrive.
    """
    if settings.data.source == REAL_MNIST:
        files = mnist.fetch_mnist(home.data(REAL_MNIST), report, received=received)
    else:
        check_utf_8(Path(settings.data.source))
        files = idx.locate(Path(settings.data.source))
    for warning in split.check(files, settings.data):
        report(warning)
    return files


def execute(
    settings: Settings, home: Home, stop: Stop, forced: Mapping[str, str], *, lines_to_stderr: bool, started: float
) -> Result:
    """Run the pipeline once in `home`.

    Args:
        settings: with full paths, as `with_full_paths` returns them.
        stop: ends the run.
        forced: nodes that run whatever the cache has, with the reason: see plan.forced.
        lines_to_stderr: print progress on stderr, because --json needs stdout.
        started: time.monotonic() of the process's start, from which `seconds` counts.

    Raises:
        InputError: data or home are unusable. Later errors are in the Result.
        KeyboardInterrupt: a signal has arrived; nothing is pushed after it.
    """
    with home.exclusive():
        run_id = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        result, logs = Result(run_id, started_utc=now, settings=asdict(settings)), home.logs(run_id)
        with _writable(home), captured(logs) as capture:
            stream = capture.stderr if lines_to_stderr else capture.stdout
            check_metadata(home.metadata)
            with bars.downloads(stream) as (report, received):
                files = prepare_data(settings, home, report, received)
            result.data_sha256 = data_sha256(settings)
            try:
                _run(settings, home, files, forced, result, capture, stream, stop, started)
            except Exception as e:  # outside of any node: imports, wiring, MLMD
                log.exception("the run failed")
                stop.check()  # libraries wrap the exception of a signal in their own
                result.error, result.exit_code = explain("start-up", e, capture.log_file)
            result.seconds = round(time.monotonic() - started, 2)
            with suppress(InputError, OSError):  # a full disk: only `status` lacks this run
                save(result, logs)
            _report(home, run_id, stream)
            _collect(home, settings.home.keep_runs, stream)
    return result


def with_full_paths(settings: Settings) -> Settings:
    """The same settings in any folder: the manifest names the data, and later commands may run elsewhere."""
    source = settings.data.source
    if source == REAL_MNIST:
        return settings
    return replace(settings, data=replace(settings.data, source=str(Path(source).expanduser().resolve())))


def refused(error: str, exit_code: int) -> Result:
    """The result of a run that could not start or was interrupted."""
    return Result(run_id=None, error=error, exit_code=exit_code)


def save(result: Result, logs: Path) -> None:
    """Write the result to the run's log folder, as the latest of its home. Raises InputError."""
    path = logs / RESULT_FILE
    write_durably(path, result.to_json() + "\n")
    latest_ns = max(_saved(logs.parent))[0]
    if path.stat().st_mtime_ns < latest_ns:  # the clock was set back
        for written in (path, logs):  # gc looks at the folder
            os.utime(written, ns=(latest_ns + 1, latest_ns + 1))


def _saved(logs: Path) -> list[tuple[int, Path]]:
    """Time in ns and path of each result below the folder `logs`. Raises OSError if the folder cannot be read."""
    paths = [folder / RESULT_FILE for folder in logs.iterdir()] if logs.exists() else []
    return [(path.stat().st_mtime_ns, path) for path in paths if path.exists()]


def latest_result(home: Home) -> Result:
    """The result of the latest finished run. Raises InputError if there is none, OSError if the home is unreadable."""
    for _, path in sorted(_saved(home.root / "logs"), reverse=True):  # not by run id, which has several forms
        with suppress(OSError, ValueError, TypeError, RecursionError):  # damaged: try the one before
            return Result(**json.loads(path.read_text()))
    raise InputError(f"{home.root}: no finished run here", f"Start one: {command('pipeline', 'run')}")


def collect_garbage(home: Home, keep_runs: int, *, dry_run: bool) -> Collected:
    """Run `gc.collect` on its own. Raises InputError if the home is in use, or cannot be cleaned."""
    with home.exclusive(), _writable(home), captured(home.logs("gc")):  # hides TensorFlow's output
        check_metadata(home.metadata)
        from pipeline import gc

        return gc.collect(home, keep_runs, dry_run=dry_run)


def _report(home: Home, run_id: str, stream: TextIO) -> None:
    """Write the report. A failure is only reported: the run has its result."""
    try:
        from pipeline import report

        started = time.monotonic()
        path = report.write(home, run_id)
        log.info("%s: %d bytes in %.2f s", path.name, path.stat().st_size, time.monotonic() - started)
    except Exception as e:
        log.exception("no report")
        print(f"no report was written: {str(e).splitlines()[0] if str(e) else type(e).__name__}", file=stream)


def _collect(home: Home, keep_runs: int, stream: TextIO) -> None:
    """Remove what older runs left. A failure is only reported: the run has its result, and the next one tries again."""
    try:
        from pipeline import gc

        collected = gc.collect(home, keep_runs)
        if collected.artifact_folders or collected.log_folders:
            print(f"{collected} (home.keep_runs is {keep_runs})", file=stream)
    except Exception as e:
        log.exception("gc failed")
        print(f"older runs were not removed: {str(e).splitlines()[0] if str(e) else type(e).__name__}", file=stream)


@contextmanager
def _writable(home: Home) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise from_os_error(e) or InputError(
            f"{home.root}: cannot be written ({e.strerror or e})", "Name another home: --home DIR"
        ) from e


def _run(
    settings: Settings,
    home: Home,
    files: IdxFiles,
    forced: Mapping[str, str],
    result: Result,
    capture: OutputCapture,
    stream: TextIO,
    stop: Stop,
    started: float,
) -> None:
    with bars.waiting(stream, "starting TFX, TensorFlow and Beam"):
        from tfx.orchestration import metadata

        from components.training import distribution
        from pipeline import integrity, lineage, local_runner
        from pipeline.dag import create_pipeline
        from pipeline.report import environment

    # For the Trainer; here, because another node may be the first to use TensorFlow.
    distribution.divide_cores(settings.train.shards)
    pipeline = create_pipeline(settings, files, home)
    ir = local_runner.compiled(pipeline, str(result.run_id))
    with metadata.Metadata(pipeline.metadata_connection_config) as handle:
        local_runner.sweep_interrupted(handle.store)
        integrity.relocate(handle.store, home.artifacts)
        if aside := integrity.set_aside_unknown(handle.store, home.artifacts):
            print(f"{home.metadata.name} is new: the artifacts of earlier runs are now in {aside}", file=stream)
        integrity.remove_unpublished(handle.store, home.artifacts)
        for line in integrity.forget_damaged(handle.store, home.artifacts):
            print(line, file=stream)
        unverified = integrity.unverified_versions(handle.store, home.serving_model)
    for number in unverified.tampered:
        print(f"version {number} differs from what was pushed: it is left as it is", file=stream)
    result.environment = environment.measure()
    result.startup_seconds = round(time.monotonic() - started, 2)

    with Progress([node.pipeline_node.node_info.id for node in ir.nodes], stream) as progress:
        screen = _Screen(progress, capture)
        planner = Planner(home, settings, node_keys(settings, home, result.data_sha256), unverified, forced)
        runner = local_runner.LocalRunner(screen, planner, stop)
        try:
            runner.run_with_ir(ir)
        except local_runner.NodeFailedError as e:
            cause = e.__cause__ or e
            result.status = "anomalies" if isinstance(cause, DataAnomaliesError) else "failed"
            result.error, result.exit_code = explain(e.node_id, cause, e.log_file)
    result.nodes = [
        {
            "id": node.id,
            "state": node.state,
            "seconds": round(node.seconds, 2),
            "reason": node.reason,
            "peak_mb": screen.peaks_mb.get(node.id),
        }
        for node in progress.nodes
    ]

    with metadata.Metadata(pipeline.metadata_connection_config) as handle:
        outcome = lineage.outcome(handle.store, runner.execution_ids)
    result.metrics = {name: round(value, 6) for name, value in outcome.metrics.items()}
    result.blessed, result.infra_blessed = outcome.blessed, outcome.infra_blessed
    result.checks = [asdict(check) for check in outcome.checks]
    result.drift = outcome.drift
    for line in result.drift:
        print(f"drift: {line}", file=stream)
    if result.error is None:
        result.status = "pushed" if outcome.pushed_destination else "not_blessed"
        result.exit_code = EXIT_CODES[result.status]
        result.pushed_version = Path(outcome.pushed_destination).name if outcome.pushed_destination else None
        if outcome.failures:
            result.error = (
                f"not blessed, nothing pushed: {'; '.join(outcome.failures)}\n"
                "What was served before stays. Improve the model or change the bound ([gate], [infra]), then run again."
            )


class _Screen:
    """Shows the runner's events in the table, switches the log file, and measures the peak memory of each node."""

    def __init__(self, progress: Progress, capture: OutputCapture) -> None:
        self._progress = progress
        self._capture = capture
        self._measured = False
        self.peaks_mb: dict[str, int | None] = {}

    def node_started(self, node_id: str) -> Path:
        self._measured = peak_memory.reset()
        self._progress.start(node_id)
        return self._capture.to(node_id)

    def node_finished(self, node_id: str, state: State, reason: str) -> None:
        self.peaks_mb[node_id] = peak_memory.peak_mb() if self._measured else None
        self._progress.finish(state, reason=reason)
