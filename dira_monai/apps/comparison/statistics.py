"""How sure a score and a difference are: bootstrap over test patients, subsets of labels and seeds; Holm's correction.

Runs are a grid: ``runs[subset][seed]`` are the ``Cases`` of one of them, all of the same test images.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from scipy import stats

from ...utils.errors import InputError
from .cases import Cases

RESAMPLES = 10_000
LEVEL = 0.95

Grid = Sequence[Sequence[Cases]]


class Estimate(NamedTuple):
    """A score or a difference; what is undefined is NaN."""

    value: float  # mean of the runs
    low: float  # lower end of the 95 % interval
    high: float  # upper end
    error: float  # standard error
    p: float  # of a difference, two-sided, that it is 0


class Resampled(NamedTuple):
    """Mean scores of a grid as they would come out again; those of two grids over the same patients are paired."""

    all: ndarray  # with other patients, subsets and seeds, shape (resamples,)
    patients: ndarray  # with other patients alone, of the same shape
    runs: ndarray  # of the runs as they are, shape (subsets, seeds)
    people: int  # number of patients

    def __sub__(self, other: "Resampled") -> "Resampled":
        """Differences, run by run and draw by draw."""
        return Resampled(self.all - other.all, self.patients - other.patients, self.runs - other.runs, self.people)

    def degrees(self) -> float:
        """Degrees of freedom of the variance of ``all`` (Satterthwaite); NaN where each axis has one unit alone."""
        rows, columns = self.runs.mean(axis=1), self.runs.mean(axis=0)
        known = self.patients[np.isfinite(self.patients)]
        parts = [(known.var() if len(known) else math.nan, self.people)]
        parts += [(means.var(ddof=1) / len(means), len(means)) for means in (rows, columns) if len(means) > 1]
        parts = [(variance, number - 1) for variance, number in parts if number > 1]
        below = sum(variance**2 / number for variance, number in parts)
        if not parts:
            return math.nan
        return sum(variance for variance, _ in parts) ** 2 / below if below > 0 else math.inf


def resample(runs: Grid, count: int = RESAMPLES, seed: int = 0) -> Resampled:
    """Draw patients, subsets and seeds with replacement.

    Each axis is drawn by itself, so that what runs share stays shared (pigeonhole bootstrap; Owen, 2007, Annals of
    Applied Statistics 1, 386). Of n units n - 1 are drawn, which makes the variance of few right (McCarthy and Snowden,
    1985); of a single one nothing can be said, and it stays. Patients come with all of their cases. The draws depend
    on the numbers and ``seed`` alone.
    """
    rng = np.random.default_rng(seed)
    patients = runs[0][0].patients
    number = int(patients.max()) + 1
    shape = len(runs), len(runs[0])
    chosen = [rng.integers(n, size=(count, max(1, n - 1))) for n in shape]
    counts = rng.multinomial(max(1, number - 1), np.full(number, 1 / number), size=count).astype(np.float32)
    once, weights = np.ones((1, len(patients))), counts[:, patients]
    scores = np.array([[case.score(weights) for case in row] for row in runs])  # (subsets, seeds, count)
    drawn = scores[chosen[0][:, :, None], chosen[1][:, None, :], np.arange(count)[:, None, None]]
    found = np.array([[case.score(once)[0] for case in row] for row in runs])
    return Resampled(drawn.mean(axis=(1, 2)), scores.mean(axis=(0, 1)), found, number)


def estimate(runs: Grid, baseline: Grid | None = None) -> Estimate:
    """The mean score of runs, or how far it lies above that of others.

    The interval is the value ± t times the standard error of the bootstrap, where t has the degrees of freedom that the
    numbers of patients, subsets and seeds leave: percentiles alone would call a difference sure wherever a few patients
    agree in its sign. Resamples without a defined score, such as those that have cases of one class only, are left out
    on both sides. The interval of a score is cut to [0, 1], and its p is NaN.

    Args:
        runs: by subset and seed.
        baseline: as many runs on the same test cases, compared one by one.

    Raises:
        InputError: if the grids differ in their numbers of runs or in their test cases.
    """
    check_pairs(runs, baseline or runs)
    found = resample(runs) - resample(baseline) if baseline else resample(runs)
    value, known, degrees = float(found.runs.mean()), found.all[np.isfinite(found.all)], found.degrees()
    if not len(known) or math.isnan(degrees):
        return Estimate(value, math.nan, math.nan, math.nan, math.nan)
    error = float(known.std())
    reach = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error
    if baseline is None:
        return Estimate(value, max(0.0, value - reach), min(1.0, value + reach), error, math.nan)
    far = abs(value) / error if error > 0 else math.inf if value else 0.0
    return Estimate(value, value - reach, value + reach, error, float(2 * stats.t.sf(far, degrees)))


def check_pairs(runs: Grid, baseline: Grid) -> None:
    """Refuse two grids that cannot be compared run by run and case by case.

    Raises:
        InputError: names two runs that do not fit.
    """
    first = baseline[0][0]
    if [len(row) for row in runs] != [len(row) for row in baseline]:
        numbers = [sum(map(len, grid)) for grid in (baseline, runs)]
        raise InputError(f"{first.run}: {numbers[0]} runs cannot be paired with {numbers[1]}; give as many of each")
    for case in (case for grid in (baseline, runs) for row in grid for case in row):
        same = case.metric == first.metric and case.images == first.images
        if not same or not np.array_equal(case.patients, first.patients) or not _same_truth(case, first):
            raise InputError(f"{case.run} was not tested on the same cases as {first.run}; evaluate both on one list")


def _same_truth(case: Cases, other: Cases) -> bool:
    if case.truth is None or other.truth is None:
        return case.truth is other.truth
    return np.array_equal(case.truth, other.truth, equal_nan=True)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm (1979); NaN stays, and does not count."""
    raw = np.asarray(values, dtype=float)
    adjusted = raw.copy()
    order = np.argsort(raw)[: np.isfinite(raw).sum()]  # NaN sorts behind all others
    steps = raw[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def describe(difference: Estimate) -> str:
    """A difference with its interval, such as ``+0.032 [0.008, 0.061]``."""
    return f"{difference.value:+.3f} [{difference.low:.3f}, {difference.high:.3f}]"
