from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

from pipeline.progress import Progress
from tests.conftest import ROOT


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
