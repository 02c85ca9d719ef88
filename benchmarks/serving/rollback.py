"""Roll back under a steady load: every request must be answered; how long until the last one from the bad version?

    python -m benchmarks.serving.rollback      (about a minute; needs a pushed model in workspace/)

The pushed model lies in a fresh home as versions 1, 2 and 3. Each round promotes one after the other and then runs
`python -m serving rollback` as an operator does, while half of the requests ask by the label `stable` and half without
a label. In turns it goes back to version 2, which is still loaded, and by name to version 1, which is not. Full effect
is when the last request was sent that version 3 answered, counted from the start of the command's process. Latencies
are beside those of the same load without a rollback, for what else the machine is doing.
Writes build/bench_serving_rollback.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import numpy as np

from benchmarks.serving.load import PREDICT, REPOSITORY
from components.versions import manifest
from components.versions.release import pushed_versions, version_folder
from serving.launch import server
from serving.launch.backends import Setup
from serving.protocol import serving_pb2 as pb
from serving.protocol.tensors import to_proto
from serving.release import decisions

RESULT_FILE: Final = REPOSITORY / "build" / "bench_serving_rollback.json"
LABELS: Final = ("stable", "")
BEFORE_S: Final = 1.0  # of load before the command, and after it has ended


class Sample(NamedTuple):
    """A request that was answered; times by time.perf_counter()."""

    label: str
    sent: float
    latency_s: float
    version: int


class Load:
    """Requests at a steady rate, whatever the answers; labels in turns."""

    def __init__(self, port: int, rate: float) -> None:
        self.samples: list[Sample] = []
        self.failures: list[str] = []
        self._port, self._rate, self._stop = port, rate, asyncio.Event()

    async def run(self) -> None:
        image = to_proto(np.zeros((1, 28, 28), np.uint8), content=True)
        encoded = {}
        for label in LABELS:
            request = pb.PredictRequest(model_spec=pb.ModelSpec(name="mnist", version_label=label or None))
            request.inputs["images"].CopyFrom(image)
            encoded[label] = request.SerializeToString()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            call = channel.unary_unary(PREDICT)

            async def ask(label: str) -> None:
                sent = time.perf_counter()
                try:
                    answer = pb.PredictResponse.FromString(await call(encoded[label], timeout=5))
                except grpc.aio.AioRpcError as e:
                    self.failures.append(f"{label or 'no label'}: {e.code().name}: {e.details()}")
                    return
                version = answer.model_spec.version.value
                self.samples.append(Sample(label, sent, time.perf_counter() - sent, version))

            started, count, asked = time.perf_counter(), 0, set()
            while not self._stop.is_set():
                while count < (time.perf_counter() - started) * self._rate:
                    task = asyncio.create_task(ask(LABELS[count % len(LABELS)]))
                    asked.add(task)
                    task.add_done_callback(asked.discard)
                    count += 1
                await asyncio.sleep(0.002)
            await asyncio.gather(*asked)

    def stop(self) -> None:
        self._stop.set()


async def round_of(home: Path, rate: float, words: tuple[str, ...]) -> tuple[Load, dict[str, float]]:
    """One rollback from version 3 under load; seconds until it had effect, by kind of request."""
    running = server.find(home)
    assert running is not None
    load = Load(running.grpc_port, rate)
    loading = asyncio.create_task(load.run())
    await asyncio.sleep(BEFORE_S)
    began = time.perf_counter()
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "serving", "rollback", *words, "--home", str(home), "--json"),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await command.communicate()
    ended = time.perf_counter()
    assert command.returncode == 0
    await asyncio.sleep(BEFORE_S)
    load.stop()
    await loading
    last = {label: max(s.sent for s in load.samples if s.label == label and s.version == 3) for label in LABELS}
    return load, {
        "label_s": last["stable"] - began,
        "no_label_s": last[""] - began,
        "command_s": ended - began,
        "steps_s": json.loads(output)["seconds"],
    }


async def undisturbed(home: Path, rate: float) -> Load:
    """The same load for as long, and nothing else."""
    running = server.find(home)
    assert running is not None
    load = Load(running.grpc_port, rate)
    loading = asyncio.create_task(load.run())
    await asyncio.sleep(3 * BEFORE_S)
    load.stop()
    await loading
    return load


def latencies(samples: list[Sample]) -> dict[str, float]:
    p50, p99 = np.percentile([sample.latency_s for sample in samples], [50, 99]) * 1e3
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def push(model: Path, home: Path, version: int) -> None:
    """The model under another number, with a manifest that fits."""
    target = version_folder(home, version)
    shutil.copytree(model, target)
    manifest.write(replace(manifest.read(target), version=version), target)


def measure(model: Path, rounds: int, rate: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for version in (1, 2, 3):
            push(model, home, version)
        server.start(Setup(home, server.free_port(), server.free_port()), "embedded")
        kinds: dict[str, tuple[str, ...]] = {"loaded": (), "not loaded": ("1",)}
        results: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        samples: list[Sample] = []
        control: list[Sample] = []
        failures: list[str] = []
        try:
            for kind, words in [*kinds.items()] * rounds:
                control += asyncio.run(undisturbed(home, rate)).samples
                for version in (1, 2, 3):
                    decisions.promote(home, version)
                load, times = asyncio.run(round_of(home, rate, words))
                results[kind].append(times)
                samples += load.samples
                failures += load.failures
        finally:
            server.stop(home)
    return {
        "rollbacks": 2 * rounds,
        "requests": len(samples) + len(failures),
        "failed": len(failures),
        "failures": failures[:5],
        "with rollbacks": latencies(samples),
        "without": latencies(control),
        **{
            f"rollback to a version that is {kind}": {
                key: {"median": round(statistics.median(values), 3), "max": round(max(values), 3)}
                for key in times[0]
                for values in [[one[key] for one in times]]
            }
            for kind, times in results.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, default=REPOSITORY / "workspace")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    options = parser.parse_args()
    pushed = pushed_versions(options.home)
    if not pushed:
        raise SystemExit(f"{options.home}: no pushed version; make pipeline pushes one")
    result = measure(version_folder(options.home, pushed[-1]), options.rounds, options.rate)
    RESULT_FILE.parent.mkdir(exist_ok=True)
    RESULT_FILE.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    if result["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
