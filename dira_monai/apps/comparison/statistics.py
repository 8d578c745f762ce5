"""How sure a score and a difference are: bootstrap over test patients, subsets of labels and seeds; Holm's correction.

Runs are a grid: ``runs[subset][seed]`` are the ``Cases`` of one of them, all of the same test images.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from ...utils.errors import InputError
from .cases import Cases

RESAMPLES = 10_000
LEVEL = 0.95

Grid = Sequence[Sequence[Cases]]


class Estimate(NamedTuple):
    """A score or a difference; what is undefined is NaN.

    Attributes:
        value: mean of the runs.
        low: lower end of the 95 % interval.
        high: upper end.
        error: standard error.
        p: two-sided, that the value is 0.
    """

    value: float
    low: float
    high: float
    error: float
    p: float


def resample(runs: Grid, count: int = RESAMPLES, seed: int = 0) -> ndarray:
    """Mean scores of ``runs`` as they would come out with other patients, subsets and seeds, shape (count,).

    Each axis is drawn with replacement by itself, so that what runs share stays shared (pigeonhole bootstrap; Owen,
    2007, https://arxiv.org/abs/0712.1111). Of n units n - 1 are drawn, which makes the variance of few right (McCarthy
    and Snowden, 1985); of a single one nothing can be said, and it stays. Patients come with all of their cases. The
    draws depend on the numbers and ``seed`` alone: those of two grids over the same patients are
    paired.
    """
    rng = np.random.default_rng(seed)
    patients = runs[0][0].patients
    number = int(patients.max()) + 1
    shape = len(runs), len(runs[0])
    chosen = [rng.integers(n, size=(count, max(1, n - 1))) for n in shape]
    counts = rng.multinomial(max(1, number - 1), np.full(number, 1 / number), size=count).astype(np.float32)
    weights = counts[:, patients]
    scores = np.array([[case.score(weights) for case in row] for row in runs])  # (subsets, seeds, count)
    drawn = scores[chosen[0][:, :, None], chosen[1][:, None, :], np.arange(count)[:, None, None]]
    return drawn.mean(axis=(1, 2))


def score(runs: Grid) -> float:
    """Mean of the metric over all runs."""
    once = np.ones((1, len(runs[0][0].patients)))
    return float(np.mean([case.score(once)[0] for row in runs for case in row]))


def estimate(runs: Grid, baseline: Grid | None = None) -> Estimate:
    """The mean score of runs, or how far it lies above that of others.

    The interval is that of the percentiles, and p is the level at which it would just touch 0. Resamples without a
    defined score, such as those that have cases of one class only, are left out of both grids.

    Args:
        runs: by subset and seed.
        baseline: as many runs on the same test cases, compared one by one.

    Raises:
        InputError: if the grids differ in their numbers of runs or in their test cases.
    """
    check_pairs(runs, baseline or runs)
    value = score(runs) - (score(baseline) if baseline else 0.0)
    found = resample(runs) - (resample(baseline) if baseline else 0.0)
    found = found[np.isfinite(found)]
    if not len(found):
        return Estimate(value, math.nan, math.nan, math.nan, math.nan)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = 1 + min((found <= 0).sum(), (found >= 0).sum())
    return Estimate(value, float(low), float(high), float(found.std()), float(min(1.0, 2 * tail / (len(found) + 1))))


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
