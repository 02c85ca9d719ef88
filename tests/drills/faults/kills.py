"""`kill -9` of the pipeline while a given node runs."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.harness import kill, survivors, wait_until
from tests.drills.faults.checks import NEWEST, expect, expect_exit
from tests.drills.probe import Probe
from tests.drills.product import Product, settings

KILLS: Final = 16  # inside one node
BRIEF_NODES: Final = {"Schema", "Baseline"}  # take milliseconds: a kill may come too late
NODE_TIMEOUT_S: Final = 60.0


def killed_at_every_node(product: Product, probe: Probe) -> str:
    """With new data, so that every node runs. Each run resumes where the previous one was killed."""
    nodes = [node["id"] for node in product.run(*NEWEST).json["nodes"]]
    arguments = settings("train.seed=5", "data.eval_examples=105", "data.max_mean_intensity=0.51")
    hit = [_kill_at(product, probe, node, 0.0, arguments) for node in nodes]
    expect(set(hit) >= set(nodes) - BRIEF_NODES, f"hit only {hit}")
    expect_exit(product.run(*arguments), 0)
    return f"{len(hit)} kills, at {', '.join(dict.fromkeys(hit))}; each rerun resumed from there"


def killed_in_infra_validator(product: Product, probe: Probe) -> str:
    def arguments(count: int) -> list[str]:
        return settings("train.seed=2", f"infra.max_p99_ms={20_000 + count}")  # another threshold: the node runs again

    return _kill_often(product, probe, "InfraValidator", arguments)


def killed_in_pusher(product: Product, probe: Probe) -> str:
    """Two models alternate, so that the model to push is never already the newest version."""
    expect_exit(product.run(*settings("train.seed=1")), 0)  # evaluates it against the other one

    def arguments(count: int) -> list[str]:
        return settings(f"train.seed={1 + count % 2}", f"push.keep_versions={100 + count}")

    return _kill_often(product, probe, "Pusher", arguments)


def _kill_often(product: Product, probe: Probe, node: str, arguments: Callable[[int], list[str]]) -> str:
    """Repeat until KILLS kills have hit the node, at times spread over 1.2 times its duration."""
    duration_s = max(_seconds(product)[node], 0.1)
    generator = random.Random(7)
    hits = count = 0
    while hits < KILLS:
        hit = _kill_at(product, probe, node, generator.uniform(0, 1.2 * duration_s), arguments(count))
        hits += hit == node
        count += 1
        expect(count < 4 * KILLS, f"only {hits} of {count} kills hit {node}")
    return f"{hits} kills inside it"


def _kill_at(product: Product, probe: Probe, node: str, delay_s: float, arguments: Sequence[str]) -> str:
    """Start a run and kill it `delay_s` after a node has started.

    Returns:
        the node that was killed; "finished" if the run ended first
    """
    before = product.run_logs()
    process = product.start_run(*arguments)
    wait_until(lambda: process.poll() is not None or _has_begun(product, before, node), NODE_TIMEOUT_S)
    try:
        process.wait(delay_s)
        return "finished"
    except subprocess.TimeoutExpired:
        left = survivors(kill(process))
    expect(not left, f"processes {left} outlived the run")
    probe.settle()
    expect(not product.tampered_versions(), f"{product.tampered_versions()}")
    expect(not probe.violations, f"{probe.violations}")
    (logs,) = product.run_logs() - before
    return max((path.stat().st_ctime_ns, path.stem) for path in logs.glob("*.log"))[1]


def _has_begun(product: Product, before: set[Path], node: str) -> bool:
    return any((folder / f"{node}.log").exists() for folder in product.run_logs() - before)


def _seconds(product: Product) -> dict[str, float]:
    """Return the duration of each node's last run."""
    found: dict[str, float] = {}
    for path in sorted(product.home.glob("logs/*/run.json")):
        nodes = json.loads(path.read_text())["nodes"]
        found |= {node["id"]: node["seconds"] for node in nodes if node["state"] == "ran"}
    return found
