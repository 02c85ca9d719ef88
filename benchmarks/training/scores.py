"""Train each configuration with several seeds, through the whole pipeline; report mean and deviation of the scores.

    python -m benchmarks.training.scores      (about 15 minutes on two cores, most of it configs/best.toml)

All runs share a temporary home, so that only the first writes the examples. No run is compared with an earlier model,
and no setting was chosen by its score on the test split. Writes build/bench_training_scores.json.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from benchmarks import harness
from components.common import ROOT, resources

RESULT: Final = "bench_training_scores.json"
CONFIGS: Final = ("notebook", "default", "best")
SCORES: Final = ("test_accuracy", "eval_accuracy", "train_accuracy")
EVALUATED: Final = (0, 3)  # exit codes: pushed, not blessed


def run(config: str, seed: int, home: Path) -> dict[str, Any]:
    """One run: its metrics, whether the model was blessed, and the seconds of the Trainer."""
    settings = ["--set", f"train.seed={seed}", "--set", "gate.max_accuracy_drop=1.0"]
    command = harness.pipeline_command(home, "--json", "--config", f"configs/{config}.toml", *settings)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in EVALUATED:
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
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--only", action="append", choices=CONFIGS, help="repeatable; results of the others are kept")
    options = parser.parse_args()
    files, record = harness.mnist_files(), harness.RESULTS / RESULT
    known = json.loads(record.read_text())["configs"] if options.only and record.exists() else {}
    document: dict[str, Any] = {"cores": resources.cores(), "configs": known}
    with tempfile.TemporaryDirectory() as folder:
        harness.copy_mnist(files, Path(folder))
        for config in options.only or CONFIGS:
            runs = []
            for seed in range(1, options.seeds + 1):
                runs.append(run(config, seed, Path(folder)))
                print(f"{config}: {runs[-1]}", flush=True)
            document["configs"][config] = {"runs": runs, **summary(runs)}
            harness.write_result(RESULT, document)  # results so far
    for config, found in document["configs"].items():
        print(config, "  ".join(f"{name} {found[name][0]:.4f} +- {found[name][1] or 0:.4f}" for name in SCORES))


if __name__ == "__main__":
    main()
