"""Run the default pipeline twice in an empty home and keep what it printed: `build/bench_first_run.json`.

    python -m benchmarks.first_run      (under a minute on two cores)

The four IDX files are put into the home first, so that no network is in the times.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from components.data.mnist import fetch_mnist

REPOSITORY = Path(__file__).resolve().parent.parent
RESULT_FILE = REPOSITORY / "build" / "bench_first_run.json"


def main() -> None:
    files = fetch_mnist(REPOSITORY / "workspace" / "data" / "mnist", print)
    with tempfile.TemporaryDirectory() as home:
        data = Path(home, "data", "mnist")
        data.mkdir(parents=True)
        for file in files:
            shutil.copy(file, data)
        runs = []
        for _ in range(2):
            command = [sys.executable, "-m", "pipeline", "run", "--home", home]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
            result = json.loads(max(Path(home, "logs").glob("*/run.json")).read_text())
            runs.append({"printed": done.stdout, **result})
            print(done.stdout)
    RESULT_FILE.parent.mkdir(exist_ok=True)
    RESULT_FILE.write_text(json.dumps({"runs": runs}, indent=1))
    print(f"written: {RESULT_FILE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
