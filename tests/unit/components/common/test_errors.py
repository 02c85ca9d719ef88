from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from components.common import errors
from tests.conftest import ROOT

CLASS = re.compile(r"^class (\w+)\((\w+)\):", re.MULTILINE)
LINE = re.compile(r"^( *)(\w+) +(\d)(?: +.*)?$", re.MULTILINE)


def test_the_tree_in_the_docstring_matches_the_code() -> None:
    sources = [path for package in ("components", "pipeline", "serving") for path in (ROOT / package).rglob("*.py")]
    parents = dict(match for path in sources for match in CLASS.findall(path.read_text()))
    expected: set[tuple[str, str]] = {("UserError", "Exception")}
    while found := {(c, p) for c, p in parents.items() if p in {name for name, _ in expected}} - expected:
        expected |= found

    path, shown = ["Exception"], set()
    for indent, name, _ in LINE.findall(errors.__doc__ or ""):
        path[len(indent) // 4 + 1 :] = [name]
        shown.add((name, path[-2]))
    assert shown == expected


def test_without_a_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    # Otherwise /tmp, /var/tmp and the current folder would have to be unwritable.
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.gettempdir()
    problem = errors.from_os_error(caught.value)
    assert problem is not None and str(tmp_path) in problem.problem and "TMPDIR" in problem.remedy
