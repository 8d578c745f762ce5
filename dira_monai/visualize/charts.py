"""Charts as inline SVG: lines over epochs, and points in a plane."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .html import COLORS, clean

WIDTH, HEIGHT = 440, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 16, 24  # margins
POINTS = 400  # of a line; of longer ones every second, third, ... is drawn
DOTS = 40  # points up to which each shows its value under the mouse
MANY = 100  # ratio of positive values from which their axis is logarithmic

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """An axis: values of ``low`` to ``high`` fall on pixels ``first`` to ``last``.

    Attributes:
        low: value at the pixel ``first``.
        high: value at the pixel ``last``, greater than ``low``.
        first: pixel.
        last: pixel.
        log: whether the axis is logarithmic; the values are positive then.
    """

    low: float
    high: float
    first: float
    last: float
    log: bool = False

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
    name: str, series: Mapping[str, Points], positions: Sequence[float], marks: Sequence[tuple[float, str]] = ()
) -> str:
    """Lines of values; where a value is not finite, the line has a gap.

    A path of the SVG has the attribute ``data-series`` with the name of its line. The axis of the values is logarithmic
    where all are positive and the greatest is more than ``MANY`` times the smallest.

    Args:
        name: of the chart, for those who cannot see it.
        series: by name, (epoch, value) in rising order of the epochs.
        positions: epochs that the axis spans.
        marks: epochs of upright lines, each with a text.
    """
    values = [value for points in series.values() for _, value in points if math.isfinite(value)]
    log = len(values) > 1 and min(values) > 0 and max(values) > MANY * min(values)
    x = fit_scale(positions, LEFT, WIDTH - RIGHT)
    y = fit_scale(values, HEIGHT - BOTTOM, TOP, log)
    parts = [*_axes(x, y), *_marks(x, marks)]
    for number, (line, points) in enumerate(series.items()):
        parts += _line(line, thin(points), x, y, f"c{number % COLORS}")
    return _svg(HEIGHT, name, parts)


def _axes(x: Scale, y: Scale) -> list[str]:
    """Lines and numbers at the ticks of both axes."""
    bottom = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>']
    for value in y.ticks():
        parts.append(f'<path class="axis" d="M{LEFT} {y(value):.2f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y(value) + 4:.2f}" text-anchor="end">{value:.4g}</text>')
    for value in x.ticks(whole=True):
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


def _line(name: str, points: Points, x: Scale, y: Scale, color: str) -> list[str]:
    """The path of a line, and of few points a dot each, which shows its value under the mouse."""
    commands, joined = [], False
    for position, value in points:
        if math.isfinite(value):
            commands.append(f"{'L' if joined else 'M'}{x(position):.2f} {y(value):.2f}{'' if joined else 'h0'}")
        joined = math.isfinite(value)
    parts = [f'<path class="curve {color}" data-series="{clean(name)}" d="{"".join(commands)}"/>']
    for position, value in points if len(points) <= DOTS else ():
        if math.isfinite(value):
            told = clean(f"epoch {position:g}: {name} {value:.4g}")
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
