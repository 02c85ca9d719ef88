"""Peak memory of training on MNIST and on ten times as much data, streamed and resident, each in its own process.

    python -m benchmarks.training.memory      (about a minute on two cores)

Writes build/bench_training_memory.json.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import tensorflow as tf

from benchmarks import harness
from components.common import ROOT
from components.common.settings import TrainSettings
from components.data import idx
from components.example_gen import to_examples
from components.training import distribution
from components.training.input_pipeline import PixelScale, load_eval_split, load_train_split
from components.training.loop import train

PIXELS: Final = 784
TIMES: Final = (1, 10)
STEPS: Final = 500
CALL: Final = "import sys; from benchmarks.training import memory; memory.run(*sys.argv[1:])"


def write(folder: Path) -> None:
    """Write <n>.gz with the 60,000 training images n times, and eval.gz with the test images."""
    files = harness.mnist_files()
    splits = {"train": files[:2], "eval": files[2:]}
    for name, (images, labels) in splits.items():
        records = list(to_examples(idx.read_images(images), idx.read_labels(labels)))
        for times in TIMES if name == "train" else (1,):
            target = folder / (f"{times}.gz" if name == "train" else "eval.gz")
            options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
            with tf.io.TFRecordWriter(str(target), options) as writer:
                for _ in range(times):
                    for record in records:
                        writer.write(record)


def run(folder: str, times: str, resident_max_mb: str) -> None:
    """Train on <times>.gz and print this process's peak memory in MB."""
    settings = TrainSettings(steps=STEPS, resident_max_mb=int(resident_max_mb))
    source = load_train_split([f"{folder}/{times}.gz"], PIXELS, 10, settings)
    validation = load_eval_split([f"{folder}/eval.gz"], PIXELS, 10)
    scale = PixelScale(np.full(PIXELS, 1 / 255, np.float32), np.zeros(PIXELS, np.float32))
    train(source, validation, scale, (28, 28), 10, settings, distribution.create("none"), None, lambda *_: None)
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes on macOS, KB on Linux
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit))


def main() -> None:
    harness.argument_parser(__doc__).parse_args()
    found: dict[str, dict[int, int]] = {"streamed": {}, "resident": {}}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for times in TIMES:
            for kind, limit in (("streamed", 0), ("resident", 10_000)):
                command = [sys.executable, "-c", CALL, folder, str(times), str(limit)]
                done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
                found[kind][times] = int(done.stdout)
                print(f"{kind}, {times} times the data: {found[kind][times]} MB", flush=True)
    few, many = TIMES
    document = {"peak_mb": found, "streamed_ratio": round(found["streamed"][many] / found["streamed"][few], 3)}
    print(f"streamed, {many} times the data needs {document['streamed_ratio']} times the memory")
    harness.write_result("bench_training_memory.json", document)


if __name__ == "__main__":
    main()
