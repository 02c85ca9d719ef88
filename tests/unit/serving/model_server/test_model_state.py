"""Which versions of a model are loaded, retried and unloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.model_server.errors import ServingError
from serving.model_server.model_state import ModelState, State
from serving.protocol import serving_pb2 as pb


def model(folder: Path, **states: int) -> ModelState:
    """A model whose versions v1, v2 ... are aspired and in these states."""
    found = ModelState(pb.ModelConfig(name="m"))
    found.aspire({int(name[1:]): folder for name in states})
    for name, state in states.items():
        found.versions[int(name[1:])].state = state
    return found


def test_old_versions_are_unloaded_when_a_new_one_is_available(tmp_path: Path) -> None:
    found = model(tmp_path, v1=State.AVAILABLE)
    found.aspire({2: tmp_path})
    assert [v.number for v in found.due(0)] == [2] and found.obsolete() == []
    found.versions[2].state = State.AVAILABLE
    assert [v.number for v in found.obsolete()] == [1] and found.due(0) == []
    found.aspire({})
    assert [v.number for v in found.obsolete()] == [1, 2]


def test_a_failed_version_is_tried_again_only_after_it_was_dropped_or_removed(tmp_path: Path) -> None:
    found = model(tmp_path, v1=State.END)
    found.versions[1].code = 5
    found.aspire({1: tmp_path})
    assert found.due(0) == []
    found.aspire({})
    found.aspire({1: tmp_path})
    assert [v.number for v in found.due(0)] == [1]

    found.versions[1].state, found.versions[1].code, found.versions[1].folder = State.END, 5, tmp_path / "removed"
    found.aspire({})
    assert not found.versions


def test_load_errors(tmp_path: Path) -> None:
    found = model(tmp_path, v1=State.END, v2=State.LOADING)
    assert found.load_errors() is None
    found.versions[2].state = State.END
    assert len(found.load_errors() or ()) == 2
    found.versions[2].state = State.AVAILABLE
    assert found.load_errors() == []


@pytest.mark.parametrize(("number", "known", "before_available", "allowed"), [
    (1, False, False, True), (2, False, False, False), (2, False, True, True), (2, True, True, False),
    (3, True, True, True), (3, True, False, False),
])  # fmt: skip
def test_labels_of_unavailable_versions(
    tmp_path: Path, number: int, known: bool, before_available: bool, allowed: bool
) -> None:
    """Version 1 is available. A known label is at version 1, or already at version 3, which is not available."""
    found = model(tmp_path, v1=State.AVAILABLE)
    found.labels = {"stable": 3 if number == 3 else 1} if known else {}
    config = pb.ModelConfig(name="m", version_labels={"stable": number})
    if allowed:
        found.check_labels(config, before_available)
    else:
        with pytest.raises(ServingError, match="not currently available for inference"):
            found.check_labels(config, before_available)
