"""What a newcomer reads on an 80-column terminal, and on a narrower one: whole words, and the next command last."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.pushed import push
from tests.support.terminal import on_terminal

CHECK = {"metric": "recall", "slice": "0", "value": 0.98, "bound": 0.95, "baseline": 0.97}
NODES = ["ExampleGen", "Schema", "StatisticsGen", "ExampleValidator", "Transform", "Trainer", "Evaluator", "Pusher"]
RESULT: dict[str, Any] = {
    "run_id": "20261124-100000-000",
    "status": "pushed",
    "pushed_version": "1795438962",
    "blessed": True,
    "metrics": {f"{name}_accuracy": 0.98765 for name in ("train", "eval", "test")} | {"test_cross_entropy": 0.0446},
    "checks": [
        {**CHECK, "low": 0.9743, "high": 0.9861, "passed": True},
        {**CHECK, "metric": "accuracy against baseline", "slice": "overall", "value": -0.005, "passed": False},
        {**CHECK, "class_name": "Ankle boot of leather", "passed": False},
    ],
    "nodes": [{"id": name, "state": "ran", "seconds": 12.3} for name in NODES],
    "seconds": 123.0,
    "startup_seconds": 5.5,
}


@pytest.mark.parametrize("columns", [80, 60])
def test_status_breaks_lines_between_words(tmp_path: Path, columns: int) -> None:
    push(tmp_path, int(RESULT["pushed_version"]))
    (tmp_path / "logs" / "run").mkdir(parents=True)
    (tmp_path / "logs" / "run" / "run.json").write_text(json.dumps(RESULT))
    command = [sys.executable, "-m", "pipeline", "status", "--home", str(tmp_path)]
    screen = on_terminal(command, columns, 24)
    assert screen.code == 0, screen
    shown = [line for line in screen.lines if line]
    assert max(len(line) for line in shown if str(tmp_path) not in line) <= columns
    words = " ".join(shown).split()
    for word in ("ExampleValidator", "(10%)", "test_cross_entropy", "0.0446", "1795438962"):
        assert word in words, (word, shown)
    rows = [line.split() for line in shown if line.startswith(("recall[", "against"))]
    assert [row[-1] for row in rows] == ["yes", "NO", "NO"]
    assert all(">= 0.9500" in " ".join(row) for row in rows)
    assert shown[-1].startswith("next: make serve")


def test_without_a_terminal_each_fact_is_one_line(tmp_path: Path) -> None:
    from tests.support.command import in_process

    (tmp_path / "logs" / "run").mkdir(parents=True)
    (tmp_path / "logs" / "run" / "run.json").write_text(json.dumps(RESULT))
    shown = in_process("status", "--home", tmp_path).stdout.splitlines()
    assert any(line.startswith("seconds 123.0 = ") and line.endswith("Pusher 12.3 (10%)") for line in shown)
