"""A hash of a module's source code and of the code it uses, for cache keys and checkpoints.

TFX's own cache key holds the import path of a function, not its code, so an edited function would stay cached. Here
every node gets a parameter with the hashes of its module and of our files that this uses: modules that it imports,
modules that it starts as a process (`python -m module`), and data files that it names.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from components.common import ROOT

OUR_PACKAGES: Final = ("components", "pipeline", "serving")
DATA_SUFFIXES: Final = (".config", ".pbtxt")
DIGITS: Final = 16


def source_sha256(modules: Iterable[str], root: Path = ROOT) -> str:
    """SHA-256 over the source of `modules` and of all our files that they use, directly or indirectly."""
    digest = hashlib.sha256()
    for path in sources(modules, root):
        digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def file_hashes(modules: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """The first 16 hexadecimal digits of the SHA-256 of each file in `sources`, by path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]
        for path in sources(modules, root)
    }


def sources(modules: Iterable[str], root: Path = ROOT) -> list[Path]:
    """The source files of `modules` and all our files that they use, sorted."""
    found: set[Path] = set()
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        path = _file(module, root)
        if path is None:
            continue
        found.add(path)
        modules_used, files_used = _uses(path.read_bytes())
        todo += modules_used
        package = root / module.partition(".")[0]
        found.update(file for name in files_used for file in package.rglob(name))
    return sorted(found)


def _file(module: str, root: Path) -> Path | None:
    """The source file of one of our modules; None for third-party modules."""
    if module.partition(".")[0] not in OUR_PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@functools.cache  # parsing takes most of the time, and nodes share most modules
def _uses(source: bytes) -> tuple[list[str], list[str]]:
    """Modules that a source file imports or starts, and names of the data files that it uses."""
    tree = ast.parse(source)
    return [*_imports(tree), *_processes(tree)], list(_data_files(tree))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module may import: `from a import b` counts as a and as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _processes(tree: ast.AST) -> Iterator[str]:
    """Modules that a command line in the source starts: a list or tuple with "-m" followed by a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):
            words = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
            for option, module in itertools.pairwise(words):
                if option == "-m" and isinstance(module, str):
                    yield from (module, f"{module}.__main__")


def _data_files(tree: ast.AST) -> Iterator[str]:
    """Names of data files among the strings of the source, such as "schema.pbtxt"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(DATA_SUFFIXES):
            yield Path(node.value).name
