"""Hold the drills: `python -m tests.drills` (`make drills`).

Writes build/drills.json and build/drills.md, a table of what each fault led to. The 200 random kills are apart:
`python -m tests.drills.kills`. A rollback under load is in `python -m benchmarks.serving.rollback`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks import pages
from tests.drills import faults
from tests.drills.drill import Fault, Range, Row
from tests.drills.product import REPOSITORY

RESULT_FILE: Final = REPOSITORY / "build" / "drills.json"
FAULTS: Final[dict[str, Fault]] = {
    "six of ten training labels poisoned": faults.poisoned_labels,
    "a model blind to one digit, good on average": faults.blind_to_one_digit,
    "training diverges": faults.diverging_training,
    "NaN weights exported, bounds that all models pass": faults.nan_weights,
    "a weight file tampered with after the push": faults.tampered_weights,
    "a manifest edited by hand": faults.edited_manifest,
    "two version folders swapped": faults.swapped_versions,
    "two version folders swapped slowly, while the server looks": faults.slowly_swapped_versions,
    "half a copy appears under a higher number": faults.half_copied_version,
    "a whole model that nobody blessed appears": faults.unblessed_version,
    "the disk is full during the push": faults.full_disk,
    "two processes push at once": faults.two_pushers,
    "two pipelines on one home": faults.second_run,
    "`kill -9` at every node": faults.killed_at_every_node,
    "`kill -9` at random moments in InfraValidator": faults.killed_in_infra_validator,
    "`kill -9` at random moments in Pusher": faults.killed_in_pusher,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", help="words of a fault's name; repeatable")
    parser.add_argument("--folder", type=Path, help="to work in; a temporary one if not named")
    options = parser.parse_args()
    chosen = {k: v for k, v in FAULTS.items() if not options.only or any(words in k for words in options.only)}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        place = options.folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        ground = Range(place.resolve())
        for name, fault in chosen.items():
            started = time.monotonic()
            row = ground.hold(name, fault)
            rows.append(row)
            verdict = f"FAILED: {'; '.join(row.problems)}" if row.problems else row.happened
            print(f"{name}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    held = {row.fault: asdict(row) for row in rows}
    if options.only and RESULT_FILE.is_file():  # the others as they were held before
        held = {row["fault"]: row for row in json.loads(RESULT_FILE.read_text())["rows"]} | held
    document = {"rows": [held[name] for name in FAULTS if name in held]}
    RESULT_FILE.parent.mkdir(exist_ok=True)
    RESULT_FILE.write_text(json.dumps(document, indent=1))
    RESULT_FILE.with_suffix(".md").write_text(pages.drills(document) + "\n")
    if any(row.problems for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
