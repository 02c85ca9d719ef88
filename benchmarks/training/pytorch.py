"""The same network, batch size and optimizer in PyTorch; benchmarks/training/speed.py runs it in PyTorch's environment.

    build/torch/bin/python benchmarks/training/pytorch.py 500

As in our loop, the data is in memory and batches are gathered by index. Prints JSON: steps per second and CPU
milliseconds per step by number of threads.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads slow each other down on a busy machine

import torch  # type: ignore[import-not-found]

SIZES, BATCH, RATE, EXAMPLES = (784, 128, 256, 10), 256, 0.1, 55_000


def measure(steps: int, threads: int) -> tuple[float, float]:
    """(steps per second, CPU milliseconds per step)"""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (EXAMPLES, SIZES[0]), dtype=torch.uint8)
    labels = torch.randint(0, SIZES[-1], (EXAMPLES,))
    layers = []
    for n, m in itertools.pairwise(SIZES):
        layers += [torch.nn.Linear(n, m), torch.nn.Sigmoid()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    order = torch.randint(0, EXAMPLES, (steps, BATCH))

    def run(count: int) -> None:
        for chosen in order[:count]:
            x = images[chosen].float() / 255
            loss = torch.nn.functional.cross_entropy(model(x), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    run(50)
    started, cpu = time.perf_counter(), time.process_time()
    run(steps)
    return steps / (time.perf_counter() - started), (time.process_time() - cpu) / steps * 1e3


def main() -> None:
    steps = int(sys.argv[1])
    threads = sorted({1, os.cpu_count() or 1})
    print(json.dumps({"by_threads": {n: measure(steps, n) for n in threads}, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
