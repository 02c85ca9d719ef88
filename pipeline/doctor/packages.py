"""Checks the installed packages against requirements.lock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from typing import Final

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.common import ROOT
from pipeline.doctor.finding import Finding
from pipeline.doctor.machine import DISTRIBUTION

LOCK: Final = ROOT / "requirements.lock"
SHOWN: Final = 3
_PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;(?P<marker>[^\\]*))?", re.MULTILINE)


def packages(lock: Path = LOCK) -> Iterator[Finding]:
    """Missing and differing packages. Those that only extras need, such as tests, are not errors."""
    if not lock.is_file():
        yield Finding("packages", "ok", "not compared: this installation has no requirements.lock")
        return
    pinned = {canonicalize_name(pin["name"]): pin["version"] for pin in _pins(lock.read_text())}
    installed: dict[str, str] = {}
    for one in distributions():
        if one.name:  # as in imports, the first in sys.path counts: setuptools may append vendored packages
            installed.setdefault(canonicalize_name(one.name), one.version)
    needed = _needed()
    missing = [name for name in pinned if name not in installed]
    other = [f"{name} {installed[name]}, not {v}" for name, v in pinned.items() if installed.get(name, v) != v]
    if not missing and not other:
        yield Finding("packages", "ok", f"the {len(pinned)} of requirements.lock; no compiler needed")
    if other or needed & {*missing}:
        problem = [*other, *(f"{name} is missing" for name in missing)]
        yield Finding("packages", "error", _some(problem), "make clean, then make setup")
    elif missing:
        found = f"without {_some(missing)}: for development or extras"
        yield Finding("packages", "warning", found, "to run the tests: make clean, then make setup")


def _pins(text: str) -> list[re.Match[str]]:
    pins = list(_PIN.finditer(text))
    return [pin for pin in pins if not (pin["marker"] or "").strip() or Marker(pin["marker"].strip()).evaluate()]


def _needed() -> set[str]:
    """What the product itself requires, without extras."""
    try:
        lines = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        return set()
    return {canonicalize_name(r.name) for r in lines if r.marker is None or r.marker.evaluate({"extra": ""})}


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return f"{', '.join(texts[:SHOWN])}{more}"
