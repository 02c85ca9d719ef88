from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.progress import Node, Progress, table
from tests.conftest import ROOT
from tests.support.terminal import on_terminal


def test_without_a_terminal_each_finished_node_is_one_line() -> None:
    stream = io.StringIO()
    with Progress(["ExampleGen", "Trainer", "Pusher"], stream) as progress:
        progress.start("ExampleGen")
        progress.finish("cached")
        progress.start("Trainer")
        logging.getLogger("components.trainer").info("step 5 of 5 [loss 0.1]")
        progress.finish("failed")
    lines = stream.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [["ExampleGen", "cached"], ["Trainer", "failed"]]
    assert lines[1].endswith("step 5 of 5 [loss 0.1]")  # brackets are not markup
    assert [node.state for node in progress.nodes] == ["cached", "failed", "skipped"]


def test_on_a_terminal_the_table_is_live() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress(["ExampleGen", "Trainer"], stream) as progress:
        progress.start("ExampleGen")
        progress.finish("ran")
    shown = stream.getvalue()
    assert "node" in shown and "seconds" in shown and "skipped" in shown


LONG = "blessed: accuracy[overall] 0.9872 >= 0.9700; recall[9] 0.9772 >= 0.9500"
NODES = [
    Node("ExampleGen", "ran", 5.6, "55,000 train, 5,000 eval, 10,000 test", "first run"),
    Node("ExampleValidator", "cached", 0.1, "", "same as run 20261124-100000-000"),
    Node("Trainer", "running", 1234.5),
    Node("Evaluator", "failed", 5.5, LONG, "train.learning_rate 0.005 -> 0.001, train.steps 3000 -> 100"),
    Node("Pusher"),
]


def lines_of(width: int, *, wrap: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(table(NODES, width, wrap=wrap))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [37, 40, 60, 80, 200])
@pytest.mark.parametrize("wrap", [True, False])
def test_node_state_and_seconds_are_whole_at_every_width(width: int, wrap: bool) -> None:
    shown = lines_of(width, wrap=wrap)
    assert max(map(len, shown)) <= width
    for node in NODES:
        seconds = [] if node.state == "waiting" else [f"{node.seconds:.1f}"]
        assert [line.split()[: 2 + len(seconds)] for line in shown if line.startswith(f"{node.id} ")] == [
            [node.id, node.state, *seconds]
        ]
    if not wrap:  # while the run lasts, a row is one line, and shows that there is more
        assert len(shown) == 1 + len(NODES)
        assert width == 200 or width < 60 or any(line.endswith("…") for line in shown)


def test_at_the_end_long_details_are_whole_on_further_lines() -> None:
    text = " ".join(word for line in lines_of(80, wrap=True) for word in line[39:].split())
    for node in NODES:
        assert node.detail in text and node.reason in text


TRAINING = """
import logging, sys
from pipeline.progress import Progress
with Progress(["ExampleGen", "Trainer", "Pusher"], sys.stdout) as progress:
    progress.start("ExampleGen"); progress.finish("ran", "55,000 train, 5,000 eval, 10,000 test, and more of it")
    progress.start("Trainer")
    for step in range(0, 3001, 100):
        logging.getLogger("components.trainer").info(
            "loss 0.1234, step %d of 3000", step, extra={"done": step, "total": 3000})
        progress._live.refresh()
    progress.finish("ran")
"""


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 20)])
def test_on_a_terminal_training_has_a_bar_with_rate_and_time_left(columns: int, rows: int) -> None:
    output = on_terminal([sys.executable, "-c", TRAINING], columns, rows)
    drawn = [line for line in output.lines if "left" in line]
    assert any("2000/3000" in line and "/s" in line and "0:0" in line for line in drawn), output
    assert any("loss 0.1234" in line for line in output.lines)
    assert max(map(len, output.lines)) <= columns
    assert "left" not in "".join(output.lines[-4:])  # the bar goes when the node ends


def test_without_a_terminal_training_prints_no_control_characters() -> None:
    done = subprocess.run([sys.executable, "-c", TRAINING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert all(c.isprintable() or c == "\n" for c in done.stdout)


def test_a_long_loop_prints_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.progress.LINE_EVERY_S", 0.0)
    stream = io.StringIO()
    with Progress(["Trainer"], stream) as progress:
        progress.start("Trainer")
        logging.getLogger("components.trainer").info("loss 0.5", extra={"done": 1, "total": 2})
        progress.finish("ran")
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["running", "ran"]


CAPTURE = """
import logging, os, sys
from pathlib import Path
from pipeline.output_capture import captured
with captured(Path(sys.argv[1])) as capture:
    print("to the startup log")
    os.write(2, b"as a C++ library would\\n")
    capture.to("Trainer")
    logging.getLogger("tfx").info("to the node's log")
    print("for the user", file=capture.stdout)
print("after")
"""


def test_library_output_is_logged_and_user_output_is_shown(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CAPTURE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("for the user\nafter\n", "")
    startup = (tmp_path / "startup.log").read_text()
    assert "to the startup log" in startup and "as a C++ library would" in startup
    assert "to the node's log" in (tmp_path / "Trainer.log").read_text()
