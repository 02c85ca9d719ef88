"""Train each configuration with several seeds, through the whole pipeline, and print mean and deviation of its scores.

    python -m benchmarks.training.scores      (about 15 minutes on two cores, most of it configs/best.toml)

All runs share one temporary home, so that only the first makes the examples; nothing is compared with an earlier model.
The test split is what the Evaluator gates on: no setting was chosen by it. Writes build/bench_training_scores.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from components.data.mnist import fetch_mnist

REPOSITORY: Final = Path(__file__).resolve().parents[2]
RESULT_FILE: Final = REPOSITORY / "build" / "bench_training_scores.json"
CONFIGS: Final = ("notebook", "default", "best")
SCORES: Final = ("test_accuracy", "eval_accuracy", "train_accuracy")
JUDGED: Final = (0, 3)  # exit codes: pushed, not blessed


def run(config: str, seed: int, home: Path) -> dict[str, Any]:
    """One run's metrics, blessing and the Trainer's seconds."""
    own = ["--config", f"configs/{config}.toml", "--set", f"train.seed={seed}", "--set", "gate.max_accuracy_drop=1.0"]
    command = [sys.executable, "-m", "pipeline", "run", "--json", "--home", str(home), *own]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode not in JUDGED:
        raise SystemExit(f"{config}, seed {seed} failed:\n{done.stderr}")
    result = json.loads(done.stdout)
    seconds = {node["id"]: node["seconds"] for node in result["nodes"]}
    metrics = {name: result["metrics"][name] for name in SCORES}
    return {"seed": seed, **metrics, "blessed": result["blessed"], "trainer_seconds": seconds["Trainer"]}


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{score: [mean, standard deviation]} over runs of one configuration."""
    values = {name: [one[name] for one in runs] for name in SCORES}
    return {name: [round(mean(v), 5), round(stdev(v), 5) if len(v) > 1 else None] for name, v in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--only", action="append", choices=CONFIGS, help="repeatable; the file keeps what it has of the others"
    )
    options = parser.parse_args()
    files = fetch_mnist(REPOSITORY / "workspace" / "data" / "mnist", print)
    known = json.loads(RESULT_FILE.read_text())["configs"] if options.only and RESULT_FILE.exists() else {}
    document: dict[str, Any] = {"cores": os.cpu_count(), "configs": known}
    RESULT_FILE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data", "mnist")
        data.mkdir(parents=True)
        for file in files:
            shutil.copy(file, data)
        for config in options.only or CONFIGS:
            runs = []
            for seed in range(1, options.seeds + 1):
                runs.append(run(config, seed, Path(folder)))
                print(f"{config}: {runs[-1]}", flush=True)
            document["configs"][config] = {"runs": runs, **summary(runs)}
            RESULT_FILE.write_text(json.dumps(document, indent=1))  # what is known so far
    for config, found in document["configs"].items():
        print(config, "  ".join(f"{name} {found[name][0]:.4f} +- {found[name][1] or 0:.4f}" for name in SCORES))
    print(f"written: {RESULT_FILE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
