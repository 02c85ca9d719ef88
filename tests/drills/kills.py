"""Kills the pipeline with `kill -9` at random times across whole runs, and checks that it never leaves a bad state.

    python -m tests.drills.kills --kills 200      (about an hour; resumes where it was stopped)

Each round starts `python -m pipeline run` with small settings and kills this process only, at a random time between 0
and the duration of a whole run, which is estimated along the way. A server is running all the time. Most runs change
settings, so that nodes run again instead of being cached. After every kill, each version must be blessed and complete,
the server must respond from such a version with unchanged results, and no process of the run may be left. After every
twentieth kill and at the end, the run is repeated without a kill: it must exit with code 0, MLMD must have no
unfinished execution, and `python -m pipeline validate` must pass. Writes build/drills_kill.json after every kill.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks import harness
from benchmarks.harness import kill, survivors, wait_until
from tests.drills.probe import Probe, probing
from tests.drills.product import Product
from tests.support.synthetic import write_data_set

RESULT_FILE: Final = harness.RESULTS / "drills_kill.json"
REPEAT_EVERY: Final = 20
CHANGE_TRAINING: Final = 0.5  # probability that the next run trains another model,
CHANGE_DATA: Final = 0.3  # or that it has other examples and another schema
START_UP: Final = "start-up"


class Campaign:
    """Kills in one home, each recorded in a file, so that a stopped campaign can be resumed."""

    def __init__(self, folder: Path, seed: int) -> None:
        data = folder / "data"
        self._product = Product(folder / "home", data if data.is_dir() else write_data_set(data))
        self._record_file = folder / "kills.jsonl"
        self.records = [json.loads(line) for line in self._lines()]
        self._random = random.Random(seed * 1000 + len(self.records))
        self._settings = len(self.records)  # each number means other settings and thus another model
        self._data_settings = self._settings
        self._duration_s = 0.0
        self._nodes: list[str] = []

    def run(self, kills: int, write: Callable[[], None]) -> None:
        """Continue until there are `kills` kills; `write` is called after each round."""
        self._whole_run()
        with probing(self._product) as probe:
            while sum(record["killed"] for record in self.records) < kills:
                record = self._round(probe)
                self.records.append(record)
                with open(self._record_file, "a") as file:
                    file.write(json.dumps(record) + "\n")
                write()
            self.records.append({"killed": False, "at": "the end", "bad": self._repeat(probe)})
            write()

    def _lines(self) -> list[str]:
        return self._record_file.read_text().splitlines() if self._record_file.is_file() else []

    def _arguments(self) -> list[str]:
        return [
            *("--set", f"train.seed={self._settings}"),
            *("--set", f"data.eval_examples={100 + self._data_settings % 50}"),
            *("--set", f"data.max_mean_intensity={0.5 + self._data_settings % 50 / 1000}"),
        ]

    def _whole_run(self) -> None:
        """Run without cache and without a kill: measures the duration, and reads the names of the nodes."""
        self._settings += 1
        self._data_settings += 1
        started = time.monotonic()
        done = self._product.run(*self._arguments())
        if done.code:
            raise RuntimeError(done.stderr)
        self._duration_s = time.monotonic() - started
        self._nodes = [node["id"] for node in done.json["nodes"]]

    def _round(self, probe: Probe) -> dict[str, Any]:
        chance = self._random.random()
        if chance < CHANGE_TRAINING:
            self._settings += 1
        elif chance < CHANGE_TRAINING + CHANGE_DATA:
            self._data_settings += 1
        delay_s = self._random.uniform(0, self._duration_s)
        logs_before = self._product.run_logs()
        process = self._product.start_run(*self._arguments())
        wait_until(lambda: process.poll() is not None, delay_s)
        bad: list[str] = []
        code = process.poll()
        self._duration_s *= 1.03 if code is None else 0.78  # adapts to load and caches
        if code is None:
            bad += [f"process {pid} outlived the run" for pid in survivors(kill(process))]
        elif code:
            bad.append(f"exit code {code}")
        bad += self._bad_state(probe)
        killed = code is None
        if killed and sum(record["killed"] for record in self.records) % REPEAT_EVERY == REPEAT_EVERY - 1:
            bad += self._repeat(probe)
        return {
            "killed": killed,
            "at": self._running(logs_before) if killed else "finished",
            "delay_s": round(delay_s, 2),
            "unrecorded_versions": len(set(self._product.versions()) - self._product.recorded_versions()),
            "served": probe.now,
            "bad": bad,
        }

    def _running(self, logs_before: set[Path]) -> str:
        """Return the node that was running when the run was killed: the last one with a log file."""
        for folder in self._product.run_logs() - logs_before:
            for node in reversed(self._nodes):
                if (folder / f"{node}.log").exists():
                    return node
        return START_UP

    def _bad_state(self, probe: Probe) -> list[str]:
        """Return violations of the conditions that must always hold."""
        probe.settle()
        bad = self._product.tampered_versions() + probe.violations + probe.failures[:3]
        if not wait_until(lambda: not self._product.leftover_processes()):
            bad.append(f"processes {self._product.leftover_processes()} are left")
        probe.violations.clear()
        probe.failures.clear()
        return bad

    def _repeat(self, probe: Probe) -> list[str]:
        """Repeat a killed run; return violations of the conditions that must hold afterwards."""
        done = self._product.run(*self._arguments())
        bad = [] if done.code == 0 else [f"repeated: exit code {done.code}: {done.stderr[-500:]}"]
        if unfinished := self._product.unfinished_executions():
            bad.append(f"{unfinished} unfinished executions after the end")
        newest = self._product.versions()[-1]
        if not probe.is_served(newest):
            bad.append(f"version {probe.now} responds, but {newest} is the newest")
        proof = self._product.validate()
        if proof.code:
            bad.append(f"validate: {proof.code}: {proof.stderr.strip()}")
        return bad + self._bad_state(probe)


def summary(campaigns: list[Campaign]) -> dict[str, Any]:
    records = [record for campaign in campaigns for record in campaign.records]
    killed = [record for record in records if record["killed"]]
    return {
        "kills": len(killed),
        "bad_states": sum(bool(record["bad"]) for record in records),
        "bad": [record for record in records if record["bad"]],
        "finished_before_the_kill": sum(record["at"] == "finished" for record in records),
        "killed_at": dict(Counter(record["at"] for record in killed).most_common()),
    }


def main() -> None:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--homes", type=int, default=2, help="that run at the same time")
    parser.add_argument("--folder", type=Path, default=harness.RESULTS / "drills_kill", help="of the homes")
    options = parser.parse_args()
    folders = [options.folder.resolve() / str(number) for number in range(options.homes)]
    for folder in (harness.RESULTS, *folders):
        folder.mkdir(parents=True, exist_ok=True)
    campaigns = [Campaign(folder, seed) for seed, folder in enumerate(folders, 1)]
    lock = threading.Lock()

    def write() -> None:
        with lock:
            temporary = RESULT_FILE.with_suffix(".tmp")
            temporary.write_text(json.dumps(summary(campaigns), indent=1))
            temporary.replace(RESULT_FILE)

    share = -(-options.kills // len(campaigns))
    with ThreadPoolExecutor(len(campaigns)) as pool:
        for done in [pool.submit(campaign.run, share, write) for campaign in campaigns]:
            done.result()
    print(RESULT_FILE.read_text())
    if summary(campaigns)["bad_states"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
