"""`kill -9` of the pipeline at random times across whole runs, again and again: does it ever leave a bad state?

    python -m tests.drills.kills --kills 200      (about an hour; goes on where it was stopped)

Each round starts `python -m pipeline run` with small settings and kills that process, and nothing else, at a time
drawn from 0 to the length of a whole run, which is learnt on the way; a server answers all the while. Most runs have
other settings than the one before, so that nodes run again instead of being cached. After every kill: each version
folder is blessed and whole, the server answers from such a one and as before, and no process of the run is left. After
every twentieth kill and at the end the run is repeated without a kill: exit 0, nothing in MLMD is under way, and
`python -m pipeline validate` holds.
Writes build/drills_kill.json after every kill.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tests.drills.product import REPOSITORY, Product, Watch, kill, still_alive, wait_until, watched
from tests.support.synthetic import write_data_set

RESULT_FILE: Final = REPOSITORY / "build" / "drills_kill.json"
REPEAT_EVERY: Final = 20
CHANGE_TRAINING: Final = 0.5  # chance that the next run trains another model,
CHANGE_DATA: Final = 0.3  # or begins with other examples and another schema
START_UP: Final = "start-up"


class Campaign:
    """Kills in one home, written down one line each, so that a stopped campaign goes on."""

    def __init__(self, folder: Path, seed: int) -> None:
        data = folder / "data"
        self._product = Product(folder / "home", data if data.is_dir() else write_data_set(data))
        self._diary = folder / "kills.jsonl"
        self.records = [json.loads(line) for line in self._lines()]
        self._random = random.Random(seed * 1000 + len(self.records))
        self._settings = len(self.records)  # of the run; a number that is counted up
        self._data_settings = self._settings
        self._length_s = 0.0
        self._nodes: list[str] = []

    def go_on(self, kills: int, written: Callable[[], None]) -> None:
        """Until there are `kills` records; `written` is called after each."""
        self._whole_run()
        with watched(self._product) as watch:
            while sum(record["killed"] for record in self.records) < kills:
                record = self._round(watch)
                self.records.append(record)
                with open(self._diary, "a") as diary:
                    diary.write(json.dumps(record) + "\n")
                written()
            self.records.append({"killed": False, "at": "the end", "bad": self._repeated(watch)})
            written()

    def _lines(self) -> list[str]:
        return self._diary.read_text().splitlines() if self._diary.is_file() else []

    def _words(self) -> list[str]:
        return [
            *("--set", f"train.seed={self._settings}"),
            *("--set", f"data.eval_examples={100 + self._data_settings % 50}"),
            *("--set", f"data.max_mean_intensity={0.5 + self._data_settings % 50 / 1000}"),
        ]

    def _whole_run(self) -> None:
        """Nothing cached, nothing killed: how long it takes, and which nodes there are."""
        self._settings += 1
        self._data_settings += 1
        started = time.monotonic()
        done = self._product.run(*self._words())
        if done.code:
            raise RuntimeError(done.stderr)
        self._length_s = time.monotonic() - started
        self._nodes = [node["id"] for node in done.json["nodes"]]

    def _round(self, watch: Watch) -> dict[str, Any]:
        chance = self._random.random()
        if chance < CHANGE_TRAINING:
            self._settings += 1
        elif chance < CHANGE_TRAINING + CHANGE_DATA:
            self._data_settings += 1
        delay_s = self._random.uniform(0, self._length_s)
        logs_before = self._product.run_logs()
        process = self._product.start_run(*self._words())
        wait_until(lambda: process.poll() is not None, delay_s)
        bad: list[str] = []
        code = process.poll()
        self._length_s *= 1.03 if code is None else 0.78  # learnt: other load, other caches
        if code is None:
            bad += [f"process {pid} outlived the run" for pid in still_alive(kill(process))]
        elif code:
            bad.append(f"exit code {code}")
        bad += self._bad_state(watch)
        killed = code is None
        if killed and sum(record["killed"] for record in self.records) % REPEAT_EVERY == REPEAT_EVERY - 1:
            bad += self._repeated(watch)
        return {
            "killed": killed,
            "at": self._running(logs_before) if killed else "finished",
            "delay_s": round(delay_s, 2),
            "unrecorded_versions": len(set(self._product.versions()) - self._product.recorded_versions()),
            "served": watch.now,
            "bad": bad,
        }

    def _running(self, logs_before: set[Path]) -> str:
        """The node that a killed run was at: the last one with a log file."""
        for folder in self._product.run_logs() - logs_before:
            for node in reversed(self._nodes):
                if (folder / f"{node}.log").exists():
                    return node
        return START_UP

    def _bad_state(self, watch: Watch) -> list[str]:
        """What must hold at any time, after a kill too."""
        watch.settle()
        bad = self._product.untrue_versions() + watch.violations + watch.failures[:3]
        if not wait_until(lambda: not self._product.strays()):
            bad.append(f"processes {self._product.strays()} are left")
        watch.violations.clear()
        watch.failures.clear()
        return bad

    def _repeated(self, watch: Watch) -> list[str]:
        """What must hold once a killed run was repeated."""
        done = self._product.run(*self._words())
        bad = [] if done.code == 0 else [f"repeated: exit code {done.code}: {done.stderr[-500:]}"]
        if open_ones := self._product.unfinished_executions():
            bad.append(f"{open_ones} executions under way after the end")
        newest = self._product.versions()[-1]
        if not wait_until(lambda: watch.now == newest):
            bad.append(f"version {watch.now} answers, {newest} is the newest")
        proof = self._product.validate()
        if proof.code:
            bad.append(f"validate: {proof.code}: {proof.stderr.strip()}")
        return bad + self._bad_state(watch)


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--homes", type=int, default=2, help="that run at the same time")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "drills_kill", help="of the homes")
    options = parser.parse_args()
    folders = [options.folder.resolve() / str(number) for number in range(options.homes)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    campaigns = [Campaign(folder, seed) for seed, folder in enumerate(folders, 1)]
    writing = threading.Lock()

    def written() -> None:
        with writing:
            temporary = RESULT_FILE.with_suffix(".tmp")
            temporary.write_text(json.dumps(summary(campaigns), indent=1))
            temporary.replace(RESULT_FILE)

    share = -(-options.kills // len(campaigns))
    with ThreadPoolExecutor(len(campaigns)) as pool:
        for done in [pool.submit(campaign.go_on, share, written) for campaign in campaigns]:
            done.result()
    print(RESULT_FILE.read_text())
    if summary(campaigns)["bad_states"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
