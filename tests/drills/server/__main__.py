"""Attack the embedded server: `python -m tests.drills.server [--before CHECKOUT]`.

Writes build/drills_server.json: what happened for each attack, with the peak memory of the server and its processes.
`--before` runs the same attacks against another checkout, to compare.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import harness
from components.common import ROOT
from tests.drills.server import connections, single
from tests.drills.server.target import Target

RESULT: Final = "drills_server.json"
FILES: Final = {"A7 idle connections": 256}  # the server's limit of open files
ATTACKS: Final[dict[str, Callable[[Target], dict[str, Any]]]] = {
    "A1 reloads": single.reloads,
    "A2 requests that expand": single.expanding,
    "A3 failed requests": single.failed,
    "A4 bursts": connections.bursts,
    "A5 clients that leave": connections.abandoned,
    "A6 the interpreter is held": single.held,
    "A7 idle connections": connections.idle,
    "A7 half headers": connections.half_headers,
    "A7 endless headers": connections.endless_headers,
    "A7 endless gRPC headers, settings not acknowledged": connections.unacknowledged,
    "A7 slow bodies": connections.slow_bodies,
    "A7 answers not taken": connections.answers_not_taken,
}


def main() -> None:
    parser = harness.argument_parser(__doc__)
    parser.add_argument("--only", action="append", help="part of an attack's name; repeatable")
    parser.add_argument("--before", type=Path, help="another checkout to attack as well")
    options = parser.parse_args()
    record = harness.RESULTS / RESULT
    found: dict[str, dict[str, Any]] = json.loads(record.read_text()) if record.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        from tests.support import saved_models

        models = Path(temporary)
        saved_models.write_all(models)
        for name, attack in ATTACKS.items():
            if options.only and not any(words in name for words in options.only):
                continue
            for when, root in (("before", options.before), ("after", ROOT)):
                if root is not None:
                    outcome = attacked(root, models, name, attack)
                    found.setdefault(name, {})[when] = outcome
                    print(f"{name}, {when}: {json.dumps(outcome)}", flush=True)
                    harness.write_result(RESULT, found)


def attacked(root: Path, models: Path, name: str, attack: Callable[[Target], dict[str, Any]]) -> dict[str, Any]:
    """Attack a new server; return what happened."""
    target = Target(root, models, files=FILES.get(name))
    started = time.monotonic()
    try:
        outcome = attack(target)
        crashed = target.process.poll()
        outcome = {**outcome, "over_limit": target.over_limit(), "crashed": crashed}
    finally:
        exit_code = target.stop()
    return {
        **outcome,
        "peak_mb": target.peak_mb,
        "exit_code": exit_code,
        "tracebacks": target.log.read_text(errors="replace").count("Traceback"),
        "seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    main()
