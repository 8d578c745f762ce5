"""What the finished cells of a study came to: scores, differences with their certainty, labels, steps and costs."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from ...apps.comparison.cases import Cases, read_cases, read_scores
from ...apps.comparison.statistics import Estimate, estimate, holm
from ...bundle.run_json import read_starts
from ...handlers.training_log import read_rows
from .cell import is_finished, read_cell
from .grid import Cell, Key, fractions_of

Place = tuple[str, str, float]  # task, initialization, fraction of the labels


class Result(NamedTuple):
    """A finished fine-tuning."""

    cell: Cell  # of the study
    scores: dict[str, float]  # of the test images, by name
    cases: Cases  # of the test
    curve: list[tuple[int, float]]  # (step, key metric of the validation)
    images: int  # for training
    seconds: float  # that it took


class Group(NamedTuple):
    """The runs of an initialization for a task and a number of labels."""

    runs: list[list[Result]]  # by subset and seed, of the tuning that was best in validation
    tuning: int  # its number
    score: Estimate  # of the test

    @property
    def every(self) -> list[Result]:
        """All runs."""
        return list(itertools.chain(*self.runs))

    @property
    def images(self) -> float:
        """Mean number of images for training."""
        return float(np.mean([run.images for run in self.every]))


@dataclass
class Findings:
    """What a study found."""

    results: list[Result]  # all finished fine-tunings
    groups: dict[Place, Group]  # by task, initialization and fraction, of which all runs are finished
    baseline: str  # name of the first initialization
    # of the other initializations to the first, by place; p is not corrected
    differences: dict[Place, Estimate] = field(default_factory=dict)
    corrected: dict[Place, float] = field(default_factory=dict)  # p of the differences by Holm
    # seconds of the pre-training of each place; 0 where this study made none
    pretraining: dict[Place, float] = field(default_factory=dict)


def collect(study: Mapping[str, Any], cells: Sequence[Cell], folder: Path) -> Findings:
    """Read the finished cells of a study, and compare the initializations with the first one."""
    results = {cell.key: _read(cell, folder) for cell in cells if cell.key and is_finished(folder / cell.name)}
    candidates = range(len(study["tuning"]))
    groups = {}
    for place in ((t, n, f) for t in study["tasks"] for n in study["initializations"] for f in fractions_of(study, t)):
        subsets = range(study["subsets"] if place[2] < 1 else 1)
        grids = []
        for tuning in candidates:
            keys = [[Key(*place, subset, seed, tuning) for seed in range(study["seeds"])] for subset in subsets]
            if all(key in results for row in keys for key in row):
                grids.append((tuning, [[results[key] for key in row] for row in keys]))
        if len(grids) == len(candidates):  # else the best one is not known
            tuning, runs = max(grids, key=lambda grid: _validated(grid[1]))
            groups[place] = Group(runs, tuning, estimate([[run.cases for run in row] for row in runs]))
    found = Findings([*results.values()], groups, next(iter(study["initializations"])))
    for place, group in groups.items():
        base = groups.get((place[0], found.baseline, place[2]))
        needs = group.every[0].cell.needs
        found.pretraining[place] = read_cell(folder / needs).get("seconds", 0.0) if needs else 0.0
        if base is not None and base is not group:
            pair = [[[run.cases for run in row] for row in each.runs] for each in (group, base)]
            found.differences[place] = estimate(*pair)
    found.corrected = dict(zip(found.differences, holm([d.p for d in found.differences.values()]), strict=True))
    return found


def _read(cell: Cell, folder: Path) -> Result:
    run = folder / cell.name
    cases = read_cases(run)
    rows = [row for row in read_rows(run / "metrics.csv") if row.get(cases.metric)]
    curve = [(int(row["iteration"]), float(row[cases.metric])) for row in rows]
    images = int(read_starts(run / "run.json")[-1]["images"]["training"])
    return Result(cell, read_scores(run), cases, curve, images, read_cell(run).get("seconds", 0.0))


def _validated(runs: Sequence[Sequence[Result]]) -> float:
    """Mean of the best validations: the test decides nothing."""
    curves = [[value for _, value in run.curve if math.isfinite(value)] for run in itertools.chain(*runs)]
    return float(np.mean([max(values, default=-math.inf) for values in curves]))


def mean_curve(group: Group) -> tuple[ndarray, ndarray, ndarray]:
    """Steps, mean validation of the runs at each, and its standard deviation; empty where nothing was validated.

    A run that stopped early stays where it was at its end.
    """
    curves = [np.array(run.curve, dtype=float) for run in group.every if run.curve]
    steps = np.unique(np.concatenate([np.zeros(0), *(curve[:, 0] for curve in curves)]))
    if not len(steps):
        return steps, steps, steps
    values = np.array([np.interp(steps, curve[:, 0], curve[:, 1]) for curve in curves])
    return steps, values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(steps))


def steps_share(group: Group, base: Group) -> float:
    """Steps after which the mean validation first reaches the best one of the base, by the steps of that; or NaN."""
    steps, values, _ = mean_curve(base)
    own, reached, _ = mean_curve(group)
    if not np.isfinite(values).any():
        return math.nan
    there = own[reached >= np.nanmax(values)]
    return float(there[0] / steps[int(np.nanargmax(values))]) if len(there) else math.nan


def labels_share(found: Findings, task: str, name: str) -> float:
    """Labels with which an initialization reaches what the first one does with all of its labels, by these; or NaN.

    Between numbers of labels the score is interpolated over their logarithm; where it is reached with the fewest
    already, the share is that of these.
    """
    curves = {
        start: sorted((g.images, g.score.value) for (t, s, _), g in found.groups.items() if (t, s) == (task, start))
        for start in (name, found.baseline)
    }
    if not curves[name] or not curves[found.baseline]:
        return math.nan
    most, goal = curves[found.baseline][-1]
    before: tuple[float, float] | None = None
    for labels, value in curves[name]:
        if value >= goal:
            if before is not None:
                part = (goal - before[1]) / (value - before[1])
                labels = math.exp(math.log(before[0]) + part * math.log(labels / before[0]))
            return labels / most
        before = labels, value
    return math.nan
