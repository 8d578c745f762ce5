"""Metrics of a pre-training: retrieval of views, restoration, collapse of the embeddings."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .utils.distributed import gather

COLLAPSED = 0.99  # of ``rank_collapse``: an effective rank below 1.15 for 16 embeddings, below 2.3 for 128 or more


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
    not centered as in MONAI's score, which calls embeddings that differ by nothing but noise healthy.
    """
    size = min(query.shape)
    if size < 2:
        return float("nan")
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
