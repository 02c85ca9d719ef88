"""Interrupt the pipeline with Ctrl-C or SIGTERM at random times of a run.

    python -m tests.drills.interrupts --interrupts 30      (about 15 minutes)

What must be true each time: "stopping..." within 0.3 s, exit code 130 or 143, no version pushed after the signal, and
no process left; the next run ends with exit 0. Writes build/drills_interrupts.json.
"""

from __future__ import annotations

import random
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks import harness
from benchmarks.harness import wait_until
from tests.conftest import environment
from tests.drills.product import ROOT, Product
from tests.support.synthetic import write_data_set

ANNOUNCED_WITHIN_S: Final = 0.3
ENDS_WITHIN_S: Final = 15.0
START_S: Final = 0.5  # the interpreter's own start, before the product handles signals
EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}


def interrupt(product: Product, number: signal.Signals, delay_s: float, *arguments: str) -> dict[str, Any] | None:
    """Start a run and send it a signal after `delay_s`; None if its last node had ended before."""
    logs = product.run_logs()
    process = subprocess.Popen(
        product.run_command(*arguments), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    lines: list[bytes] = []
    announced_s = None
    if wait_until(lambda: process.poll() is not None, delay_s):
        process.communicate()
        return None
    versions = product.versions()
    sent = time.monotonic()
    process.send_signal(number)
    while time.monotonic() - sent < ENDS_WITHIN_S + 5:
        if select.select([process.stderr], [], [], 0.05)[0]:
            line = process.stderr.readline()
            if not line:
                break
            lines.append(line)
            if line.startswith(b"stopping") and announced_s is None:
                announced_s = time.monotonic() - sent
    process.kill()
    code = process.wait()
    ended_s = time.monotonic() - sent
    wait_until(lambda: not product.leftover_processes(), 10)
    new = {path for folder in product.run_logs() - logs for path in folder.glob("*.log")}
    node = max(new, key=lambda path: path.stat().st_ctime).stem if new else "start-up"
    pushed = sorted(set(product.versions()) - set(versions))
    if code == -number and not pushed and any(line.startswith(b"Pusher ") for line in lines):
        return None  # the last node had ended: the process no longer handles signals, and a shell shows the same code
    bad = []
    if code != EXIT_CODES[number]:
        bad.append(f"exit code {code}: {lines[-1:]}")
    if announced_s is None or announced_s > ANNOUNCED_WITHIN_S:
        bad.append(f"announced after {announced_s} s")
    if pushed and node != "Pusher":
        bad.append(f"pushed after the signal: {pushed}")
    if left := product.leftover_processes():
        bad.append(f"processes {left} are left")
    return {
        "signal": number.name,
        "node": node,
        "exit_code": code,
        "announced_s": announced_s and round(announced_s, 3),
        "ended_s": round(ended_s, 2),
        "pushed": pushed,
        "bad": bad,
    }


def main() -> None:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--interrupts", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=harness.RESULTS / "drills_interrupts", help="of the home")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    product = Product(options.folder.resolve() / "home", write_data_set(options.folder.resolve() / "data"))
    random.seed(options.seed)
    started = time.monotonic()
    product.run()
    duration_s = time.monotonic() - started
    records: list[dict[str, Any]] = []
    number = 0
    while len(records) < options.interrupts:
        number += 1
        # Other data now and then, else only the training and what follows runs.
        changed = ["--set", f"train.seed={number}", "--set", f"data.eval_examples={100 + number // 2}"]
        which = random.choice(list(EXIT_CODES))
        record = interrupt(product, which, random.uniform(START_S, duration_s), *changed)
        if record is None:
            duration_s *= 0.9
            continue
        if len(records) % 5 == 4 and (done := product.run(*changed)).code:
            record["bad"].append(f"the next run: exit code {done.code}: {done.stderr[-300:]}")
        records.append(record)
        print(record, flush=True)
    document = {
        "interrupts": len(records),
        "bad": [record for record in records if record["bad"]],
        "slowest_announcement_s": max(99 if r["announced_s"] is None else r["announced_s"] for r in records),
        "slowest_end_s": max(record["ended_s"] for record in records),
        "nodes": dict(Counter(record["node"] for record in records).most_common()),
        "records": records,
    }
    harness.write_result("drills_interrupts.json", document)
    if document["bad"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
