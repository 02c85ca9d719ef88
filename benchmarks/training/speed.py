"""Compare our training loop with others on the same network, data, batch size and optimizer, in alternating rounds.

    python -m benchmarks.training.speed      (about 3 minutes on two cores; --torch PYTHON adds PyTorch)

Only steps are timed, after a warm-up: no reading, no compiling. One loop runs at a time, and each round runs all of
them, so that other load on the machine affects all. Our loops run in a process that divides its cores among a batch's
shards, as a run of the pipeline does; the others run in a process with TensorFlow's default threads. The share of sgemm
is our loop's arithmetic throughput divided by that of large matrix products on all cores in the same round. Writes
build/bench_training_speed.json.

PyTorch needs its own environment, which this file does not create:

    python3 -m venv build/torch && build/torch/bin/pip install torch==2.13.0
    python -m benchmarks.training.speed --torch build/torch/bin/python
"""

from __future__ import annotations

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
from typing import Final, NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks import harness
from benchmarks.training.loops import BATCH, SIZES, Loop, keras_fit, notebook, ours
from components.common import resources
from components.common.settings import TrainSettings
from components.data import idx
from components.training import distribution
from components.training.input_pipeline import Split
from components.training.loop import STEPS_PER_CALL

SGEMM: Final = 1024  # rows and columns
loops: dict[str, Loop] = {}  # in this process


class Speed(NamedTuple):
    """Speed by wall time, and CPU time, which depends less on other processes on the machine."""

    steps_per_second: float
    cpu_ms_per_step: float


def torch(python: str, steps: int) -> Speed:
    """Speed of benchmarks/training/pytorch.py with the faster number of threads."""
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
    """Arithmetic of one step's matrix products: forward, weight gradients, input gradients from layer 2 on."""
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
    """All loops, measured in rounds; ours run in one process, the others in another."""

    def __init__(self, data: Split, python: str | None) -> None:
        def process(prepare: Callable[[Split], None]) -> ProcessPoolExecutor:
            return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare, (data,))

        self._python = python
        self._others = process(prepare_others)
        self._process_of: dict[str, ProcessPoolExecutor] = {}
        for one in (process(prepare_ours), self._others):  # one after the other
            self._process_of |= dict.fromkeys(one.submit(names_of_loops).result(), one)

    def round(self, number: int, steps: int) -> tuple[dict[str, Speed], float]:
        """Run all loops, starting with a different one in each round.

        Returns:
            speed by name; GFLOP/s of sgemm, mean of before and after our loop
        """
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
    """Median over the rounds of our speed / its speed; for Keras also with the faster setting of each round."""
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
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="per loop and round (default: %(default)s)")
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter of an environment that has PyTorch")
    options = parser.parse_args()
    files = harness.mnist_files()
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
        "cores": resources.cores(),
        "load_average": os.getloadavg(),
        "tensorflow": tf.__version__,
    }
    print(json.dumps({k: v for k, v in document.items() if k != "rounds"}, indent=1))
    harness.write_result("bench_training_speed.json", document)


if __name__ == "__main__":
    main()
