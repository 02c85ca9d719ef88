from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.svg import BOX_WIDTH, Box, Series, bar_chart, flow, line_chart, ticks

finite = st.floats(-1e6, 1e6)


@given(finite, finite)
def test_ticks_are_round_and_cover_the_values(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    rounding = 1e-6 * (found[-1] - found[0])
    assert found[0] <= low + rounding
    assert found[-1] >= high - rounding
    assert 2 <= len(found) <= 12
    assert found == sorted(set(found))


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
def test_a_line_stays_inside_of_its_chart(points: list[tuple[float, float]]) -> None:
    chart = line_chart("loss", [Series("run", sorted(points))], "step", "loss")
    assert chart is not None
    for x, y in chart.lines[0].dots:
        assert chart.left - 0.1 <= x <= chart.width - chart.right + 0.1
        assert chart.top - 0.1 <= y <= chart.height - chart.bottom + 0.1


def test_points_that_are_not_finite_are_left_out_and_none_make_no_chart() -> None:
    chart = line_chart("loss", [Series("run", [(1, math.nan), (2, 3.0), (3, math.inf)])], "step", "loss")
    assert chart is not None
    assert len(chart.lines[0].dots) == 1
    assert line_chart("loss", [Series("run", [(1, math.nan)])], "step", "loss") is None
    assert line_chart("loss", [], "step", "loss") is None


def test_bars_of_a_group_are_side_by_side() -> None:
    chart = bar_chart("classes", ["0", "1"], [("train", [10, 20]), ("test", [5, 0])], "class", "%")
    first, second, third, fourth = ((x, width, height) for x, _, width, height, _, _ in chart.bars)
    assert first[0] + first[1] <= third[0]
    assert second[2] > first[2] > third[2] > fourth[2] == 0


def test_edges_of_a_flow_do_not_share_a_lane_unless_they_do_not_meet() -> None:
    boxes = [Box("a", "A"), Box("b", "B", after=("a",)), Box("c", "C", after=("a", "b")), Box("d", "D", after=("b",))]
    found = flow("graph", [*boxes, Box("e", "E", after=("c", "d", "unknown"))])
    straight = [edge for edge in found.edges if edge.startswith(f"M{BOX_WIDTH / 2:g} ")]
    assert len(found.edges) == 6
    assert len(straight) == 3  # a-b, b-c, d-e
    assert len({edge.split("V")[0].split()[-2] for edge in found.edges if edge not in straight}) >= 2
    assert found.height > found.boxes[-1][0]
