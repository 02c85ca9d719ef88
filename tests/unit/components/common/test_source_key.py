from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.common.source_key import file_hashes, source_sha256
from tests.conftest import ROOT

NODES = {
    "ExampleGen": "components.example_gen",
    "ExampleValidator": "components.example_validator",
    "Transform": "components.transform",
    "Trainer": "components.trainer",
    "Evaluator": "components.evaluator",
    "InfraValidator": "components.infra_validator",
    "Schema": "components.schema",
    "Pusher": "components.pusher",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for package in ("components", "pipeline", "serving"):
        shutil.copytree(ROOT / package, tmp_path / package)
    return tmp_path


def keys(root: Path) -> dict[str, dict[str, str]]:
    return {node: file_hashes([module], root) for node, module in NODES.items()}


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("components/transform.py", {"Transform"}),
        ("components/training/optimizers.py", {"Trainer"}),  # imported by the trainer
        ("components/training/model.py", {"Trainer"}),
        ("components/pusher.py", {"Pusher"}),
        ("components/common/contract.py", set(NODES)),
        ("components/schema.pbtxt", {"Schema"}),  # a data file that a module names
        ("serving/model_server/rest_layer.py", {"InfraValidator"}),  # which starts the server as a process
        ("serving/deploy/config/batching.config", {"InfraValidator"}),
        ("components/training/distribution.py", {"Trainer"}),
        ("pipeline/progress.py", set()),
    ],
)
def test_an_edit_changes_the_keys_of_exactly_what_imports_it(checkout: Path, edited: str, changes: set[str]) -> None:
    before = keys(checkout)
    assert before == keys(ROOT)  # the same source elsewhere is the same key
    with open(checkout / edited, "a") as file:
        file.write("\n# a comment\n")
    after = keys(checkout)
    assert {node for node in NODES if before[node] != after[node]} == changes
    assert all(after[node].items() - before[node].items() == {(edited, after[node][edited])} for node in changes)


def test_imports_are_followed_at_any_depth_and_in_cycles(tmp_path: Path) -> None:
    package = tmp_path / "components"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from components import b\n")
    (package / "b.py").write_text("import components.c\nimport numpy\n")
    (package / "c.py").write_text("import components.a\nx = 1\n")
    before = source_sha256(["components.a"], tmp_path)
    (package / "c.py").write_text("import components.a\nx = 2\n")
    assert source_sha256(["components.a"], tmp_path) != before
