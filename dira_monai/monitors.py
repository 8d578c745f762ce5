"""Figures of health: does the network tell images apart, does it restore them, are its embeddings collapsed?"""

import math

import torch
import torch.nn.functional as F
from monai.metrics import compute_embedding_collapse
from torch import Tensor


def set_contrastive(query: Tensor, key: Tensor, temperature: float = 0.2) -> float:
    """InfoNCE over a whole validation set: each query's own key against the keys of all other samples.

    Unlike the training loss it does not depend on the queue, so epochs can be compared. Chance is log(N).

    Args:
        query: embeddings of unit length, shape (N, D).
        key: of the same samples, shape (N, D).
        temperature: divisor of the cosine similarities.
    """
    logits = query.float() @ key.float().T / temperature
    return float(F.cross_entropy(logits, torch.arange(len(query), device=query.device)))


def set_accuracy(query: Tensor, key: Tensor) -> float:
    """Share of queries that are nearest to their own key among all of the set; chance is 1 / N."""
    nearest = (query.float() @ key.float().T).argmax(dim=1)
    return float((nearest == torch.arange(len(query), device=query.device)).float().mean())


def collapse(query: Tensor, key: Tensor | None = None) -> float:
    """How collapsed embeddings are, 0 (all directions used) to 1 (one): MONAI's score of the effective rank."""
    if len(query) < 2:
        return float("nan")
    scores = compute_embedding_collapse(query.float(), include_indicators=["effective_rank"], reduction="none")
    return float(scores["effective_rank_score"])


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio of images in [0, 1], in dB.

    Taken of the mean squared error of a whole set, so that one perfect sample does not make it infinite.
    """
    return -10 * math.log10(max(float(mean_squared_error), 1e-12))
