"""Roll back under a steady load: time until the replaced version's last response. Each request must be answered.

    python -m benchmarks.serving.rollback      (about a minute; needs a pushed model in workspace/)

A new home contains the pushed model as versions 1, 2 and 3. Each round promotes them in order and then runs
`python -m serving rollback` as an operator does. Half of the requests name the label `stable`, the other half no label.
Rounds alternate between a rollback to version 2, which is still loaded, and one to version 1, which is not. Times are
from the start of the command's process until version 3 answered its last request. The latencies of the same load
without a rollback are recorded for comparison. Writes build/bench_serving_rollback.json.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import harness
from benchmarks.serving.clients import Sample, SteadyLoad, percentiles_ms
from components.common import ROOT
from components.common.ports import free_port
from components.versions import manifest
from components.versions.release import version_folder
from serving.launch import server
from serving.launch.backends import Setup
from serving.release import decisions

VERSIONS: Final = (1, 2, 3)
LABELS: Final = ("stable", "")
PAUSE_S: Final = 1.0  # of load before and after the command
KINDS: Final[dict[str, tuple[str, ...]]] = {"loaded": (), "not loaded": ("1",)}  # arguments of the rollback


async def roll_back(home: Path, *arguments: str) -> tuple[float, float, float]:
    """Run the command; returns time.perf_counter() at its start and its end, and the seconds that it reports."""
    await asyncio.sleep(PAUSE_S)
    began_s = time.perf_counter()
    command = [sys.executable, "-m", "serving", "rollback", *arguments, "--home", str(home), "--json"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"rollback: exit code {process.returncode}")
    ended_s = time.perf_counter()
    await asyncio.sleep(PAUSE_S)
    return began_s, ended_s, json.loads(output)["seconds"]


def push(model: Path, home: Path, version: int) -> None:
    """Copy the model into a home as this version, with a manifest for it."""
    target = version_folder(home, version)
    shutil.copytree(model, target)
    manifest.write(replace(manifest.read(target), version=version), target)


class Experiment:
    """Rollbacks in one home that is being served.

    Attributes:
        samples, control: answered requests, with and without rollbacks.
        failures: messages of requests that failed during a rollback.
    """

    def __init__(self, home: Path, requests_per_s: float) -> None:
        self.samples: list[Sample] = []
        self.control: list[Sample] = []
        self.failures: list[str] = []
        self._home, self._rate = home, requests_per_s

    def round(self, *arguments: str) -> dict[str, float]:
        """One rollback from version 3; returns the seconds until it took effect, by kind of request."""
        load, _ = self._load(asyncio.sleep(3 * PAUSE_S))
        self.control += load.samples
        for version in VERSIONS:
            decisions.promote(self._home, version)
        load, (began_s, ended_s, steps_s) = self._load(roll_back(self._home, *arguments))
        self.samples += load.samples
        self.failures += load.failures
        last_s = {
            label: max(s.sent_s for s in load.samples if s.label == label and s.version == VERSIONS[-1])
            for label in LABELS
        }
        return {
            "label_s": last_s["stable"] - began_s,
            "no_label_s": last_s[""] - began_s,
            "command_s": ended_s - began_s,
            "steps_s": steps_s,
        }

    def _load(self, during: Awaitable[Any]) -> tuple[SteadyLoad, Any]:
        running = server.find(self._home)
        if running is None:
            raise SystemExit("the server has ended")
        load = SteadyLoad(running.grpc_port, self._rate, LABELS)
        return load, asyncio.run(load.run(during))


def measure(model: Path, rounds: int, requests_per_s: float) -> dict[str, Any]:
    times: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for version in VERSIONS:
            push(model, home, version)
        server.start(Setup(home, free_port(), free_port()), "embedded")
        experiment = Experiment(home, requests_per_s)
        try:
            for _ in range(rounds):
                for kind, arguments in KINDS.items():
                    times[kind].append(experiment.round(*arguments))
        finally:
            server.stop(home)
    return {
        "rollbacks": len(KINDS) * rounds,
        "requests": len(experiment.samples) + len(experiment.failures),
        "failed": len(experiment.failures),
        "failures": experiment.failures[:5],
        "with rollbacks": percentiles_ms([sample.latency_s for sample in experiment.samples]),
        "without": percentiles_ms([sample.latency_s for sample in experiment.control]),
        **{f"rollback to a version that is {kind}": summary(found) for kind, found in times.items()},
    }


def summary(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """{name: median and maximum over the rounds}"""
    values = {name: [one[name] for one in rounds] for name in rounds[0]}
    return {name: {"median": round(statistics.median(v), 3), "max": round(max(v), 3)} for name, v in values.items()}


def main() -> None:
    parser = harness.argument_parser(__doc__, home=True)
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    options = parser.parse_args()
    result = measure(harness.pushed_model(options.home), options.rounds, options.rate)
    print(json.dumps(result, indent=1))
    harness.write_result("bench_serving_rollback.json", result)
    if result["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
