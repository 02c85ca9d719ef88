"""Compare our training loop with its peers on the same network, data, batch size and optimizer, in alternating rounds.

    python -m benchmarks.training.speed      (about 3 minutes on two cores; --torch PYTHON adds PyTorch)

Only steps are timed, after a warm-up: no reading, no compiling. One loop runs at a time, all in each round, so that a
busy machine is busy for all. Ours run in a process that divides its cores among a batch's shards, as a run of the
pipeline does; the others in one with TensorFlow's own threads. The share of the machine's peak is our loop's arithmetic
beside that of large matrix products (sgemm) on all cores in the same round. Writes build/bench_training_speed.json.

PyTorch lives in an environment of its own, which this file does not make:

    python3 -m venv build/torch && build/torch/bin/pip install torch==2.13.0
    python -m benchmarks.training.speed --torch build/torch/bin/python
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import tensorflow as tf

from components.common.settings import UNBOUNDED_AUGMENTATIONS, TrainSettings
from components.data import idx
from components.data.mnist import fetch_mnist
from components.training import distribution
from components.training.input_pipeline import PixelScale, Resident, Split
from components.training.loop import STEPS_PER_CALL, steps_per_turn
from components.training.step import State, steps_function

REPOSITORY: Final = Path(__file__).resolve().parents[2]
RESULT_FILE: Final = REPOSITORY / "build" / "bench_training_speed.json"
SIZES: Final = (784, 128, 256, 10)
BATCH: Final = 256
RATE: Final = 0.1
SGEMM: Final = 1024  # rows and columns
NO_AUGMENTATION: Final = {"augment_scale": 0.0, **{f"augment_{kind}": 0.0 for kind in UNBOUNDED_AUGMENTATIONS}}

Loop = Callable[[int], None]  # runs so many steps
loops: dict[str, Loop] = {}  # of this process


class Speed(NamedTuple):
    """Wall speed, and the process's CPU time, which other processes on the machine disturb less."""

    steps_per_second: float
    cpu_ms_per_step: float


def ours(data: Split, **more: Any) -> Loop:
    """components/training/step.py as the Trainer uses it; without augmentation unless `more` says so."""
    chosen = {"optimizer": "sgd", "learning_rate": RATE, **NO_AUGMENTATION, **more}
    settings = TrainSettings(batch_size=BATCH, hidden_layers=SIZES[1:-1], **chosen)
    source, strategy = Resident(data, settings), distribution.create("none")
    scale = PixelScale(np.full(SIZES[0], 1 / 255, np.float32), np.zeros(SIZES[0], np.float32))
    state, turn = State.create(SIZES, settings), steps_per_turn(settings)
    run_steps = steps_function(state, source, scale, (28, 28), settings, strategy, turn)

    def loop(steps: int) -> None:
        for start in range(0, steps, STEPS_PER_CALL):
            float(run_steps(source.take(start, start + STEPS_PER_CALL), np.full(STEPS_PER_CALL, RATE, np.float32)))

    return loop


def notebook(data: Split) -> Loop:
    """The original notebook's way: eager GradientTape, Keras's SGD, tf.data with shuffle and batch."""
    shapes = list(itertools.pairwise(SIZES))
    weights = [tf.Variable(tf.random.normal(shape, stddev=0.05)) for shape in shapes]
    biases = [tf.Variable(tf.zeros(shape[1:])) for shape in shapes]
    optimizer = tf.keras.optimizers.SGD(RATE)
    pixels = data.images.astype(np.float32) / 255
    batches = tf.data.Dataset.from_tensor_slices((pixels, data.labels)).repeat().shuffle(5000).batch(BATCH).prefetch(1)

    def loop(steps: int) -> None:
        for x, y in batches.take(steps):
            with tf.GradientTape() as tape:
                hidden = x
                for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                    hidden = tf.sigmoid(hidden @ weight + bias)
                logits = hidden @ weights[-1] + biases[-1]
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
            gradients = tape.gradient(loss, weights + biases)
            optimizer.apply_gradients(zip(gradients, weights + biases, strict=True))

    return loop


def keras_fit(data: Split, steps_per_execution: int) -> Loop:
    """Keras's `fit` on the same batches in memory."""
    layers = [tf.keras.layers.Dense(units, activation="sigmoid") for units in SIZES[1:-1]]
    model = tf.keras.Sequential([tf.keras.Input([SIZES[0]]), *layers, tf.keras.layers.Dense(SIZES[-1])])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(RATE), loss, steps_per_execution=steps_per_execution)
    pixels = data.images.astype(np.float32) / 255
    batches = tf.data.Dataset.from_tensor_slices((pixels, data.labels)).shuffle(5000).batch(BATCH, drop_remainder=True)
    batches = batches.repeat().prefetch(tf.data.AUTOTUNE)

    def loop(steps: int) -> None:
        model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)

    return loop


def torch(python: str, steps: int) -> Speed:
    """benchmarks/training/pytorch.py at the better of its numbers of threads."""
    command = [python, str(Path(__file__).with_name("pytorch.py")), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return max(Speed(*speed) for speed in json.loads(done.stdout)["by_threads"].values())


def sgemm_gflops() -> float:
    """GFLOP/s of float32 matrix products large enough to fill the machine."""
    a = tf.random.normal([SGEMM, SGEMM])
    started, count = time.perf_counter(), 20
    for _ in range(count):
        product = a @ a
    product.numpy()
    return count * 2 * SGEMM**3 / (time.perf_counter() - started) / 1e9


def step_gflop() -> float:
    """Arithmetic of one step's matrix products: forward, weights' gradients, and inputs' but for the first layer."""
    products = [n * m for n, m in itertools.pairwise(SIZES)]
    return 2 * BATCH * (2 * sum(products) + sum(products[1:])) / 1e9


def timed(loop: Loop, steps: int) -> Speed:
    started, cpu = time.perf_counter(), time.process_time()
    loop(steps)
    return Speed(steps / (time.perf_counter() - started), (time.process_time() - cpu) / steps * 1e3)


def prepare_ours(data: Split) -> None:
    distribution.divide_cores(TrainSettings().shards)
    loops["ours"] = ours(data)
    loops["ours, augmented"] = ours(data, augment_shift_pixels=1.0, augment_rotation_degrees=7.0)
    loops["ours, augmented, elastic"] = ours(data, augment_shift_pixels=1.0, augment_elastic_pixels=1.0)
    warm_up()


def prepare_others(data: Split) -> None:
    loops["notebook"] = notebook(data)
    loops["Keras fit, 1 step a call"] = keras_fit(data, 1)
    loops["Keras fit, 100 steps a call"] = keras_fit(data, 100)
    warm_up()


def warm_up() -> None:
    for loop in loops.values():
        loop(STEPS_PER_CALL)  # trace, compile, fill caches


def names_of_loops() -> list[str]:
    return list(loops)


def speed_of(name: str, steps: int) -> Speed:
    return timed(loops[name], steps)


class Contest:
    """The loops in their processes, in rounds."""

    def __init__(self, data: Split, python: str | None) -> None:
        def process(prepare: Callable[[Split], None]) -> ProcessPoolExecutor:
            return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare, (data,))

        self._python = python
        self._others = process(prepare_others)
        self._process_of: dict[str, ProcessPoolExecutor] = {}
        for one in (process(prepare_ours), self._others):  # in turn, not at once
            self._process_of |= dict.fromkeys(one.submit(names_of_loops).result(), one)

    def round(self, number: int, steps: int) -> tuple[dict[str, Speed], float]:
        """All loops, begun with another one each time: speeds by name, and sgemm's GFLOP/s before and after ours."""
        names = list(self._process_of)
        first = number % len(names)
        found: dict[str, Speed] = {}
        gflops: list[float] = []
        for name in names[first:] + names[:first]:
            gflops += [self._others.submit(sgemm_gflops).result()] if name == "ours" else []
            found[name] = self._process_of[name].submit(speed_of, name, steps).result()
            gflops += [self._others.submit(sgemm_gflops).result()] if name == "ours" else []
        if self._python:
            found["PyTorch"] = torch(self._python, steps)
        return {name: found[name] for name in sorted(found)}, sum(gflops) / len(gflops)

    def close(self) -> None:
        for process in self._process_of.values():
            process.shutdown()


def times_faster(rounds: Sequence[Mapping[str, Speed]]) -> dict[str, dict[str, float]]:
    """Median over the rounds of ours against each other loop; Keras also at the better of its settings in a round."""
    others = {name: [r[name] for r in rounds] for name in rounds[0] if name != "ours"}
    keras = [name for name in others if name.startswith("Keras")]
    others["Keras fit at its best"] = [max(r[name] for name in keras) for r in rounds]
    pairs = {name: [(r["ours"], other) for r, other in zip(rounds, v, strict=True)] for name, v in others.items()}
    return {
        name: {
            "by_wall_time": round(median(ours.steps_per_second / other.steps_per_second for ours, other in p), 2),
            "by_cpu_time": round(median(other.cpu_ms_per_step / ours.cpu_ms_per_step for ours, other in p), 2),
        }
        for name, p in pairs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="per loop and round (default: %(default)s)")
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter of an environment that has PyTorch")
    options = parser.parse_args()
    files = fetch_mnist(REPOSITORY / "workspace" / "data" / "mnist", print)
    images = idx.read_images(files.train_images).reshape(-1, SIZES[0])
    data = Split(images[:55_000], idx.read_labels(files.train_labels)[:55_000].astype(np.int64))
    contest = Contest(data, options.torch)
    rounds, gflops = [], []
    for n in range(options.rounds):
        found, sgemm = contest.round(n, options.steps)
        rounds.append(found)
        gflops.append(sgemm)
        print(
            f"round {n + 1}:",
            ", ".join(f"{name} {one.steps_per_second:.0f}" for name, one in found.items()),
            flush=True,
        )
    contest.close()
    shares = [r["ours"].steps_per_second * step_gflop() / peak for r, peak in zip(rounds, gflops, strict=True)]
    document = {
        "rounds": [{name: one._asdict() for name, one in found.items()} for found in rounds],
        "median_steps_per_second": {
            name: round(median(r[name].steps_per_second for r in rounds)) for name in rounds[0]
        },
        "median_cpu_ms_per_step": {
            name: round(median(r[name].cpu_ms_per_step for r in rounds), 2) for name in rounds[0]
        },
        "ours_times_faster_than": times_faster(rounds),
        "sgemm_gflops": [round(value) for value in gflops],
        "share_of_sgemm": round(median(shares), 3),
        "gflop_per_step": round(step_gflop(), 4),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "tensorflow": tf.__version__,
    }
    RESULT_FILE.parent.mkdir(exist_ok=True)
    RESULT_FILE.write_text(json.dumps(document, indent=1))
    print(json.dumps({k: v for k, v in document.items() if k != "rounds"}, indent=1))
    print(f"written: {RESULT_FILE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
