"""Compare our first run with TFX's own MNIST example, on the same 70,000 images, in alternating rounds.

    python -m benchmarks.tfx_example --rounds 3      (about 4 minutes per round on two cores)

The example is imported from the installed `tfx` wheel and runs unchanged. The packages that it needs and our
environment lacks (pip for its module file, tensorboard for its Keras callback) are installed into a separate folder on
PYTHONPATH. Wall times are of whole processes; neither downloading nor converting the data is timed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import harness
from components.common import ROOT, resources
from components.common.errors import InputError
from components.data import idx

SYSTEMS: Final[Mapping[str, str]] = {
    "A": "our first run",
    "B": "TFX's example as shipped",
    "C": "TFX's example, Beam in memory",
}
EXAMPLE_NEEDS: Final = ("pip", "tensorboard", "tensorboard-data-server", "markdown", "werkzeug")  # if missing
IMPORTS: Final = "import pip, tensorboard; from tfx.examples.mnist import mnist_pipeline_native_keras"
CALL: Final = "import sys; from benchmarks import tfx_example; getattr(tfx_example, sys.argv[1])(*sys.argv[2:])"
PRISM_FALLBACK: Final = "Falling back to DirectRunner"  # Beam's log line


class BenchmarkError(Exception):
    """A process of the benchmark failed; the message contains the path of its log."""


@dataclass(frozen=True)
class Measurement:
    """One timed process.

    Attributes:
        seconds: wall time from the start of the process to its end.
        accuracy: A: on the 10,000 test images. B, C: on the example's own eval split, a third of the 70,000.
        prism_fallbacks: Beam pipelines that first tried the Prism runner, which must be downloaded, and failed.
    """

    seconds: float
    accuracy: float
    prism_fallbacks: int


def write_records(data: str, target: str) -> None:
    """Write all images of the folder `data` as tf.Examples for TFX's example: 784 floats, -0.5 to 0.5, and a class."""
    import tensorflow as tf

    files = idx.locate(Path(data))
    with tf.io.TFRecordWriter(target) as writer:
        for images, labels in (files[:2], files[2:]):
            for image, label in zip(idx.read_images(images), idx.read_labels(labels), strict=True):
                example = tf.train.Example()
                example.features.feature["image_floats"].float_list.value.extend((image.ravel() / 255 - 0.5).tolist())
                example.features.feature["image_class"].int64_list.value.append(int(label))
                writer.write(example.SerializeToString())


def run_example(folder: str, records: str, system: str) -> None:
    """Run the example as its `__main__` does; for system C with Beam's workers in memory."""
    from absl import logging as absl_logging  # type: ignore[import-untyped]
    from tfx.examples.mnist import mnist_pipeline_native_keras as example
    from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner

    absl_logging.set_verbosity(absl_logging.INFO)
    logging.getLogger("apache_beam.runners.direct").setLevel(logging.INFO)  # shows PRISM_FALLBACK
    beam_args: list[str] = list(example._beam_pipeline_args)
    if system == "C":
        beam_args[beam_args.index("--direct_running_mode=multi_processing")] = "--direct_running_mode=in_memory"
    pipeline = example._create_pipeline(
        pipeline_name=example._pipeline_name,
        pipeline_root=f"{folder}/pipeline",
        data_root=records,
        module_file=str(Path(example.__file__).with_name("mnist_utils_native_keras.py")),
        serving_model_dir=f"{folder}/serving_model",
        metadata_path=f"{folder}/metadata/metadata.db",
        beam_pipeline_args=beam_args,
    )
    BeamDagRunner().run(pipeline)


def print_example_accuracy(folder: str) -> None:
    """Print the accuracy from the example's Evaluator. Raises ValueError unless the example pushed its model."""
    import tensorflow_model_analysis as tfma

    (_,) = Path(folder).glob("serving_model/*/saved_model.pb")
    (evaluation,) = Path(folder).glob("pipeline/Evaluator.mnist/evaluation/*")
    metrics = tfma.load_eval_result(str(evaluation)).get_metrics_for_slice()
    print(metrics["sparse_categorical_accuracy"]["doubleValue"])


class Bench:
    """Runs the processes of the benchmark; their files are below the folder `work`."""

    def __init__(self, work: Path, files: idx.IdxFiles) -> None:
        self.work, self.files = work, files
        self.records, self.overlay = work / "records", work / "overlay"
        self.records.mkdir()
        self.overlay.mkdir()

    def prepare_example(self) -> None:
        """Install the packages that the example needs, write its data, and warm the disk cache."""
        missing = [name for name in EXAMPLE_NEEDS if util.find_spec(name.replace("-", "_")) is None]
        print(f"preparing TFX's example: its data{''.join(', ' + name for name in missing)}", flush=True)
        if missing:
            options = ["--no-deps", "--compile-bytecode", "--python", sys.executable, "--target", str(self.overlay)]
            self._run("install", ["-m", "uv", "pip", "install", *options, *missing])
        self._run("import", ["-c", IMPORTS])
        data, records = self.files.train_images.parent, self.records / "mnist.tfrecord"
        self._run("convert", ["-c", CALL, "write_records", str(data), str(records)])

    def measure(self, system: str, name: str) -> Measurement:
        """Run a system once in a fresh folder, which is removed afterwards. Raises BenchmarkError."""
        folder = self.work / name
        if system == "A":
            harness.copy_mnist(self.files, folder)
            seconds, output = self._run(name, ["-m", "pipeline", "run", "--json", "--home", str(folder)])
            accuracy = float(json.loads(output.splitlines()[-1])["metrics"]["test_accuracy"])
        else:
            seconds, _ = self._run(name, ["-c", CALL, "run_example", str(folder), str(self.records), system])
            accuracy = float(self._run(f"{name}-accuracy", ["-c", CALL, "print_example_accuracy", str(folder)])[1])
        fallbacks = (self.work / f"{name}.log").read_text(errors="replace").count(PRISM_FALLBACK)
        shutil.rmtree(folder)
        return Measurement(round(seconds, 2), round(accuracy, 4), fallbacks)

    def _run(self, name: str, args: list[str]) -> tuple[float, str]:
        """Run Python with stderr in <name>.log; returns the wall seconds and stdout."""
        out, log = self.work / f"{name}.out", self.work / f"{name}.log"
        path = os.environ.get("PYTHONPATH", "")
        if args[:2] != ["-m", "pipeline"]:  # our pipeline needs no further packages
            path = f"{self.overlay}{os.pathsep}{path}".rstrip(os.pathsep)
        command = [sys.executable, *args]
        scratch = tempfile.TemporaryDirectory(dir=self.work, ignore_cleanup_errors=True)  # TFX leaves many files there
        with scratch as temporary, open(out, "wb") as stdout, open(log, "wb") as stderr:
            env = {**os.environ, "PYTHONPATH": path, "TMPDIR": temporary}
            started = time.monotonic()
            child = subprocess.Popen(command, cwd=ROOT, env=env, stdout=stdout, stderr=stderr, process_group=0)
            try:
                code = child.wait()
                seconds = time.monotonic() - started
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # Beam's workers too, if any are left
        if code != 0:
            raise BenchmarkError(f"{name} failed (exit code {code}): see {log}, and {out.name} beside it")
        return seconds, out.read_text()


def run(rounds: int, systems: list[str], home: Path, work: Path) -> None:
    """Measure, print the table and write the JSON file. Raises BenchmarkError, InputError."""
    bench = Bench(work, harness.mnist_files(home))
    if systems != ["A"]:
        bench.prepare_example()
    results: list[dict[str, Measurement]] = []  # one dict per round
    for n in range(rounds):
        results.append({})
        first = n % len(systems)
        for system in systems[first:] + systems[:first]:
            print(f"round {n + 1} of {rounds}: {system}  {SYSTEMS[system]} ...", end=" ", flush=True)
            results[n][system] = measured = bench.measure(system, f"{system}-{n + 1}")
            print(f"{measured.seconds:.1f} s, accuracy {measured.accuracy:.4f}", flush=True)
    others = [other for other in "BC" if {"A", other} <= set(systems)]
    ratios = {f"A/{other}": [r["A"].seconds / r[other].seconds for r in results] for other in others}
    document = {
        "systems": {system: SYSTEMS[system] for system in systems},
        "rounds": [{system: asdict(measured) for system, measured in r.items()} for r in results],
        "median_seconds": {system: median(r[system].seconds for r in results) for system in systems},
        "median_ratio": {name: round(median(values), 3) for name, values in ratios.items()},
        "cores": resources.cores(),
        "versions": {name: metadata.version(name) for name in ("tfx", "tensorflow", "apache-beam")},
    }
    show(results, systems, ratios)
    harness.write_result("bench_tfx_example.json", document)


def show(results: list[dict[str, Measurement]], systems: list[str], ratios: Mapping[str, list[float]]) -> None:
    """Print the table of all rounds."""
    from rich.console import Console
    from rich.table import Table

    caption = "seconds of wall time; accuracy: A on the test images, B and C on their own eval split"
    table = Table("", *(f"round {n + 1}" for n in range(len(results))), "median", "accuracy", caption=caption)
    for system in systems:
        seconds = [r[system].seconds for r in results]
        cells = [f"{s:.1f}" for s in (*seconds, median(seconds))]
        table.add_row(f"{system}  {SYSTEMS[system]}", *cells, f"{median(r[system].accuracy for r in results):.4f}")
    for name, values in ratios.items():
        table.add_row(name, *(f"{value:.2f}" for value in (*values, median(values))))
    Console().print(table)


def main() -> int:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--only", action="append", choices=sorted(SYSTEMS), help="run only this system; repeatable")
    parser.add_argument("--home", type=Path, default=harness.WORKSPACE, help="home that has data/mnist")
    parser.add_argument("--work", type=Path, help="keep the logs in a new folder below this one (default: delete them)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="tfx-example-", dir=options.work)).resolve()
    keep = options.work is not None
    try:
        run(options.rounds, sorted(set(options.only or SYSTEMS)), options.home, work)
    except (BenchmarkError, InputError) as e:
        print(f"\nerror: {e}", file=sys.stderr)
        keep = keep or isinstance(e, BenchmarkError)  # its message contains the path of a log in `work`
        return 1
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
