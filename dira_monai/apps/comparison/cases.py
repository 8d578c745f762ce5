"""What an evaluated run made of each test case, and the scores that follow from it."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from ...datalists.io import read_datalist
from ...images.find import first_file
from ...utils.errors import InputError

AT_ONCE = 4_000_000  # weights of cases that are held at once


@dataclass(frozen=True, eq=False)
class Cases:
    """Test cases of a run."""

    run: str  # folder, for errors
    metric: str  # val_mean_dice or val_mean_auc
    images: tuple[str, ...]  # of the cases
    patients: ndarray  # number of the patient of each case, from 0; a case without one is a patient by itself
    # Dice of each class but the background, NaN where it is missing, or probability of each class, (cases, classes)
    result: ndarray
    truth: ndarray | None = None  # 1, 0, or NaN where not known, of the same shape; None for Dice

    def score(self, weights: ndarray) -> ndarray:
        """The metric where case j counts ``weights[b, j]`` times, shape (B,); NaN where it is undefined.

        AUC is the mean over the classes that have present and absent cases; Dice is the mean over the classes of each
        case, then over the cases, both of those that are defined, as ``evaluate`` has it.
        """
        if self.truth is not None:
            columns = zip(self.result.T, self.truth.T, strict=True)
            return _defined_mean(np.stack([weighted_auc(score, truth, weights) for score, truth in columns]))
        dice = _defined_mean(self.result.T)
        has = ~np.isnan(dice)
        total = weights[:, has].sum(axis=1)
        return np.divide(weights[:, has] @ dice[has], total, out=np.full(len(weights), np.nan), where=total > 0)


def _defined_mean(values: ndarray) -> ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


def weighted_auc(scores: ndarray, truth: ndarray, weights: ndarray) -> ndarray:
    """Area under the ROC curve, ties counting half, where case j counts ``weights[b, j]`` times.

    Args:
        scores: shape (cases,), of which only the order matters.
        truth: 1, 0, or NaN where not known, shape (cases,).
        weights: at least 0, shape (B, cases).

    Returns:
        Shape (B,); NaN where no positive or no negative case has a weight.
    """
    known = np.flatnonzero(~np.isnan(truth))
    order = known[np.argsort(scores[known], kind="stable")]
    if not len(order):
        return np.full(len(weights), np.nan)
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # of groups of equal scores
    areas = []
    for rows in np.array_split(weights, math.ceil(weights.size / AT_ONCE)):
        sums = [np.add.reduceat(rows[:, order] * (truth[order] == t), starts, axis=1) for t in (1, 0)]
        positive, negative = sums
        below = negative.cumsum(axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        wins = (positive * below).sum(axis=1)
        areas.append(np.divide(wins, pairs, out=np.full(len(rows), np.nan), where=pairs > 0))
    return np.concatenate(areas)


def read_scores(output_dir: str | Path) -> dict[str, float]:
    """Metrics that an evaluation left in ``output_dir/evaluation/metrics.csv``, by name.

    Raises:
        InputError: if the run was not evaluated, or a line is not a name and a number.
    """
    path = Path(output_dir) / "evaluation" / "metrics.csv"
    rows = _read_cells(path, 1, "run train.json with evaluate.json for this output_dir first")
    try:
        return {name.strip(): float(value) for name, value in rows}
    except ValueError as error:
        raise InputError(f"{path}: not a table of names and numbers ({error})") from error


def read_cases(run: str | Path) -> Cases:
    """The test cases of an evaluated fine-tuning, in the order of its datalist.

    Args:
        run: its output folder, with ``datalist.json`` and ``evaluation``.

    Raises:
        InputError: if the run was not evaluated, or not on the test images of its datalist.
    """
    folder = Path(run)
    datalist = read_datalist(folder / "datalist.json")
    entries, names = datalist.get("test", []), datalist.get("class_names", [])
    files = [os.path.join(datalist["dataset_dir"], first_file(entry["image"])) for entry in entries]
    dice = datalist.get("task") == "segmentation"
    path = folder / "evaluation" / ("val_mean_dice_raw.csv" if dice else "predictions.csv")
    width = len(names) - dice
    rows = _read_rows(path, width + dice)  # of Dice the last one is the mean
    if {*map(os.path.realpath, rows)} != {*map(os.path.realpath, files)} or not files:
        raise InputError(f"{path} is not of the {len(files)} test images of {folder / 'datalist.json'}; evaluate again")
    by_file = {os.path.realpath(file): values for file, values in rows.items()}
    result = np.array([by_file[os.path.realpath(file)][:width] for file in files])
    people = [str(entry.get("patient", file)) for entry, file in zip(entries, files, strict=True)]
    patients = np.unique(people, return_inverse=True)[1]
    truth = None if dice else np.array([_label_row(entry["label"], width) for entry in entries])
    return Cases(str(run), f"val_mean_{'dice' if dice else 'auc'}", (*files,), patients, result, truth)


def _read_rows(path: Path, count: int) -> dict[str, list[float]]:
    """The numbers behind the file in each row of a table; a head is left out."""
    rows = _read_cells(path, count, "run dira-monai evaluate for this run first")
    try:
        return {name: [float(value) for value in values] for name, *values in rows if name != "filename"}
    except ValueError as error:
        raise InputError(f"{path}: not a table of files and numbers ({error})") from error


def _read_cells(path: Path, count: int, cure: str) -> list[list[str]]:
    """The name and up to ``count`` numbers of each line, where MONAI writes names with commas without quotes."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; {cure}")
    lines = path.read_text("utf-8", errors="surrogateescape").split("\n")
    return [line.rsplit(",", count) for line in lines if line]


def _label_row(label: int | Sequence[int | None], count: int) -> list[float]:
    """1, 0 or NaN for each class."""
    if isinstance(label, int):
        return [float(number == label) for number in range(count)]
    return [math.nan if state is None else float(state) for state in label]
