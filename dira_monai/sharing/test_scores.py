"""Scores of the test images in the metadata and the model card of a run's bundle: those of its weights, or none."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.files import sha256, write_whole
from .archive import METADATA

NAME = "test_metrics"
CARD = "docs/README.md"
PERFORMANCE = "## Performance\n\n"
TABLE = re.compile(r"\| metric of the test images .*?\n\n", re.DOTALL)


def make_scores(
    metrics: Mapping[str, float], images: int, patients: int | None, weights: Path, surface_tolerance: float | None
) -> dict[str, Any]:
    """The entry ``test_metrics`` of ``metadata.json``.

    Args:
        metrics: finite, by the names that the evaluation gives them, such as ``val_mean_dice``.
        images: number of test images.
        patients: number of their patients; None: not known.
        weights: file that was measured.
        surface_tolerance: mm, of the surface Dice; None: there is none.
    """
    known = {"images": images, "patients": patients, "surface_tolerance": surface_tolerance}
    return {
        "weights_sha256": sha256(weights),
        **{name: value for name, value in known.items() if value is not None},
        "metrics": {f"test_{name.removeprefix('val_')}": value for name, value in metrics.items()},
    }


def kept_scores(bundle: Path, weights: Path) -> dict[str, Any] | None:
    """The scores in the metadata of a bundle, if they are of these weights."""
    path = bundle / METADATA
    scores = json.loads(path.read_text("utf-8")).get(NAME) if path.is_file() else None
    return scores if scores and scores["weights_sha256"] == sha256(weights) else None


def write_scores(bundle: Path, scores: Mapping[str, Any]) -> None:
    """Put scores into metadata and model card, in the place of earlier ones."""
    metadata = json.loads((bundle / METADATA).read_text("utf-8")) | {NAME: scores}
    card = show_scores((bundle / CARD).read_text("utf-8"), scores)
    write_whole(bundle / METADATA, json.dumps(metadata, indent=4) + "\n")
    write_whole(bundle / CARD, card)


def show_scores(card: str, scores: Mapping[str, Any]) -> str:
    """The model card with a table of scores at the beginning of its section Performance."""
    count = f"{scores['images']} of {scores.get('patients', 'an unknown number of')} patients"
    count += f"; surfaces within {scores['surface_tolerance']:g} mm" if "surface_tolerance" in scores else ""
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in scores["metrics"].items())
    table = f"| metric of the test images ({count}) | value |\n|---|---|\n{rows}\n"
    return TABLE.sub("", card).replace(PERFORMANCE, PERFORMANCE + table, 1)
