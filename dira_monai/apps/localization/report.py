"""What localization reached, as files and as a short table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils.files import write_csv, write_json
from ...utils.tables import format_table
from ...visualize.tiles import Row, draw_grid, save_picture
from .metrics import COMPONENTS, OVERLAPS, THRESHOLDS, Case, best_overlaps, choose, summarize

UNKNOWN = {  # rules that make each image its own patient
    "file": " (patients unknown: only the same images are found)",
    "dicom and file": " (of other files than DICOM patients unknown: only the same images are found)",
}


def make_report(cases: Sequence[Case], threshold: float, component: str) -> dict[str, Any]:
    """Numbers of each finding and of all together, at each threshold, and of each case; see ``summarize``.

    ``findings`` and ``sweep`` are by finding, the last is ``total``, where every box counts the same: "all", unless
    that is a finding. The cases were evaluated with the threshold and ``THRESHOLDS``.
    """
    groups = {name: [case for case in cases if case.finding == name] for name in sorted({c.finding for c in cases})}
    total = "all"
    while total in groups:
        total += " findings"
    groups[total] = list(cases)
    return {
        "threshold": threshold,
        "component": component,
        "total": total,
        "note": "The sweep is measured on the tested boxes themselves: it cannot choose a threshold for them.",
        "findings": {name: summarize(group, threshold, component) for name, group in groups.items()},
        "sweep": {
            name: [
                {"component": rule, "threshold": value, "accuracy": summarize(group, value, rule)["accuracy"]}
                for rule in COMPONENTS
                for value in THRESHOLDS
            ]
            for name, group in groups.items()
        },
        "cases": [_describe_case(case, threshold, component) for case in cases],
    }


def _describe_case(case: Case, threshold: float, component: str) -> dict[str, Any]:
    predicted = choose(case.predicted[threshold], component)
    return {
        "image": case.image,
        "finding": case.finding,
        "true_boxes": case.truth.tolist(),
        "predicted_boxes": predicted.tolist(),
        "best_iou": best_overlaps(case.truth, predicted).tolist(),
        "pointed": case.pointed,
        "constant_map": case.constant,
    }


def write_report(report: Mapping[str, Any], rows: Sequence[Row], output_dir: str | Path) -> None:
    """Write ``localization.json``, ``localization.csv`` and, where there are rows of pictures, ``localization.png``."""
    table: list[list[Any]] = [["finding", "boxes", "component", "threshold", *(f"iou_{least}" for least in OVERLAPS)]]
    for name, found in report["findings"].items():
        for row in report["sweep"][name]:
            table.append([name, found["boxes"], row["component"], row["threshold"], *row["accuracy"].values()])
        table.append([name, found["boxes"], "centered_box", "", *found["accuracy_of_centered_box"].values()])
    write_json(Path(output_dir, "localization.json"), report, indent=1)
    write_csv(Path(output_dir, "localization.csv"), table)
    if rows:
        save_picture(draw_grid(rows), Path(output_dir, "localization.png"))


def describe_report(report: Mapping[str, Any]) -> list[str]:
    """The lines of a short table, and of what a reader must know to trust it."""
    rows = [["finding", "boxes", "pointing", "random", *(f"IoU>={least}" for least in OVERLAPS)]]
    for name, found in report["findings"].items():
        accuracy, chance = (
            [f"{value:.2f}" for value in found[key].values()] for key in ("accuracy", "accuracy_of_centered_box")
        )
        pointing = [f"{found[key]:.2f}" for key in ("pointing_game", "pointing_at_random")]
        rows += [[name, str(found["boxes"]), *pointing, *accuracy], ["  centered box", "", "", "", *chance]]
    lines = format_table(rows, numbers=True).splitlines()
    total = report["findings"][report["total"]]
    lines.append(
        f"{total['images']} images; component {report['component']} of the map of {report['target_layer']} at "
        f"threshold {report['threshold']:g}; {total['constant_maps']} constant maps count as missed; the centered box "
        "has the mean size of these same boxes"
    )
    return lines + _describe_checks(report)


def _describe_checks(report: Mapping[str, Any]) -> list[str]:
    """What was compared with the training, and what could not be used."""
    lines = []
    if report["missing"]["count"]:
        lines.append(f"left out: {report['missing']['count']}, the first: {report['missing']['first']}")
    if report["leak"] is not None:
        unknown = UNKNOWN.get(report["patient_rule"], "")
        lines.append(f"training: {report['datalist']}, patients by {report['patient_rule']}{unknown}")
    if report["datalist_newer"]:
        lines.append(f"{report['datalist']} is newer than {report['weights']}: it may be the list of another training")
    if report["leak"]:
        lines.append(f"leak: {len(report['leak'])} boxed images are of patients of the training or validation")
    if report["leak"] is None:
        lines.append(f"leak not checked: {report['leak_unchecked']}")
    return lines
