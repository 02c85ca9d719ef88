"""Compare our first run with TFX's own MNIST example, on the same 70,000 images, in alternating rounds.

    python benchmarks/tfx_example.py --rounds 3

The example is imported from the installed `tfx` wheel and runs unchanged. What it needs beside our environment
(pip to package its module file, tensorboard for its Keras callback) goes into a folder of its own on PYTHONPATH.
Wall times are of whole processes, from their start to their end. Converting the data is not timed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
RESULT_FILE: Final = REPOSITORY / "build" / "bench_tfx_example.json"
SYSTEMS: Final[Mapping[str, str]] = {
    "A": "our first run",
    "B": "TFX's example as shipped (multi_processing)",
    "C": "TFX's example, Beam in memory",
}
EXAMPLE_NEEDS: Final[Mapping[str, str]] = {  # distribution -> module; only what is missing gets installed
    "pip": "pip",
    "setuptools": "setuptools",
    "wheel": "wheel",
    "tensorboard>=2.20,<2.22": "tensorboard",
    "tensorboard-data-server": "tensorboard_data_server",
    "markdown": "markdown",
    "werkzeug": "werkzeug",
    "markupsafe": "markupsafe",
}
TIMEOUT_SECONDS: Final = 1800  # of any one process
CALL: Final = "import sys; from benchmarks import tfx_example; getattr(tfx_example, sys.argv[1])(*sys.argv[2:])"
PRISM_GIVEN_UP: Final = "Falling back to DirectRunner"  # Beam's log line, once for each Beam pipeline


class BenchmarkError(Exception):
    """A process of the benchmark failed; the message names its log."""


@dataclass(frozen=True)
class Measurement:
    """One timed process.

    Attributes:
        seconds: wall time from the start of the process to its end.
        accuracy: A: on the 10,000 test images. B, C: on the example's own eval split, a third of the 70,000.
        prism_fallbacks: how often Beam tried its Prism runner in vain and ran in its own process instead.
        load: the machine's load average over one minute, before the start.
    """

    seconds: float
    accuracy: float
    prism_fallbacks: int
    load: float


def write_records(data: str, target: str) -> None:
    """Write all images of the IDX files in `data` as the example's tf.Examples: 784 floats, -0.5 to 0.5, and a class."""
    import tensorflow as tf

    from components.dataset import locate, read_images, read_labels

    files = locate(Path(data))
    with tf.io.TFRecordWriter(target) as writer:
        for images, labels in [files[:2], files[2:]]:
            for image, label in zip(read_images(images), read_labels(labels), strict=True):
                example = tf.train.Example()
                example.features.feature["image_floats"].float_list.value.extend((image.ravel() / 255 - 0.5).tolist())
                example.features.feature["image_class"].int64_list.value.append(int(label))
                writer.write(example.SerializeToString())


def run_example(work: str, records: str, direct_running_mode: str) -> None:
    """Run the example as its `__main__` does; an empty `direct_running_mode` keeps its own Beam arguments."""
    import absl.logging
    from tfx.examples.mnist import mnist_pipeline_native_keras as example
    from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner

    absl.logging.set_verbosity(absl.logging.INFO)
    beam_args: list[str] = list(example._beam_pipeline_args)
    if direct_running_mode:
        beam_args = [a for a in beam_args if not a.startswith("--direct_running_mode=")]
        beam_args.append(f"--direct_running_mode={direct_running_mode}")
    BeamDagRunner().run(
        example._create_pipeline(
            pipeline_name=example._pipeline_name,
            pipeline_root=f"{work}/pipeline",
            data_root=records,
            module_file=str(Path(example.__file__).with_name("mnist_utils_native_keras.py")),
            serving_model_dir=f"{work}/serving_model",
            metadata_path=f"{work}/metadata/metadata.db",
            beam_pipeline_args=beam_args,
        )
    )


def print_example_accuracy(work: str) -> None:
    """Print the accuracy that the example's Evaluator measured, and check that a model was pushed."""
    import tfx  # noqa: F401  (before TFMA)
    import tensorflow_model_analysis as tfma  # isort: skip

    if not list(Path(work).glob("serving_model/*/saved_model.pb")):
        raise BenchmarkError("the example pushed no model")
    (evaluation,) = Path(work).glob("pipeline/Evaluator.mnist/evaluation/*")
    metrics = tfma.load_eval_result(str(evaluation)).get_metrics_for_slice()
    print(metrics)


class Bench:
    """The processes of the benchmark and their folder."""

    def __init__(self, work: Path, data: Path) -> None:
        self.work, self.data = work, data
        self.records, self.overlay, self.temporary = work / "records", work / "overlay", work / "tmp"
        for folder in (self.records, self.overlay, self.temporary):
            folder.mkdir()

    def prepare_example(self) -> None:
        """Install what the example needs beside our environment, write its data, and import it once."""
        missing = [name for name, module in EXAMPLE_NEEDS.items() if importlib.util.find_spec(module) is None]
        if missing:
            uv = [sys.executable, "-m", "uv", "pip", "install", "--no-deps", "--compile-bytecode"]
            self._process("prepare-overlay", [*uv, "--python", sys.executable, "--target", str(self.overlay), *missing])
        self._call("prepare-records", "write_records", str(self.data), str(self.records / "mnist.tfrecord"))

    def _process(self, name: str, command: list[str], **environment: str) -> tuple[float, str]:
        """Run a command; its stderr goes to <name>.log. Returns wall seconds and stdout."""
        out, log = self.work / f"{name}.out", self.work / f"{name}.log"
        env = {**os.environ, "TMPDIR": str(self.temporary), **environment}
        with open(out, "wb") as stdout, open(log, "wb") as stderr:
            started = time.monotonic()
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=env, stdout=stdout, stderr=stderr, start_new_session=True
            )
            try:
                code: int | str = process.wait(TIMEOUT_SECONDS)
                seconds = time.monotonic() - started
            except subprocess.TimeoutExpired:
                code = f"none after {TIMEOUT_SECONDS} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # Beam's workers too, if any are left
        if code != 0:
            raise BenchmarkError(f"{name} failed (exit code {code}): see {log} and {out.name} beside it")
        return seconds, out.read_text()

    def _call(self, name: str, function: str, *args: str) -> tuple[float, str]:
        path = os.pathsep.join(filter(None, [str(self.overlay), os.environ.get("PYTHONPATH")]))
        return self._process(name, [sys.executable, "-c", CALL, function, *args], PYTHONPATH=path)
