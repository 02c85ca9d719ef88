from __future__ import annotations

from pathlib import Path

from pipeline.history import CACHED, COMPLETE, Artifact, Execution
from pipeline.report import graph


def execution(number: int, node: str, inputs: dict[str, list[Artifact]], made: str, state: int = COMPLETE) -> Execution:
    outputs = {made: [Artifact(number * 10, made, Path(), True)]}
    return Execution(number, node, "run", state, 0, inputs, outputs)


GEN = execution(1, "ExampleGen", {}, "Examples", CACHED)
OTHER = execution(2, "StatisticsGen", {"examples": GEN.outputs["Examples"]}, "ExampleStatistics")
TRAINER = execution(3, "Trainer", {"examples": GEN.outputs["Examples"]}, "Model")
PUSHER = execution(4, "Pusher", {"model": TRAINER.outputs["Model"]}, "PushedModel")


def test_each_node_is_a_box_after_those_whose_artifacts_it_read() -> None:
    rows = [
        {"id": "ExampleGen", "state": "cached", "seconds": 0.1, "reason": "same as run x"},
        {"id": "StatisticsGen", "state": "ran", "seconds": 2.0},
        {"id": "Trainer", "state": "failed", "seconds": 3.0, "reason": None},
        {"id": "Pusher", "state": "skipped", "seconds": 0.0},
    ]
    found = graph.nodes(rows, [GEN, OTHER, TRAINER])
    boxes = [box for _, box in found.boxes]
    assert [box.title for box in boxes] == [
        "ExampleGen: cached, 0.1 s",
        "StatisticsGen: ran, 2.0 s",
        "Trainer: failed, 3.0 s",
        "Pusher: skipped",
    ]
    assert [box.note for box in boxes] == ["same as run x", "", "", ""]
    assert [box.after for box in boxes] == [(), ("ExampleGen",), ("ExampleGen",), ("Trainer",)]


def test_the_lineage_of_a_version_has_what_it_depends_on_and_the_hashes_of_the_data() -> None:
    found = graph.lineage("7", "stable", [GEN, OTHER, TRAINER, PUSHER], {"train_images": "ab" * 32})
    assert found is not None
    boxes = [box for _, box in found.boxes]
    assert [box.name for box in boxes] == ["version", "Pusher", "Trainer", "ExampleGen", "train_images"]
    assert boxes[1].title == "Pusher, execution 4"
    assert boxes[2].note == "Model 30"
    assert boxes[3].title == "ExampleGen, execution 1 (cached)"
    assert boxes[4].note == "sha256 abababababababab…"
    assert len(found.edges) == 4
    assert graph.lineage("7", "stable", [], {}) is None
