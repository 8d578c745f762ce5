"""Tables and pictures of a fine-tuning: metrics and confusion of the classes, worst, median and best cases."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ...visualize.html import figure, grid, image, legend, paragraph, table
from ...visualize.labels import COLORS
from .cases import Case, CaseRecorder, choose_cases, is_exclusive
from .curves import CLASS_METRICS

MATRIX = 30  # classes up to which a confusion is a square
CONFUSED = 20  # rows of the most frequent confusions, of more classes


def class_columns(row: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Metrics and names of the classes in a row of ``metrics.csv``, from its columns such as ``val_auc_LIVER``."""
    metrics = [m for m in CLASS_METRICS if any(name.startswith(f"val_{m}_") for name in row)]
    first = f"val_{metrics[0]}_" if metrics else None
    return metrics, [name.removeprefix(first) for name in row if first and name.startswith(first)]


def show_judged(recorder: CaseRecorder, row: Mapping[str, str], source: str = "evaluation") -> str:
    """What a fine-tuning reached; nothing where there is nothing.

    Args:
        recorder: with the cases of an epoch.
        row: metrics of the same epoch by their names.
        source: where the cases are from.
    """
    metrics, names = class_columns(row)
    if not metrics or not recorder.cases:
        return ""
    cases = recorder.cases
    known = len(cases[0].truth or cases[0].result) == len(names)
    names = names if known else [str(number) for number in range(len(cases[0].result))]
    cells = [
        [name, *(_short(row.get(f"val_{m}_{name}")) for m in metrics), *_spread(cases, i)]
        for i, name in enumerate(names)
    ]
    heads = ["class", *metrics, *(["cases", "least", "median"] if not cases[0].truth else ["labeled", "positive"])]
    told = paragraph(f"{source}, {len(cases)} cases", soft=True)
    return told + table(heads, cells) + _confusion(cases, names) + _pictures(cases, names)


def _short(value: str | None) -> str:
    return f"{float(value):.3f}" if value else "-"


def _spread(cases: Sequence[Case], number: int) -> list[str]:
    """Of a segmentation: cases that have the class, least and median Dice. Of a classification: labeled, positive."""
    if cases[0].truth:
        states = [case.truth[number] for case in cases if not math.isnan(case.truth[number])]
        return [str(len(states)), str(states.count(1.0))]
    dice = sorted(case.result[number] for case in cases if not math.isnan(case.result[number]))
    return [str(len(dice)), *(f"{dice[i]:.3f}" for i in (0, (len(dice) - 1) // 2) if dice)]


def _confusion(cases: Sequence[Case], names: Sequence[str]) -> str:
    """How often each class was taken for which; of classes that do not exclude each other, right and wrong answers."""
    if not cases[0].truth:
        return ""
    if not is_exclusive([case.truth for case in cases], [case.result for case in cases]):
        rows = [[name, *_answers(cases, i)] for i, name in enumerate(names)]
        return table(["at probability 0.5", "found", "missed", "false alarms", "rightly absent"], rows)
    pairs = Counter((_largest(case.truth), _largest(case.result)) for case in cases)
    if len(names) > MATRIX:
        wrong = [(pair, count) for pair, count in pairs.most_common() if pair[0] != pair[1]][:CONFUSED]
        return table(["truth", "predicted", "cases"], [[names[a], names[b], n] for (a, b), n in wrong])
    every = range(len(names))
    rows = [[names[a], *(pairs[a, b] for b in every)] for a in every]
    return table(["truth, predicted as:", *names], rows)


def _answers(cases: Sequence[Case], number: int) -> list[int]:
    """True positives, false negatives, false positives and true negatives of a class."""
    pairs = Counter((case.truth[number], case.result[number] >= 0.5) for case in cases)
    return [pairs[1.0, True], pairs[1.0, False], pairs[0.0, True], pairs[0.0, False]]


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _pictures(cases: Sequence[Case], names: Sequence[str]) -> str:
    """Worst, median and best case."""
    figures = []
    for place, case in choose_cases(cases):
        if case.truth:
            told = "truth: " + (", ".join(n for n, v in zip(names, case.truth, strict=True) if v == 1) or "none")
            likely = sorted(zip(case.result, names, strict=True), reverse=True)[:3]
            told += "; predicted: " + ", ".join(f"{name} {p:.2f}" for p, name in likely)
        else:
            told = ", ".join(f"{n} {v:.3f}" for n, v in zip(names, case.result, strict=True) if not math.isnan(v))
        what = "probability of the truth" if case.truth else "Dice"
        title = f"{place}: {what} {case.score:.3f}"
        figures.append(figure(title, image(case.picture or "", f"{place} case {case.name}"), f"{case.name}; {told}"))
    if not figures or cases[0].truth:
        return grid(figures)
    told = "Line: truth. Area: prediction. No image is behind labels that lie in the geometry of their file."
    return paragraph(told, soft=True) + legend(names, COLORS[1:]) + grid(figures)
