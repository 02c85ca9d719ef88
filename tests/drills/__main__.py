"""Run the drills: `python -m tests.drills` (`make drills`).

Writes build/drills.json and build/drills.md, a table of faults and their results. Random kills are a separate command:
`python -m tests.drills.kills`.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks import harness, pages
from tests.drills.drill import DrillHome, Fault, Row
from tests.drills.faults import concurrency, data, files, kills, model

RESULT: Final = "drills.json"
FAULTS: Final[dict[str, Fault]] = {
    "six of ten training labels poisoned": data.poisoned_labels,
    "a model blind to one digit, good on average": data.blind_to_one_digit,
    "training diverges": model.diverging_training,
    "NaN weights exported, thresholds that all models pass": model.nan_weights,
    "a weight file tampered with after the push": files.tampered_weights,
    "a manifest edited by hand": files.edited_manifest,
    "two version folders swapped": files.swapped_versions,
    "two version folders swapped slowly, while the server polls": files.slowly_swapped_versions,
    "half a copy appears under a higher number": files.half_copied_version,
    "a complete model that was not blessed appears": files.unblessed_version,
    "the disk is full during the push": files.full_disk,
    "two processes push at once": concurrency.two_pushers,
    "two pipelines on one home": concurrency.second_run,
    "`kill -9` at every node": kills.killed_at_every_node,
    "`kill -9` at random moments in InfraValidator": kills.killed_in_infra_validator,
    "`kill -9` at random moments in Pusher": kills.killed_in_pusher,
}


def main() -> None:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--only", action="append", help="part of a fault's name; repeatable")
    parser.add_argument("--folder", type=Path, help="for the home (default: a temporary folder)")
    options = parser.parse_args()
    chosen = {k: v for k, v in FAULTS.items() if not options.only or any(words in k for words in options.only)}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        home = DrillHome(folder.resolve())
        for name, fault in chosen.items():
            started = time.monotonic()
            row = home.run(name, fault)
            rows.append(row)
            outcome = f"FAILED: {'; '.join(row.problems)}" if row.problems else row.happened
            print(f"{name}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)
    known = {row.fault: asdict(row) for row in rows}
    record = harness.RESULTS / RESULT
    if options.only and record.is_file():  # keep the rows of the other faults
        known = {row["fault"]: row for row in json.loads(record.read_text())["rows"]} | known
    document = {"rows": [known[name] for name in FAULTS if name in known]}
    harness.write_result(RESULT, document)
    record.with_suffix(".md").write_text(pages.drills(document) + "\n")
    if any(row.problems for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
