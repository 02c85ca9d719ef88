"""The log file stays small, and nothing that is written to it is lost before it is rotated twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.model_server import log_file

WRITER = """
import os, sys, time
from pathlib import Path
from serving.model_server import log_file

log_file.MAX_BYTES, log_file.CHECK_S = 1000, 0.01
log_file.keep_small(Path(sys.argv[1]))
for number in range(30):
    time.sleep(0.02)
    print(f"python {number:03d}", "x" * 100, file=sys.stderr, flush=True)
    os.system(f"echo native {number:03d} >&2")  # any code that writes to the descriptor
"""


def test_output_of_any_kind_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "serving.log"
    path.write_text("from before\n")
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["serving.log", "serving.log.1", "serving.log.2"]
    assert all(file.stat().st_size < 2000 for file in files)
    lines = [line for file in reversed(files) for line in file.read_text().splitlines()]
    numbers = [int(line.split()[1]) for line in lines if line.startswith("python")]
    assert numbers == list(range(numbers[0], 30)) and len(numbers) > 8  # the newest lines, none missing
    assert sum(line.startswith("native") for line in lines) in (len(numbers), len(numbers) + 1)


def test_a_small_file_is_not_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", 10)
    path = tmp_path / "serving.log"
    assert not log_file.rotate(path)
    path.write_text("0123456789")
    assert not log_file.rotate(path)
    path.write_text("0123456789a")
    assert log_file.rotate(path) and not path.exists()
