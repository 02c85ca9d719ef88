from __future__ import annotations

import re

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
