"""Cache keys that see the code: a hash of the source behind each node.

TFX's own key holds the import path of a function, not what it says, so an edited function would stay cached.
Here every node gets a parameter with the SHA-256 of the modules that it names and of all that these import
from this repository; TFX's key includes every parameter.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from components.common import ROOT

OUR_PACKAGES: Final = ("components", "pipeline")
PARAMETER: Final = "source_sha256"


def source_sha256(modules: Iterable[str], root: Path = ROOT) -> str:
    """SHA-256 over the source of `modules` and of everything of ours that they import, at any depth."""
    seen: dict[str, bytes] = {}
    todo = list(modules)
    while todo:
        module = todo.pop()
        path = _file(module, root)
        if module in seen or path is None:
            continue
        seen[module] = path.read_bytes()
        todo += _imports(seen[module])
    digest = hashlib.sha256()
    for module in sorted(seen):
        digest.update(module.encode() + b"\0" + hashlib.sha256(seen[module]).digest())
    return digest.hexdigest()


def modules_named_by(names: Iterable[str]) -> list[str]:
    """Modules of ours among import paths of functions and classes: "components.trainer.run_fn" -> that file."""
    ours = tuple(f"{package}." for package in OUR_PACKAGES)
    return sorted({name.rpartition(".")[0] for name in names if name.startswith(ours)})


def _file(module: str, root: Path) -> Path | None:
    """The source file of one of our modules; None for other people's."""
    if module.partition(".")[0] not in OUR_PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imports(source: bytes) -> list[str]:
    """Dotted names that a module may import: `from a import b` counts as a and as a.b."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found
