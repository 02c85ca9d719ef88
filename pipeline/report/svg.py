"""Geometry of the charts; templates/charts.html draws it. Coordinates are SVG user units, y downwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 40  # margins for the axes' labels
BOX_WIDTH, BOX_HEIGHT, GAP, LANE = 270, 46, 16, 12  # of a flow


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Series:
    """A line through `points`, in order of x. `style` is a CSS class; `bars` are intervals (x, low, high)."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "line"
    bars: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Line:
    name: str
    style: str
    path: str
    dots: list[tuple[float, float]]
    bars: list[tuple[float, float, float]]
    words: str  # for a screen reader


@dataclass(frozen=True)
class Chart:
    """A line or bar chart.

    Attributes:
        label: what a screen reader says.
        bars: (x, y, width, height, style, title).
        legend: styles of the bars, which are their names, if there are several.
    """

    label: str
    width: int
    height: int
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    bars: list[tuple[float, float, float, float, str, str]]
    legend: tuple[str, ...] = ()
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high], some `count` of them."""
    if not high - low > 1e-6 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def line_chart(
    label: str, series: Sequence[Series], x_label: str, y_label: str, size: tuple[int, int] = (560, 260),
    y_range: tuple[float, float] | None = None,
) -> Chart | None:  # fmt: skip
    """A chart of lines; None if there is no finite point. `y_range` widens the range of the values."""
    kept = [(one, [(x, y) for x, y in one.points if math.isfinite(x) and math.isfinite(y)]) for one in series]
    everything = [point for _, points in kept for point in points]
    if not everything:
        return None
    width, height = size
    ys = [y for _, y in everything] + [y for one in series for bar in one.bars for y in bar[1:]] + list(y_range or ())
    x_at, y_at = ticks(min(x for x, _ in everything), max(x for x, _ in everything)), ticks(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            round(LEFT + (x - x_at[0]) / (x_at[-1] - x_at[0]) * (width - LEFT - RIGHT), 1),
            round(height - BOTTOM - (y - y_at[0]) / (y_at[-1] - y_at[0]) * (height - TOP - BOTTOM), 1),
        )

    lines = []
    for one, points in kept:
        placed = [place(x, y) for x, y in points]
        bars = [(place(x, low)[0], place(x, low)[1], place(x, high)[1]) for x, low, high in one.bars]
        path = "M" + " L".join(f"{x} {y}" for x, y in placed)
        lines.append(Line(one.name, one.style, path, placed, bars, words(points)))
    return Chart(
        label=label,
        width=width,
        height=height,
        x_label=x_label,
        y_label=y_label,
        x_ticks=[Tick(place(x, y_at[0])[0], f"{x:g}") for x in x_at],
        y_ticks=[Tick(place(x_at[0], y)[1], f"{y:g}") for y in y_at],
        lines=lines,
        bars=[],
    )


def words(points: Sequence[tuple[float, float]]) -> str:
    """The first and the last point of a line."""
    if not points:
        return "no points"
    (x0, y0), (x1, y1) = points[0], points[-1]
    return f"from {y0:.4g} at {x0:g} to {y1:.4g} at {x1:g}"


def bar_chart(
    label: str, names: Sequence[str], groups: Sequence[tuple[str, Sequence[float]]], x_label: str, y_label: str,
    size: tuple[int, int] = (560, 260),
) -> Chart:  # fmt: skip
    """Groups of bars side by side. Each group is (style, a value per name)."""
    width, height = size
    y_at = ticks(0, max((v for _, values in groups for v in values), default=1) or 1, 4)
    slot = (width - LEFT - RIGHT) / max(1, len(names))
    bar = slot * 0.8 / max(1, len(groups))
    bars = []
    for g, (style, values) in enumerate(groups):
        for k, value in enumerate(values):
            high = value / y_at[-1] * (height - TOP - BOTTOM)
            x = LEFT + slot * (k + 0.1) + bar * g
            title = f"{style} {names[k]}: {value:g}"
            bars.append((round(x, 1), round(height - BOTTOM - high, 1), round(bar, 1), round(high, 1), style, title))
    every = math.ceil(len(names) / 12)
    return Chart(
        label=label,
        width=width,
        height=height,
        x_label=x_label,
        y_label=y_label,
        x_ticks=[Tick(round(LEFT + slot * (k + 0.5), 1), names[k]) for k in range(0, len(names), every)],
        y_ticks=[Tick(round(height - BOTTOM - y / y_at[-1] * (height - TOP - BOTTOM), 1), f"{y:g}") for y in y_at],
        lines=[],
        bars=bars,
        legend=tuple(style for style, _ in groups) if len(groups) > 1 else (),
    )


@dataclass(frozen=True)
class Box:
    """A box of a flow: `after` names the boxes that it follows. `style` is a CSS class."""

    name: str
    title: str
    note: str = ""
    after: tuple[str, ...] = ()
    style: str = ""


@dataclass(frozen=True)
class Flow:
    """Boxes from top to bottom, edges between neighbours straight, the others in lanes at the right."""

    label: str
    width: int
    height: int
    boxes: list[tuple[int, Box]]  # y and box
    edges: list[str]  # paths
    box: tuple[int, int] = (BOX_WIDTH, BOX_HEIGHT)


def flow(label: str, boxes: Sequence[Box]) -> Flow:
    """Lay out a graph; `boxes` are in topological order. Names in `after` that are not boxes are ignored."""
    place = {box.name: k for k, box in enumerate(boxes)}
    pairs = [(place[name], k) for k, box in enumerate(boxes) for name in box.after if place.get(name, k) < k]
    lanes: list[list[tuple[int, int]]] = []
    edges = []
    for start, end in sorted(set(pairs), key=lambda pair: (pair[1] - pair[0], pair)):
        top, bottom = start * (BOX_HEIGHT + GAP) + BOX_HEIGHT, end * (BOX_HEIGHT + GAP)
        if end == start + 1:
            edges.append(f"M{BOX_WIDTH / 2:g} {top} V{bottom - 1}")
            continue
        free = (k for k, lane in enumerate(lanes) if all(end <= a or start >= b for a, b in lane))
        lane = next(free, len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((start, end))
        x, leave, enter = BOX_WIDTH + LANE * (lane + 1), top - BOX_HEIGHT // 3, bottom + BOX_HEIGHT // 3
        down = f"M{BOX_WIDTH} {leave} H{x - 6} Q{x} {leave} {x} {leave + 6} V{enter - 6}"
        edges.append(f"{down} Q{x} {enter} {x - 6} {enter} H{BOX_WIDTH + 1}")
    height = len(boxes) * (BOX_HEIGHT + GAP) - GAP
    return Flow(
        label=label,
        width=BOX_WIDTH + LANE * (len(lanes) + 1),
        height=max(height, 1),
        boxes=[(k * (BOX_HEIGHT + GAP), box) for k, box in enumerate(boxes)],
        edges=edges,
    )
