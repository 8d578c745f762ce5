"""Losses and validation metrics over the epochs, from ``metrics.csv``."""

import re
from collections.abc import Mapping, Sequence

from ...visualize.charts import Points, line_chart
from ...visualize.html import details, figure, grid, legend

CLASS_METRICS = ("dice", "auc", "ap", "ece")  # val_dice_LIVER: of each class, in a chart with the mean
ASIDE = ("learning_rate", "momentum", "images_per_second")
TOGETHER = {  # charts that two columns share
    "distorted_psnr": "psnr",
    "discriminator": "adversarial",
    "contrastive_chance": "contrastive_accuracy",
}
LINES = 10  # of a chart; further classes are in the table

Rows = Sequence[Mapping[str, str]]


def read_series(rows: Rows) -> dict[str, Points]:
    """(epoch, value) by the names of the columns that hold numbers, in the order of the file."""
    names = [name for row in rows[-1:] for name in row if name not in ("epoch", "iteration", "stage")]
    series = {name: [(float(row["epoch"]), float(row[name])) for row in rows if row.get(name)] for name in names}
    return {name: points for name, points in series.items() if points}


def chart_of(name: str) -> str:
    """The chart that a column belongs to: training and validation of one thing share it, and so do all classes."""
    validated = name.startswith("val_")
    base = name.removeprefix("val_")
    if validated and (found := re.match(f"({'|'.join(CLASS_METRICS)})_|mean_({'|'.join(CLASS_METRICS)})$", base)):
        return found[1] or found[2]
    return TOGETHER.get(base, base)


def stage_marks(rows: Rows) -> list[tuple[float, str]]:
    """The first epoch of each stage with its name; none where there is one stage only."""
    stages = [(float(row["epoch"]), row.get("stage") or "") for row in rows]
    starts = [stages[i] for i in range(len(stages)) if i == 0 or stages[i][1] != stages[i - 1][1]]
    return [(epoch, name or "all") for epoch, name in starts] if len(starts) > 1 else []


def draw_curves(rows: Rows, key_metric: str | None = None) -> str:
    """A chart for each loss and each metric; learning rate and speed behind a click.

    Args:
        rows: of ``metrics.csv``, one an epoch.
        key_metric: column whose chart stands first.
    """
    epochs = [float(row["epoch"]) for row in rows]
    charts: dict[str, dict[str, Points]] = {}
    for name, points in read_series(rows).items():
        charts.setdefault(chart_of(name), {})[name] = points
    marks = stage_marks(rows)
    ordered = sorted(charts.items(), key=lambda chart: key_metric not in chart[1])
    drawn = {name: _chart(name, lines, epochs, marks) for name, lines in ordered}
    shown = [chart for name, chart in drawn.items() if name not in ASIDE]
    aside = [chart for name, chart in drawn.items() if name in ASIDE]
    return grid(shown) + details("learning rate, momentum and speed", grid(aside))


def _chart(name: str, lines: dict[str, Points], epochs: Sequence[float], marks: Sequence[tuple[float, str]]) -> str:
    drawn = dict(sorted(lines.items(), key=lambda item: not item[0].startswith("val_mean_"))[:LINES])
    note = "" if len(drawn) == len(lines) else f"{len(drawn)} of {len(lines)} columns; the others are in metrics.csv"
    names = [f"{line} {points[-1][1]:.4g}" for line, points in drawn.items()]
    return figure(name, line_chart(name, drawn, epochs, marks) + legend(names), note)
