"""Metrics of the validation of a pre-training run: are images told apart, are they restored?"""

from collections.abc import Callable, Sequence
from typing import Any

from ignite.engine import Engine
from ignite.metrics import EpochMetric, Loss, MeanSquaredError, Metric, MetricsLambda
from ignite.metrics import MeanAbsoluteError as FlatAbsoluteError
from monai.handlers import IgniteMetricHandler, MeanAbsoluteError, from_engine
from monai.metrics import SSIMMetric

from ..engines.stages import STAGES
from ..metrics import psnr, rank_collapse, retrieval_accuracy, retrieval_info_nce
from ..utils.errors import InputError

ERRORS = {"squared": MeanSquaredError, "absolute": FlatAbsoluteError}
CONTRASTIVE = ("retrieval", "objective")


def pretrain_metrics(
    spatial_dims: int,
    contrastive_weight: float,
    restoration_weight: float,
    *,
    embeddings: Sequence[str] | None = ("query", "key"),
    contrastive: str = "retrieval",
    restoration_error: str = "squared",
) -> dict[str, dict[str, Metric]]:
    """Metrics of ``DiRAEvaluator`` by name: ``key_metric`` (``val_loss``, lower is better) and ``additional_metrics``.

    Args:
        spatial_dims: number of axes of the images.
        contrastive_weight: weight of ``val_contrastive`` in ``val_loss``.
        restoration_weight: weight of the restoration error in ``val_loss``; in the stage di, whose decoder has not been
            trained, it is 0.
        embeddings: the two entries of the evaluator's output that are compared; None: the objective has none, and
            unless ``contrastive`` is "objective", ``val_loss`` is the weighted restoration error alone.
        contrastive: ``val_contrastive`` and its accuracy are those of a "retrieval" of each image among all of the
            validation set, or the means of the "objective"'s own.
        restoration_error: error in ``val_loss``, "squared" or "absolute".

    Raises:
        InputError: if ``contrastive`` or ``restoration_error`` is invalid.
    """
    if contrastive not in CONTRASTIVE:
        raise InputError(f"contrastive must be one of {', '.join(CONTRASTIVE)}, got {contrastive!r}")
    if restoration_error not in ERRORS:
        raise InputError(f"restoration_error must be one of {', '.join(ERRORS)}, got {restoration_error!r}")
    squared_error = MeanSquaredError(output_transform=_flat("pred"))
    loss = _RestorationWeight(restoration_weight) * ERRORS[restoration_error](output_transform=_flat("pred"))
    told: dict[str, Metric] = {}
    if embeddings is not None or contrastive == "objective":
        told = _objective_metrics(embeddings, contrastive)
        loss = contrastive_weight * told["val_contrastive"] + loss
    distorted_error = MeanSquaredError(output_transform=_flat("image"))
    pair = from_engine(["pred", "label"])
    ssim = SSIMMetric(spatial_dims, win_size=7, kernel_sigma=1.0)
    restored = {
        "val_mse": squared_error,
        "val_psnr": MetricsLambda(psnr, squared_error),
        "val_distorted_psnr": MetricsLambda(psnr, distorted_error),
        "val_ssim": IgniteMetricHandler(metric_fn=ssim, output_transform=pair),
        "val_mae": MeanAbsoluteError(output_transform=pair),
    }
    return {"key_metric": {"val_loss": loss}, "additional_metrics": told | restored}


class _RestorationWeight(Metric):
    """The weight of the restoration in the stage that ``engine.state.stage`` names, if there is one."""

    def __init__(self, weight: float) -> None:
        self.weight = self.current = weight
        super().__init__()

    def started(self, engine: Engine) -> None:
        """Choose it for this validation."""
        self.current = 0.0 if getattr(engine.state, "stage", None) == STAGES[0] else self.weight

    def reset(self) -> None:
        """Nothing is summed."""

    def update(self, output: Any) -> None:
        """Nothing is summed."""

    def iteration_completed(self, engine: Engine) -> None:
        """Nothing is read."""

    def compute(self) -> float:
        """The weight."""
        return self.current


def _objective_metrics(embeddings: Sequence[str] | None, contrastive: str) -> dict[str, Metric]:
    """How well the objective is reached, and how collapsed its embeddings are, where it has any."""
    if contrastive == "objective":
        told = {f"val_{name}": _mean_of(name) for name in ("contrastive", "contrastive_accuracy")}
    else:
        functions: dict[str, Callable] = {"": retrieval_info_nce, "_accuracy": retrieval_accuracy}
        functions["_chance"] = lambda query, key: 1 / len(query)  # of a guess
        told = {f"val_contrastive{name}": _of_the_set(f, embeddings or ()) for name, f in functions.items()}
    return told | ({"val_collapse": _of_the_set(rank_collapse, embeddings)} if embeddings is not None else {})


def _of_the_set(function: Callable, embeddings: Sequence[str]) -> Metric:
    """A number of the embeddings of the whole validation set."""
    return EpochMetric(function, output_transform=from_engine(list(embeddings)), check_compute_fn=False)


def _mean_of(name: str) -> Metric:
    """Mean over all images of an entry of the evaluator's output that is a mean over its batch."""
    return Loss(lambda value, images: value, output_transform=lambda output: (output[name], output["label"]))


def _flat(name: str) -> Callable[[dict[str, Any]], tuple]:
    """An entry of the evaluator's output beside its target, as rows of numbers."""
    return lambda output: (output[name].flatten(), output["label"].flatten())
