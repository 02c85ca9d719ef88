from __future__ import annotations

from components.common.class_names import class_names


def test_classes_have_their_names_or_else_their_numbers() -> None:
    assert class_names({"data": {"class_names": ["Shirt", "Bag"]}}, 2) == ["Shirt", "Bag"]
    assert class_names({"data": {"class_names": []}}, 3) == ["0", "1", "2"]
    assert class_names({}, 1) == ["0"]  # of a run before there were names
