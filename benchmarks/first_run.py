"""Run the default pipeline twice in an empty home and record its output: `build/bench_first_run.json`.

    python -m benchmarks.first_run      (under a minute on two cores)

The MNIST files are copied into the home first, so that the times include no download.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks import harness
from components.common import ROOT


def main() -> None:
    harness.argument_parser(__doc__).parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        harness.copy_mnist(harness.mnist_files(), home)
        for _ in range(2):
            done = subprocess.run(harness.pipeline_command(home), cwd=ROOT, capture_output=True, text=True, check=True)
            result = json.loads(max(home.glob("logs/*/run.json")).read_text())
            runs.append({"printed": done.stdout, **result})
            print(done.stdout)
    harness.write_result("bench_first_run.json", {"runs": runs})


if __name__ == "__main__":
    main()
