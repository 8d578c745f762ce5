"""Charts as inline SVG: lines over epochs, and points in a plane."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .html import COLORS, clean

WIDTH, HEIGHT = 440, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 16, 24  # margins
POINTS = 400  # of a line; of longer ones every second, third, ... is drawn
DOTS = 40  # points up to which each shows its value under the mouse
LABELS, ROW = 190, 22  # width of the texts of rows, and their height
MANY = 100  # ratio of positive values from which their axis is logarithmic

Points = Sequence[tuple[float, float]]
Interval = tuple[float, float, float]  # position, lower and upper end


@dataclass(frozen=True)
class Scale:
    """An axis: values of ``low`` to ``high`` fall on pixels ``first`` to ``last``."""

    low: float  # value at the pixel ``first``
    high: float  # value at the pixel ``last``, greater than ``low``
    first: float  # pixel
    last: float  # pixel
    log: bool = False  # whether the axis is logarithmic; the values are positive then

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.first + (value - low) / (high - low) * (self.last - self.first)

    def ticks(self, whole: bool = False) -> list[float]:
        """Round values on the axis, about four of them; of a logarithmic axis powers of ten.

        Args:
            whole: whole numbers only.
        """
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**power for power in powers][:: len(powers) // 5 + 1]
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
        step = max(1.0, step) if whole else step
        return [n * step for n in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def fit_scale(values: Iterable[float], first: float, last: float, log: bool = False) -> Scale:
    """The scale on which all values lie; where they are equal, with room around them."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if low == high:
        room = abs(low) / 2 or 0.5
        low, high = low - room, high + room
    return Scale(low, high, first, last, log)


def thin(points: Points) -> Points:
    """Every n-th point and the last, such that at most ``POINTS`` and one remain."""
    step = math.ceil(len(points) / POINTS)
    return points if step < 2 else [*points[:-1:step], points[-1]]


def line_chart(
    name: str,
    series: Mapping[str, Points],
    positions: Sequence[float],
    marks: Sequence[tuple[float, str]] = (),
    *,
    bands: Mapping[str, Sequence[Interval]] | None = None,
    ticks: Sequence[float] = (),
    unit: str = "epoch",
) -> str:
    """Lines of values; where a value is not finite, the line has a gap.

    A path of the SVG has the attribute ``data-series`` with the name of its line. The axis of the values is logarithmic
    where all are positive and the greatest is more than ``MANY`` times the smallest.

    Args:
        name: of the chart, for those who cannot see it.
        series: by name, (epoch, value) in rising order of the epochs.
        positions: epochs that the axis spans.
        marks: epochs of upright lines, each with a text.
        bands: by name of a line, (epoch, low, high) of an area around it.
        ticks: positions above 0 that have numbers on an axis that is logarithmic then.
        unit: what the positions are.
    """
    areas = bands or {}
    values = [value for points in series.values() for _, value in points if math.isfinite(value)]
    values += [value for area in areas.values() for _, *ends in area for value in ends if math.isfinite(value)]
    log = len(values) > 1 and min(values) > 0 and max(values) > MANY * min(values)
    x = fit_scale([*positions, *ticks], LEFT, WIDTH - RIGHT - (10 if ticks else 0), bool(ticks))
    y = fit_scale(values, HEIGHT - BOTTOM, TOP, log)
    parts = [*_axes(x, y, ticks or x.ticks(whole=True)), *_marks(x, marks)]
    for number, (line, points) in enumerate(series.items()):
        color = f"c{number % COLORS}"
        parts += [_band(areas[line], x, y, color)] if areas.get(line) else []
        parts += _line(line, thin(points), x, y, color, unit)
    return _svg(HEIGHT, name, parts)


def _band(area: Sequence[Interval], x: Scale, y: Scale, color: str) -> str:
    """The area between the lower and the upper ends, where they are finite."""
    known = [interval for interval in area if all(map(math.isfinite, interval))]
    corners = [(at, high) for at, _, high in known] + [(at, low) for at, low, _ in reversed(known)]
    path = "L".join(f"{x(at):.2f} {y(value):.2f}" for at, value in corners)
    return f'<path class="band {color}" d="M{path}Z"/>'


def interval_chart(name: str, rows: Sequence[tuple[str, int, float, float, float]]) -> str:
    """Values with their intervals on one axis, a row each, and an upright line at 0.

    Args:
        name: of the chart, for those who cannot see it.
        rows: text, number of the color, value, lower and upper end; what is not finite is not drawn.
    """
    height = TOP + ROW * len(rows) + BOTTOM
    x = fit_scale([0.0, *(end for row in rows for end in row[2:])], LABELS, WIDTH - 2 * RIGHT)
    parts = [f'<path class="axis" d="M{LABELS} {height - BOTTOM}H{WIDTH - RIGHT}"/>']
    for value in x.ticks():
        parts.append(f'<text x="{x(value):.2f}" y="{height - 7}" text-anchor="middle">{value:.4g}</text>')
    parts.append(f'<path class="mark" d="M{x(0.0):.2f} {TOP}V{height - BOTTOM}"/>')
    for number, (text, color, *values) in enumerate(rows):
        middle = TOP + ROW * (number + 0.5)
        parts.append(f'<text x="{LABELS - 8}" y="{middle + 4:.2f}" text-anchor="end">{clean(text)}</text>')
        if all(map(math.isfinite, values)):
            value, low, high = map(x, values)
            told = clean(f"{text}: {values[0]:.4g} [{values[1]:.4g}, {values[2]:.4g}]")
            kind = f"c{color % COLORS}"
            parts.append(f'<path class="curve {kind}" d="M{low:.2f} {middle:.2f}L{high:.2f} {middle:.2f}"/>')
            parts.append(f'<path class="dots {kind}" d="M{value:.2f} {middle:.2f}h0"><title>{told}</title></path>')
    return _svg(height, name, parts)


def _axes(x: Scale, y: Scale, ticks: Sequence[float]) -> list[str]:
    """Lines and numbers at the ticks of both axes; ``ticks`` are those of ``x``."""
    bottom = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>']
    for value in y.ticks():
        parts.append(f'<path class="axis" d="M{LEFT} {y(value):.2f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y(value) + 4:.2f}" text-anchor="end">{value:.4g}</text>')
    for value in ticks:
        parts.append(f'<text x="{x(value):.2f}" y="{HEIGHT - 7}" text-anchor="middle">{value:g}</text>')
    return parts


def _marks(x: Scale, marks: Sequence[tuple[float, str]]) -> list[str]:
    """Upright lines with their texts above, which stand on the side that has room."""
    parts = []
    for position, text in marks:
        if x.low <= position <= x.high:
            anchor = "end" if x(position) > WIDTH / 2 else "start"
            parts.append(f'<path class="mark" d="M{x(position):.2f} {TOP}V{HEIGHT - BOTTOM}"/>')
            parts.append(f'<text x="{x(position):.2f}" y="11" text-anchor="{anchor}">{clean(text)}</text>')
    return parts


def _line(name: str, points: Points, x: Scale, y: Scale, color: str, unit: str) -> list[str]:
    """The path of a line, and of few points a dot each, which shows its value under the mouse."""
    commands, joined = [], False
    for position, value in points:
        if math.isfinite(value):
            commands.append(f"{'L' if joined else 'M'}{x(position):.2f} {y(value):.2f}{'' if joined else 'h0'}")
        joined = math.isfinite(value)
    parts = [f'<path class="curve {color}" data-series="{clean(name)}" d="{"".join(commands)}"/>']
    for position, value in points if len(points) <= DOTS else ():
        if math.isfinite(value):
            told = clean(f"{unit} {position:g}: {name} {value:.4g}")
            at = f"M{x(position):.2f} {y(value):.2f}h0"
            parts.append(f'<path class="dots {color}" d="{at}"><title>{told}</title></path>')
    return parts


def scatter(name: str, groups: Mapping[str, Points], size: int = 340) -> str:
    """Points in a plane, a color for each group; both axes have the same unit, and no numbers.

    Args:
        name: of the chart, for those who cannot see it.
        groups: by name, the points of each.
        size: width and height, in units of the SVG.
    """
    every = [point for points in groups.values() for point in points]
    middle = [(min(c) + max(c)) / 2 for c in zip(*every, strict=True)] or [0.0, 0.0]
    half = max((abs(c - m) for point in every for c, m in zip(point, middle, strict=True)), default=0.0) or 1.0
    across = Scale(middle[0] - half, middle[0] + half, 8, size - 8)
    up = Scale(middle[1] - half, middle[1] + half, size - 8, 8)
    parts = [f'<rect class="axis" x="0.5" y="0.5" width="{size - 1}" height="{size - 1}"/>']
    for number, (group, points) in enumerate(groups.items()):
        path = "".join(f"M{across(a):.1f} {up(b):.1f}h0" for a, b in points)
        parts.append(f'<path class="dots c{number % COLORS}" data-series="{clean(group)}" d="{path}"/>')
    return _svg(size, name, parts, size)


def _svg(height: int, name: str, parts: Sequence[str], width: int = WIDTH) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{clean(name)}">'
    return "\n".join([head, *parts, "</svg>"])
