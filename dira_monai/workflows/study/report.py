"""The report of a study: report.html, report.md, results.csv and figures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...apps.comparison.statistics import describe
from ...utils.files import write_csv, write_whole
from ...utils.tables import count_of
from ...visualize.charts import interval_chart, line_chart
from ...visualize.html import figure, grid, legend, page, paragraph, section, svg_file, table
from .grid import Cell, fractions_of
from .results import Findings, Place, collect, labels_share, mean_curve, steps_share

SURE = 0.05  # of p after correction
GAIN = 0.01  # of a score, of which the cost is told
Figures = dict[str, tuple[str, list[str], str]]  # by name: chart, texts of its lines, note


def write_report(study: Mapping[str, Any], cells: Sequence[Cell], prepared: Mapping[str, Any], folder: Path) -> None:
    """Write the report of what is finished.

    Args:
        study: complete description.
        cells: all of them.
        prepared: of ``prepare_study``.
        folder: of the study.
    """
    found = collect(study, cells, folder)
    _write_results(found, folder / "results.csv")
    figures = _figures(study, found)
    for name, (chart, texts, _) in figures.items():
        write_whole(folder / "figures" / f"{name}.svg", svg_file(chart, texts))
    lines = conclude(study, found)
    notes = _notes(study, found, prepared, len([cell for cell in cells if cell.key]))
    tables = {"Scores of the test": _score_rows(found), "Differences": _difference_rows(found)}
    tables |= {"Classes": _class_rows(found)}
    title = f"Study {folder.name}"
    charts = grid([figure(name, chart + legend(texts), note) for name, (chart, texts, note) in figures.items()])
    parts = [*map(paragraph, lines), *(section(name, table(*rows)) for name, rows in tables.items())]
    parts += [section("Figures", charts), section("How it was done", *(paragraph(note, soft=True) for note in notes))]
    pieces = [f"# {title}", *lines]
    pieces += [f"## {name}\n\n{_markdown(*rows)}" for name, rows in tables.items() if rows[1]]
    pieces += [f"![{name}](figures/{name}.svg)\n\n{note}" for name, (_, _, note) in figures.items()]
    pieces += ["## How it was done", *notes]
    write_whole(folder / "report.html", page(title, parts))
    write_whole(folder / "report.md", "\n\n".join(pieces) + "\n")


def conclude(study: Mapping[str, Any], found: Findings) -> list[str]:
    """Three sentences: which initialization to take for these data, how sure that is, and what it costs."""
    names = [name for name in study["initializations"] if name != found.baseline]
    means = {n: float(np.mean(d)) for n in names if (d := [e.value for p, e in found.differences.items() if p[1] == n])}
    if not means:
        return ["Nothing can be compared yet: no pre-training has all of its runs, and the runs it is compared with."]
    best = max(means, key=means.__getitem__)
    places = [place for place in found.differences if place[1] == best]
    above = [p for p in places if found.differences[p].low > 0 and found.corrected[p] < SURE]
    below = [p for p in places if found.differences[p].high < 0 and found.corrected[p] < SURE]
    mean = f"{means[best]:+.3f} in the mean of {len(places)} comparisons with {found.baseline}"
    if means[best] <= 0:
        first = f"Start from {found.baseline}: of {len(means)} others the best is {best}, {mean}."
    elif above:
        first = f"Take {best}: its scores differ by {mean}."
    else:
        first = f"{best} may help, {mean}, but none of these is sure."
    shown = max(places, key=lambda place: abs(found.differences[place].value))
    second = (
        f"How sure: after Holm's correction over {len(found.differences)} comparisons it is above in {len(above)} and "
        f"below in {len(below)} of {len(places)}; its largest difference is {describe(found.differences[shown])} "
        f"(95 %, p {found.corrected[shown]:.2g}) in {shown[0]} with {shown[2]:.3g} of the labels, with "
        f"{_counts(study, found, shown)}."
    )
    return [first, second, _cost(found, best, places, means[best])]


def _counts(study: Mapping[str, Any], found: Findings, place: Place) -> str:
    runs = found.groups[place].runs
    patients = runs[0][0].cases.patients.max() + 1
    counts = ((patients, "test patient"), (len(runs), "subset"), (study["seeds"], "seed"))
    return ", ".join(count_of(number, word) for number, word in counts)


def _cost(found: Findings, best: str, places: Sequence[Place], gain: float) -> str:
    pretraining = max(found.pretraining[place] for place in places)
    tuning = float(np.mean([run.seconds for place in places for run in found.groups[place].every]))
    steps = [steps_share(found.groups[p], found.groups[p[0], found.baseline, p[2]]) for p in places]
    reached = [share for share in steps if math.isfinite(share)]
    told = f"Cost: {_time(pretraining)} of pre-training" if pretraining else f"Cost: {best} took no pre-training here"
    if pretraining and gain > 0:
        told += f" ({_time(pretraining * GAIN / gain)} for each {GAIN} gained)"
    told += f", {_time(tuning)} for each fine-tuning"
    if reached:
        told += f"; it comes to the best validation of {found.baseline} after {np.mean(reached):.0%} of its steps"
        told += f" in {len(reached)} of {len(steps)} comparisons"
    shares = {task: labels_share(found, task, best) for task in dict.fromkeys(place[0] for place in places)}
    saved = [f"{1 - share:.0%} of the labels ({task})" for task, share in shares.items() if share < 1]
    return told + (f", and saves {', '.join(saved)}." if saved else ".")


def _time(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _write_results(found: Findings, path: Path) -> None:
    """A row for each fine-tuning."""
    names = list(dict.fromkeys(name for result in found.results for name in result.scores))
    heads = ["task", "initialization", "label_fraction", "subset", "seed", "tuning", "images", "seconds", *names]
    rows = [[*r.cell.key, r.images, r.seconds, *map(r.scores.get, names)] for r in found.results if r.cell.key]
    write_csv(path, [heads, *rows])


Rows = tuple[list[str], list[list[str]]]


def _score_rows(found: Findings) -> Rows:
    heads = ["task", "initialization", "labels", "images", "score", "95 %", "standard error", "tuning"]
    rows = []
    for (task, name, fraction), group in found.groups.items():
        metric, e = group.every[0].cases.metric.removeprefix("val_mean_"), group.score
        shown = [f"{metric} {e.value:.3f}", f"{e.low:.3f} to {e.high:.3f}", f"{e.error:.3f}", str(group.tuning)]
        rows.append([task, name, f"{fraction:g}", f"{group.images:.0f}", *shown])
    return heads, rows


def _difference_rows(found: Findings) -> Rows:
    heads = ["task", "initialization", "labels", f"beside {found.baseline}", "p", "p, Holm", "steps", f"s for {GAIN}"]
    rows = []
    for place, difference in found.differences.items():
        steps = steps_share(found.groups[place], found.groups[place[0], found.baseline, place[2]])
        cost = found.pretraining[place] * GAIN / difference.value if difference.value > 0 else math.nan
        ps = [f"{difference.p:.2g}", f"{found.corrected[place]:.2g}"]
        more = [f"{steps:.0%}" if math.isfinite(steps) else "-", f"{cost:.0f}" if cost > 0 else "-"]
        rows.append([*place[:2], f"{place[2]:g}", describe(difference), *ps, *more])
    return heads, rows


def _class_rows(found: Findings) -> Rows:
    """Mean Dice or AUC of each class, of tasks with several."""
    rows = []
    for (task, name, fraction), group in found.groups.items():
        prefix = group.every[0].cases.metric.replace("mean_", "") + "_"
        classes = [n for n in group.every[0].scores if n.startswith(prefix)]
        for label in classes if len(classes) > 1 else ():
            values = [run.scores[label] for run in group.every]
            spread = f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "-"
            rows.append([task, name, f"{fraction:g}", label.removeprefix(prefix), f"{np.mean(values):.3f}", spread])
    return ["task", "initialization", "labels", "class", "mean of the runs", "standard deviation"], rows


def _figures(study: Mapping[str, Any], found: Findings) -> Figures:
    """Scores by labels and by steps, and differences."""
    figures: Figures = {}
    names = list(study["initializations"])
    if found.differences:
        rows = [
            (f"{p[0]}, {p[1]}, {p[2]:g}", names.index(p[1]), d.value, d.low, d.high)
            for p, d in found.differences.items()
        ]
        note = f"difference to {found.baseline} by task, initialization and part of the labels, 95 %"
        figures["differences"] = interval_chart("differences", rows), [], note
    for task in study["tasks"]:
        groups = {n: [g for (t, s, _), g in found.groups.items() if (t, s) == (task, n)] for n in names}
        ticks = sorted({group.images for each in groups.values() for group in each})
        if len(ticks) > 1:
            lines = {n: sorted((g.images, g.score.value) for g in each) for n, each in groups.items()}
            bands = {n: sorted((g.images, g.score.low, g.score.high) for g in each) for n, each in groups.items()}
            chart = line_chart(f"{task} by labels", lines, [], bands=bands, ticks=ticks, unit="images")
            figures[f"{task}_by_labels"] = chart, names, "score of the test over labeled images, 95 %"
        for fraction in fractions_of(study, task):
            curves = {n: mean_curve(g) for n in names if (g := found.groups.get((task, n, fraction)))}
            drawn = {n: list(zip(map(float, steps), mean, strict=True)) for n, (steps, mean, _) in curves.items()}
            spans = {n: [*zip(map(float, s), m - sd, m + sd, strict=True)] for n, (s, m, sd) in curves.items()}
            positions = [step for points in drawn.values() for step, _ in points]
            if positions:
                chart = line_chart(f"{task} by steps", drawn, positions, bands=spans, unit="step")
                note = f"validation over steps with {fraction:g} of the labels, mean and standard deviation of the runs"
                figures[f"{task}_by_steps_{fraction:g}"] = chart, [*drawn], note
    return figures


def _notes(study: Mapping[str, Any], found: Findings, prepared: Mapping[str, Any], cells: int) -> list[str]:
    """How the study was made, and what it cannot tell."""
    notes = [
        f"{len(found.results)} of {cells} fine-tunings are finished. Every initialization had the same tuning: "
        f"{len(study['tuning'])} candidate(s), of which the best in validation counts for each number of labels.",
        "Subsets of labels are drawn by patient, the smaller ones within the larger; the test images are always the "
        "same. Intervals and p are those of a paired bootstrap over test patients, subsets and seeds.",
    ]
    for task, entry in prepared["tasks"].items():
        counts = ", ".join(f"{entry['images'][n]} of {entry['patients'][n]} patients for {n}" for n in entry["images"])
        notes.append(f"{task}: {counts}.")
    if study["seeds"] == 1:
        notes.append("One seed: chance in training is not counted, so intervals are too narrow.")
    if prepared.get("unchecked"):
        names = ", ".join(prepared["unchecked"])
        notes.append(
            f"It is not known whether {names} was trained on test images: there is no list beside the weights."
        )
    return notes


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
