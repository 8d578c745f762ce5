"""The command ``scores``: metrics of several fine-tuning runs side by side, and how sure their differences are."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..apps.comparison.cases import read_cases, read_scores
from ..apps.comparison.statistics import Grid, describe, estimate, holm
from ..utils.errors import InputError
from ..utils.tables import format_table


def scores(*runs: str) -> Iterator[str]:
    """Print the test metrics of fine-tuning runs side by side, how sure differences are, and where pictures are.

    Differences to the first column are those of the key metric, with the 95 % interval and p of a paired bootstrap over
    patients and seeds; p is corrected for the number of differences (Holm).

    Args:
        runs: output folders of runs that were evaluated; several joined by commas, such as those of other seeds, are
            one column, of which the means are shown.
    """
    yield compare_scores([[run] if Path(run).is_dir() else run.split(",") for run in runs])  # runs,2024 is a folder


def compare_scores(columns: Sequence[Sequence[str | Path]]) -> str:
    """A table of the mean metrics of some runs, a column for each list of them, and what their differences tell.

    Args:
        columns: output folders; the runs of one column are paired with those of another by their places.

    Raises:
        InputError: if there is no run, one was not evaluated, or its test cases cannot be read.
    """
    if not columns:
        raise InputError("scores needs at least one output folder of a fine-tuning run")
    scores = [[read_scores(run) for run in runs] for runs in columns]
    names = list(dict.fromkeys(name for column in scores for score in column for name in score))
    rows = [["", *map(_head, columns)]]
    rows += [[name, *(_mean([score.get(name) for score in column]) for column in scores)] for name in names]
    pictures = [Path(run) / "panel.png" for runs in columns for run in runs]
    return "\n".join(
        [
            format_table(rows, numbers=True),
            *(_differences(columns) if len(columns) > 1 else []),
            *(f"picture: {picture}" for picture in pictures if picture.is_file()),
        ]
    )


def _head(runs: Sequence[str | Path]) -> str:
    return f"{runs[0]} and {len(runs) - 1} more" if len(runs) > 1 else str(runs[0])


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.4f}" if len(known) == len(values) else "-"


def _differences(columns: Sequence[Sequence[str | Path]]) -> list[str]:
    """A line for each column but the first: how far it lies above that."""
    first, *others = [[[read_cases(run) for run in runs]] for runs in columns]
    found = [estimate(other, first) for other in others]
    case = first[0][0]
    what = f"{case.metric}, {len(case.images)} test images of {case.patients.max() + 1} patients, {_seeds(first)}"
    lines = [f"{what}; 95 % intervals and p of a paired bootstrap, Holm over {len(found)}:"]
    for runs, difference, p in zip(columns[1:], found, holm([f.p for f in found]), strict=True):
        lines.append(f"{_head(runs)} - {_head(columns[0])}: {describe(difference)}, p {p:.2g}")
    return lines


def _seeds(runs: Grid) -> str:
    count = len(runs[0])
    return f"{count} runs each" if count > 1 else "one run each, so that chance in training is not counted"
