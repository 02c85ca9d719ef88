from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from components.validation import model_card
from components.validation.model_card import Subject

SLICES = {
    "overall": {"sparse_categorical_accuracy": 0.98, "example_count": 1000.0, "calibration_error": 0.01},
    "0": {"sparse_categorical_accuracy": 0.99, "example_count": 100.0, "precision": 0.97},
    "1": {"sparse_categorical_accuracy": 0.96, "example_count": 100.0},
}
SUBJECT = Subject(
    version="7",
    run_id="20260101-000000-000",
    date="2026-01-02T03:04:05+00:00",
    commit="abc",
    settings={
        "data": {"source": "mnist", "image_height": 28, "image_width": 28, "classes": 2},
        "train": {"hidden_layers": [128, 256], "activation": "relu", "steps": 5, "batch_size": 8, "optimizer": "sgd"},
    },
    data_sha256={"train_images": "aa", "test_images": "bb"},
    slices=SLICES,
    class_names=["a|b", "shoe"],
)


def test_the_card_has_the_sections_of_the_toolkits_schema_and_the_numbers_of_the_gate() -> None:
    card = json.loads(model_card.documents(SUBJECT)["model_card.json"])
    sections = {"schema_version", "model_details", "model_parameters", "quantitative_analysis", "considerations"}
    assert card.keys() == sections
    assert card["model_details"]["version"] == {
        "name": "7",
        "date": "2026-01-02",
        "diff": "run 20260101-000000-000, commit abc",
    }
    assert card["considerations"].keys() == {"users", "use_cases", "limitations", "tradeoffs", "ethical_considerations"}
    found = card["quantitative_analysis"]["performance_metrics"]
    assert found[0]["type"] == "accuracy"
    assert "slice" not in found[0]
    assert all(
        isinstance(text, str) for one in found for text in (one["value"], *one.get("confidence_interval", {}).values())
    )
    recall = next(one for one in found if one["type"] == "recall" and one["slice"] == "shoe")
    assert (
        float(recall["confidence_interval"]["lower_bound"]) < 0.96 < float(recall["confidence_interval"]["upper_bound"])
    )


def test_the_readme_has_metadata_that_hugging_face_reads_and_a_row_per_metric() -> None:
    text = model_card.documents(SUBJECT)["README.md"]
    assert text.startswith("---\n")
    head = yaml.safe_load(text.split("---")[1])
    assert head["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.98}]
    assert head["datasets"] == ["ylecun/mnist"]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| recall | a\\|b | 0.990000 | 0.945500 to 0.998200 |"[:30] in "\n".join(rows)
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)


def test_the_card_of_other_data_names_its_folder_and_not_the_path_of_the_machine() -> None:
    data: dict[str, Any] = {**SUBJECT.settings["data"], "source": "/home/someone/fashion"}
    documents = model_card.documents(replace(SUBJECT, settings={**SUBJECT.settings, "data": data}))
    for text in documents.values():
        assert "fashion" in text
        assert "someone" not in text
        assert "Handwriting" not in text
        assert "ylecun" not in text


@pytest.mark.parametrize("settings", [{}, {"data": {}}])
def test_a_card_without_records_says_so(settings: dict[str, Any]) -> None:
    documents = model_card.documents(replace(SUBJECT, settings=settings, data_sha256={}, slices={}, commit=None))
    assert "unknown" in documents["README.md"]
