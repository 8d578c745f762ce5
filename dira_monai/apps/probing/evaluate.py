"""How well the probes rank the test images, and the table of that."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...metrics import class_auc, knn_scores
from ...networks.image_features import standardize
from ...utils.tables import format_table
from .classifiers import choose_logistic, linear_scores

PROBES = ("k-NN", "linear")


def evaluate_probes(
    features: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    class_names: Sequence[str],
    neighbors: int = 20,
    temperature: float = 0.07,
) -> dict[str, Any]:
    """AUC of both probes on the test images: by class, where None is undefined, and the mean of those defined.

    Args:
        features: of the lists training, validation and test, each (N, D).
        labels: of the same, each (N, classes), see ``label_matrix``.
        class_names: of the columns.
        neighbors: see ``knn_scores``.
        temperature: see ``knn_scores``.
    """
    scaled = {key: standardize(rows, features["training"]) for key, rows in features.items()}
    fit, penalty = choose_logistic(scaled["training"], labels["training"], scaled["validation"], labels["validation"])
    votes = knn_scores(scaled["test"], scaled["training"], labels["training"], neighbors, temperature)
    found: dict[str, Any] = {}
    for name, scores in zip(PROBES, (votes, linear_scores(scaled["test"], fit)), strict=True):
        areas = class_auc(scores, labels["test"])
        defined = [area for area in areas if not math.isnan(area)]
        by_class = {c: None if math.isnan(a) else a for c, a in zip(class_names, areas, strict=True)}
        found[name] = {"auc": by_class, "mean": sum(defined) / len(defined)}
    found["linear"]["penalty"] = penalty
    return found


def evaluate_subsets(
    features: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    subsets: Sequence[Sequence[int]],
    class_names: Sequence[str],
    neighbors: int = 20,
    temperature: float = 0.07,
) -> dict[str, Any]:
    """What ``evaluate_probes`` finds, averaged over parts of the training images.

    The values ``means`` and ``penalties`` are those of each part. ``subsets`` are the rows of each.
    """
    parts = []
    for rows in map(list, subsets):
        own, known = ({**of, "training": of["training"][rows]} for of in (features, labels))
        parts.append(evaluate_probes(own, known, class_names, neighbors, temperature))
    found: dict[str, Any] = {}
    for name in PROBES:
        areas = {c: [part[name]["auc"][c] for part in parts] for c in class_names}
        means = [part[name]["mean"] for part in parts]
        found[name] = {
            "auc": {c: None if None in values else sum(values) / len(values) for c, values in areas.items()},
            "mean": sum(means) / len(means),
            "means": means,
        }
    found["linear"]["penalties"] = [part["linear"]["penalty"] for part in parts]
    return found


def describe_probe(report: Mapping[str, Any]) -> str:
    """A table of the AUC of each class and their mean: probes with the weights, and with random ones (mean ± sd)."""
    trained, *chance = report["encoders"].values()
    columns = [(name, group) for name in PROBES for group in ((trained,), tuple(chance)) if group]
    heads = [name if group[0] is trained else f"{name}, random ({len(group)})" for name, group in columns]
    rows = [["AUC", *heads]]
    for label in (*report["classes"], None):
        values = [
            [g[name]["mean"] if label is None else g[name]["auc"][label] for g in group] for name, group in columns
        ]
        rows.append(["mean" if label is None else label, *map(_span, values)])
    return format_table(rows)


def _span(values: Sequence[float | None]) -> str:
    """The mean of the values, with the standard deviation where there are several; a dash where one is undefined."""
    defined = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    if len(defined) < len(values):
        return "-"
    return f"{defined.mean():.3f}" + (f" ± {defined.std():.3f}" if len(defined) > 1 else "")
