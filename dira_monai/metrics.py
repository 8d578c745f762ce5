"""Metrics of a pre-training: retrieval of views, restoration, collapse of the embeddings, what neighbors tell."""

import math

import torch
import torch.nn.functional as F
from monai.metrics import compute_roc_auc
from torch import Tensor

from .utils.distributed import gather
from .utils.errors import InputError

COLLAPSED = 0.99  # of ``rank_collapse``: an effective rank below 1.15 for 16 embeddings, below 2.3 for 128 or more
ROWS = 256  # images whose similarities to others are held at once


def retrieval_info_nce(query: Tensor, key: Tensor, temperature: float = 0.2) -> float:
    """InfoNCE over a whole validation set: each query's own key against the keys of all other samples.

    Unlike the training loss it does not depend on the queue, so epochs can be compared. Chance is log(N). Embeddings
    ``query`` and ``key`` of the same samples have unit length, shape (N, D).
    """
    logits = query.float() @ key.float().T / temperature
    return float(F.cross_entropy(logits, torch.arange(len(query), device=query.device)))


def retrieval_accuracy(query: Tensor, key: Tensor) -> float:
    """Share of queries that are nearest to their own key among all of the set; chance is 1 / N."""
    nearest = (query.float() @ key.float().T).argmax(dim=1)
    return float((nearest == torch.arange(len(query), device=query.device)).float().mean())


def rank_collapse(query: Tensor, key: Tensor | None = None) -> float:
    """How collapsed embeddings are, 0 (all directions used alike) to 1 (one direction).

    From the effective rank (Roy and Vetterli, 2007), the exponential of the entropy of the singular values. They are
    not centered as in MONAI's score, which calls embeddings that differ by nothing but noise healthy. NaN of fewer than
    two embeddings.

    Raises:
        InputError: if they are not finite.
    """
    size = min(query.shape)
    if size < 2:
        return float("nan")
    if not query.isfinite().all():
        raise InputError(
            "the embeddings are not finite, so the network has diverged; lower learning_rate or raise batch_size."
        )
    singular = torch.linalg.svdvals(query.float())
    rank = torch.special.entr(singular / singular.sum()).sum().exp()
    return float(1 - (rank - 1) / (size - 1))


def describe_collapse(embeddings: str, share: float) -> str | None:
    """The sentence that ``embeddings`` have collapsed; None where their ``rank_collapse`` is low or NaN."""
    if share > COLLAPSED:
        return (
            f"{embeddings} have collapsed to one direction (collapse {share:.3f} of 1); try pooled_norm True or a "
            "lower learning_rate"
        )
    return None


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio, in dB, of images in [0, 1] from the mean squared error of a whole set.

    So one perfect sample does not make it infinite.
    """
    return -10 * math.log10(max(float(mean_squared_error), 1e-12))


def embedding_std(embeddings: Tensor) -> Tensor:
    """How far embeddings, (B, D), are spread: mean standard deviation of unit embeddings' components times sqrt(D).

    Of the batch of all processes. 1 where they are spread evenly over all directions, 0 where all are equal (Chen and
    He, 2021, https://arxiv.org/abs/2011.10566, section 4.1).
    """
    unit = F.normalize(gather(embeddings.detach().float()), dim=1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(unit.shape[1])


def knn_scores(
    features: Tensor, known: Tensor, labels: Tensor, neighbors: int = 20, temperature: float = 0.07
) -> Tensor:
    """Share of the nearest labeled images that have each class, weighted by exp(cosine / temperature).

    The weighted vote of Wu et al. (2018, https://arxiv.org/abs/1805.01978, section 3.4), for classes that need not
    exclude each other: each class asks the nearest images of which its label is known, and the vote is divided by the
    weights, so that images can be ranked by it.

    Args:
        features: of the images to rank, shape (N, D).
        known: of the labeled images, shape (M, D).
        labels: of these, 0, 1 or NaN where not known, shape (M, classes); each class is known of some image.
        neighbors: number of the nearest images; all, where there are fewer.
        temperature: greater than 0.

    Returns:
        Scores in [0, 1], float64, shape (N, classes).

    Raises:
        ValueError: if ``neighbors`` or ``temperature`` is not positive.
    """
    if neighbors < 1 or temperature <= 0:
        raise ValueError(f"neighbors and temperature must be positive, got {neighbors} and {temperature}.")
    known = F.normalize(known.double(), dim=1)
    scores = []
    for rows in F.normalize(features.double(), dim=1).split(ROWS):
        cosine = rows @ known.T
        columns = []
        for label in labels.double().T:
            has = ~label.isnan()
            nearest = cosine[:, has].topk(min(neighbors, int(has.sum())), dim=1)
            weight = (nearest.values / temperature).softmax(dim=1)
            columns.append((weight * label[has][nearest.indices]).sum(1))
        scores.append(torch.stack(columns, dim=1))
    return torch.cat(scores)


def class_auc(scores: Tensor, labels: Tensor) -> list[float]:
    """Area under the ROC curve of each class over the images whose label is known; NaN where these are all alike."""
    areas = []
    for score, label in zip(scores.T, labels.T, strict=True):
        has = ~label.isnan()
        both = label[has].unique().numel() == 2
        areas.append(float(compute_roc_auc(score[has], label[has])) if both else float("nan"))
    return areas
