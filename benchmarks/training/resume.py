"""Kill the pipeline while it trains, run it again, and compare the weights with those of a run that was not killed.

    python -m benchmarks.training.resume      (about 10 minutes on two cores)

Each time the home is put back to where training begins, `kill -9` comes at a random moment of the training, and the
same command is given again. Two runs that are not killed come first, in homes of their own. Writes
build/bench_training_resume.json.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from components.data.mnist import fetch_mnist
from tests.drills.product import RUN_TIMEOUT_S, kill, still_alive, wait_until

REPOSITORY: Final = Path(__file__).resolve().parents[2]
RESULT_FILE: Final = REPOSITORY / "build" / "bench_training_resume.json"


class Home:
    """A home of its own, and the command that trains in it."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder, self._copy = folder / "home", folder / "before-training"
        data = f"data.source={REPOSITORY / 'workspace' / 'data' / 'mnist'}"
        words = ["--config", config, "--set", data, "--set", "gate.max_accuracy_drop=1.0", "--home", str(self.folder)]
        self._command = [sys.executable, "-m", "pipeline", "run", "--json", *words]

    def start(self) -> subprocess.Popen[str]:
        """A run in the background; returns when its Trainer has begun."""
        process = subprocess.Popen(
            self._command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        wait_until(lambda: list(self.folder.glob("logs/*/Trainer.log")) or process.poll() is not None, RUN_TIMEOUT_S)
        return process

    def prepare(self) -> None:
        """Run up to the Trainer and remember the home as it is then."""
        still_alive(kill(self.start()))
        shutil.rmtree(self.folder / "artifacts" / "Trainer", ignore_errors=True)
        shutil.rmtree(self.folder / "logs")
        shutil.move(self.folder, self._copy)

    def put_back(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._copy, self.folder, symlinks=True)

    def finish(self) -> dict[str, Any]:
        """Run to the end: the history of the model that was trained, the Trainer's state and its seconds."""
        done = subprocess.run(self._command, cwd=REPOSITORY, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        if done.returncode:
            raise SystemExit(done.stderr)
        (path,) = self.folder.glob("artifacts/Trainer/model/*/history.json")
        history = json.loads(path.read_text())
        (trainer,) = (node for node in json.loads(done.stdout)["nodes"] if node["id"] == "Trainer")
        found = {key: history[key] for key in ("weights_sha256", "resumed_at_step")}
        return {**found, "trainer": trainer["state"], "trainer_seconds": trainer["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="default: %(default)s")
    parser.add_argument("--config", default="configs/default.toml", help="default: %(default)s")
    options = parser.parse_args()
    fetch_mnist(REPOSITORY / "workspace" / "data" / "mnist", print)
    with tempfile.TemporaryDirectory() as temporary:
        other, home = (Home(Path(temporary, name).resolve(), options.config) for name in ("other", "own"))
        home.prepare()
        home.put_back()
        whole = [other.finish(), home.finish()]
        print(f"not killed: {whole}", flush=True)
        killed: list[dict[str, Any]] = []
        while len(killed) < options.kills:
            home.put_back()
            process = home.start()
            delay_s = random.uniform(0, whole[0]["trainer_seconds"])
            try:
                process.wait(delay_s)
                continue  # it was over before the kill
            except subprocess.TimeoutExpired:
                still_alive(kill(process))
            again = home.finish()
            if again["trainer"] == "ran":  # else it had finished before the kill
                killed.append({"killed_after_s": round(delay_s, 1), **again})
                print(killed[-1], flush=True)
    hashes = [one["weights_sha256"] for one in whole + killed]
    document = {
        "config": options.config,
        "not_killed": whole,
        "killed": killed,
        "same_weights": sum(digest == hashes[0] for digest in hashes[len(whole) :]),
        "two_runs_have_the_same_weights": hashes[0] == hashes[1],
        "resumed_from_a_checkpoint": sum(one["resumed_at_step"] > 0 for one in killed),
    }
    RESULT_FILE.parent.mkdir(exist_ok=True)
    RESULT_FILE.write_text(json.dumps(document, indent=1))
    print(json.dumps({key: value for key, value in document.items() if key not in ("not_killed", "killed")}, indent=1))


if __name__ == "__main__":
    main()
