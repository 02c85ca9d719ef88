from __future__ import annotations

import numpy as np

from serving.commands import drawing


def test_a_drawing_shows_two_rows_of_pixels_per_line() -> None:
    image = np.array([[255, 0, 255, 0], [255, 255, 0, 0], [0, 200, 127, 0]], np.uint8)
    assert drawing.draw(image) == ["█▄▀ ", " ▀  "]
    assert drawing.draw(image, characters=drawing.ASCII_HALF_BLOCKS) == [":.' ", " '  "]


def test_texts_are_to_the_right_of_the_ink() -> None:
    lines = ["  ", " #", "  ", "  "]
    assert drawing.beside(lines, ["a"]) == [" #  a"]
    assert drawing.beside(lines, ["a", "b", "c"]) == [" #  a", "    b", "    c"]
    assert drawing.beside(["  "], ["a", "b"]) == ["    a", "    b"]


def test_bars_show_the_likeliest_classes_if_not_all_fit() -> None:
    assert drawing.bars([0.25, 0.0, 0.75], 3, "#", ["no", "1", "yes"]) == [
        " no  25.0% #####",
        "  1   0.0% ",
        "yes  75.0% ###############",
    ]
    many = [0.0] * 26
    many[3], many[20] = 0.5, 0.5
    assert [line.split()[0] for line in drawing.bars(many, 2, "#", [*map(str, range(26))])] == ["3", "20"]
