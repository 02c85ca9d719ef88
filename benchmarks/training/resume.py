"""Kill the pipeline during training, run it again, and compare the weights with those of a run that was not killed.

    python -m benchmarks.training.resume      (about 10 minutes on two cores)

Each round restores the home to its state before training, sends `kill -9` at a random moment of the training, and runs
the same command again. Two uninterrupted runs in separate homes come first. Writes build/bench_training_resume.json.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks import harness
from components.common import ROOT

RUN_TIMEOUT_S: Final = 600


class Home:
    """A home, and the command that trains in it."""

    def __init__(self, folder: Path, config: str, data: Path) -> None:
        self.folder, self._copy = folder / "home", folder / "before-training"
        settings = ["--set", f"data.source={data}", "--set", "gate.max_accuracy_drop=1.0"]
        self._command = harness.pipeline_command(self.folder, "--json", "--config", config, *settings)

    def start(self) -> subprocess.Popen[str]:
        """Start a run in the background; returns when its Trainer has begun."""
        process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )
        harness.wait_until(
            lambda: list(self.folder.glob("logs/*/Trainer.log")) or process.poll() is not None, RUN_TIMEOUT_S
        )
        return process

    def prepare(self) -> None:
        """Run up to the Trainer and keep a copy of the home."""
        harness.survivors(harness.kill(self.start()))
        shutil.rmtree(self.folder / "artifacts" / "Trainer", ignore_errors=True)
        shutil.rmtree(self.folder / "logs")
        shutil.move(self.folder, self._copy)

    def restore(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._copy, self.folder, symlinks=True)

    def finish(self) -> dict[str, Any]:
        """Run to the end; returns the hash of the weights, the resumed step, and the Trainer's state and seconds."""
        done = subprocess.run(self._command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        if done.returncode:
            raise SystemExit(done.stderr)
        (path,) = self.folder.glob("artifacts/Trainer/model/*/history.json")
        history = json.loads(path.read_text())
        (trainer,) = (node for node in json.loads(done.stdout)["nodes"] if node["id"] == "Trainer")
        found = {key: history[key] for key in ("weights_sha256", "resumed_at_step")}
        return {**found, "trainer": trainer["state"], "trainer_seconds": trainer["seconds"]}


def main() -> None:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="default: %(default)s")
    parser.add_argument("--config", default="configs/default.toml", help="default: %(default)s")
    options = parser.parse_args()
    data = harness.mnist_files().train_images.parent
    with tempfile.TemporaryDirectory() as temporary:
        other, home = (Home(Path(temporary, name).resolve(), options.config, data) for name in ("other", "own"))
        home.prepare()
        home.restore()
        undisturbed = [other.finish(), home.finish()]
        print(f"not killed: {undisturbed}", flush=True)
        killed: list[dict[str, Any]] = []
        while len(killed) < options.kills:
            home.restore()
            process = home.start()
            delay_s = random.uniform(0, undisturbed[0]["trainer_seconds"])
            try:
                process.wait(delay_s)
                continue  # it ended before the kill
            except subprocess.TimeoutExpired:
                harness.survivors(harness.kill(process))
            again = home.finish()
            if again["trainer"] == "ran":  # else the Trainer had finished before the kill
                killed.append({"killed_after_s": round(delay_s, 1), **again})
                print(killed[-1], flush=True)
    hashes = [one["weights_sha256"] for one in undisturbed + killed]
    document = {
        "config": options.config,
        "not_killed": undisturbed,
        "killed": killed,
        "same_weights": sum(digest == hashes[0] for digest in hashes[len(undisturbed) :]),
        "two_runs_have_the_same_weights": hashes[0] == hashes[1],
        "resumed_from_a_checkpoint": sum(one["resumed_at_step"] > 0 for one in killed),
    }
    print(json.dumps({key: value for key, value in document.items() if key not in ("not_killed", "killed")}, indent=1))
    harness.write_result("bench_training_resume.json", document)


if __name__ == "__main__":
    main()
