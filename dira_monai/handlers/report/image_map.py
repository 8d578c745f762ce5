"""The part of the page about a pre-trained encoder: maps of images, and what their neighbors tell."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import Evaluator
from torch import Tensor

from ...data.datasets import PretrainDataset
from ...engines.trainer import DiRATrainer
from ...networks.encoder_decoder import encoder_state
from ...networks.image_features import standardize
from ...visualize.charts import scatter
from ...visualize.html import figure, grid, legend, paragraph, table
from . import embedding
from .columns import find_columns, order_values

TRAINED, GIVEN, RANDOM = "this run", "given weights", "random weights"
Coordinates = Callable[[Tensor], tuple[Tensor, str]]


class EmbeddingMap:
    """Draws where the encoder puts images, at the end of a pre-training and as it was before."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config = config or {}  # of the run; with its ``pretrained``, it began with other than random weights
        self.begun: dict[str, Tensor] = {}  # weights of the encoder before a pre-training, a copy on the CPU
        self.started = 0.0  # when they were copied, seconds

    def keep_beginning(self, engine: object) -> None:
        """Copy the weights with which a pre-training begins, once, before others are loaded."""
        if isinstance(engine, DiRATrainer) and not self.begun:
            state = encoder_state(engine.network)
            self.begun = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
            self.started = time.perf_counter()

    def show(self, engine: object, evaluator: Evaluator | None) -> str:
        """Maps and the table of neighbors; nothing of a training that is no pre-training of images.

        Args:
            engine: the trainer.
            evaluator: its validation.
        """
        parts = [getattr(part, "data_loader", None) for part in (evaluator, engine)]
        datasets = [d for d in (getattr(part, "dataset", None) for part in parts) if isinstance(d, PretrainDataset)]
        if not isinstance(engine, DiRATrainer) or len(datasets) < 2:
            return ""
        validation, training = datasets
        chosen = embedding.choose_images(validation, training)
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
        chosen = [chosen[place] for place in order.tolist()]  # the part that there is time for is one of all patients
        networks = {TRAINED: embedding.frozen_copy(engine.network)}
        networks[RANDOM] = embedding.frozen_copy(engine.network, self.begun)
        if self.config.get("pretrained") not in (None, "$None"):
            networks[GIVEN] = networks.pop(RANDOM)
            networks[RANDOM] = embedding.new_network(self.config).to(engine.state.device)
        seconds = max(embedding.SECONDS, embedding.SHARE * (time.perf_counter() - self.started))
        features, entries = embedding.encode_images(engine, networks, chosen, seconds)
        told = f"Features of the deepest map of {len(entries)} of {len(chosen)} images at the end of the run"
        return show_features(features, entries, told)


def show_features(features: Mapping[str, Tensor], entries: Sequence[Mapping[str, Any]], told: str) -> str:
    """Maps of features, a color for each value of a column, and how well neighbors tell the columns.

    Args:
        features: by the encoder's name, (N, D) each, the trained one first.
        entries: of the datalist.
        told: where they come from.
    """
    if len(entries) < 3:
        return ""
    columns = find_columns(entries)
    about = told + ("." if columns else "; the list has no column of a few values to color them by.")
    maps = _coordinates(features)
    groups = columns or {"": ["image"] * len(entries)}
    grids = [grid([_map(name, values, *one) for one in maps.items()]) for name, values in groups.items()]
    patients = [str(entry.get("patient", number)) for number, entry in enumerate(entries)]
    rows = [row for name, values in columns.items() if (row := _neighbors(name, values, features, patients))]
    heads = ["column", "images", "most frequent", *(f"{m}, {n}" for m in ("accuracy", "AUC") for n in features)]
    nearest = (
        ""
        if not rows
        else paragraph(
            "Nearest neighbors (k-NN) of other patients tell the columns: accuracy, and mean AUC of their values. "
            "Columns that only the files have, such as spacing, should not be told well.",
            soft=True,
        )
    )
    return paragraph(about, soft=True) + nearest + table(heads, rows) + "\n".join(grids)


def _coordinates(features: Mapping[str, Tensor]) -> dict[str, list[tuple[float, float]]]:
    """Points of each map by its title: PCA of all encoders, UMAP of the first where it is installed."""
    maps = {}
    scaled = {name: standardize(rows, rows) for name, rows in features.items()}
    for name, rows in scaled.items():
        points, share = embedding.principal_components(rows)
        maps[f"{name}, PCA ({share:.0%} of the variance)"] = points.tolist()
    reduce = embedding.umap()
    if reduce is not None and len(rows) > 15:  # of its neighbors
        first = next(iter(scaled))
        maps[f"{first}, UMAP"] = reduce(scaled[first]).tolist()
    return maps


def _map(column: str, values: Sequence[str | None], title: str, points: Sequence[tuple[float, float]]) -> str:
    """A figure of points in the colors of their values; those without a value come last."""
    names = [*order_values(values), *([None] if None in values else [])]
    groups = {str(n or "not known"): [p for p, v in zip(points, values, strict=True) if v == n] for n in names}
    shown = legend([f"{name} ({len(members)})" for name, members in groups.items()]) if column else ""
    return figure(column or "images", scatter(f"{column} {title}", groups) + shown, title)


def _neighbors(
    name: str, values: Sequence[str | None], features: Mapping[str, Tensor], patients: Sequence[str]
) -> list[str] | None:
    """A row of the table; none for patients, which are not their own neighbors."""
    known = [i for i, value in enumerate(values) if value is not None]
    words = order_values(values)
    labels = [words.index(str(values[i])) for i in known]
    groups = [patients[i] for i in known]
    found = [embedding.neighbor_accuracy(rows[known], labels, groups) for rows in features.values()]
    if name == "patient" or None in found:
        return None
    most = Counter(labels).most_common(1)[0][1] / len(labels)
    pairs = [pair for pair in found if pair is not None]
    return [name, str(len(known)), f"{most:.3f}", *(f"{pair[i]:.3f}" for i in (0, 1) for pair in pairs)]
