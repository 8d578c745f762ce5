"""The command ``scores``: metrics of several fine-tuning runs side by side."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..utils.errors import InputError
from ..utils.tables import format_table


def scores(*runs: str) -> Iterator[str]:
    """Print the test metrics of fine-tuning runs side by side, and where their pictures are.

    Args:
        runs: output folders of runs that were evaluated.
    """
    yield compare_scores(runs)


def read_scores(output_dir: str | Path) -> dict[str, float]:
    """Metrics that an evaluation left in ``output_dir/evaluation/metrics.csv``, by name.

    Raises:
        InputError: if the run was not evaluated, or a line is not a name and a number.
    """
    path = Path(output_dir) / "evaluation" / "metrics.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file; run train.json with evaluate.json for this output_dir first")
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    try:
        return {name.strip(): float(value) for name, value in rows}
    except ValueError as error:
        raise InputError(f"{path}: not a table of names and numbers ({error})") from error


def compare_scores(runs: Sequence[str | Path]) -> str:
    """A table of the metrics of some runs, a column each, and where their pictures are.

    Args:
        runs: their output folders.

    Raises:
        InputError: if there is no run, or one was not evaluated.
    """
    if not runs:
        raise InputError("scores needs at least one output folder of a fine-tuning run")
    scores = [read_scores(run) for run in runs]
    names = list(dict.fromkeys(name for score in scores for name in score))
    rows = [["", *map(str, runs)]]
    rows += [[name, *(f"{score[name]:.4f}" if name in score else "-" for score in scores)] for name in names]
    pictures = [Path(run) / "panel.png" for run in runs]
    return "\n".join(
        [format_table(rows, numbers=True), *(f"picture: {picture}" for picture in pictures if picture.is_file())]
    )
