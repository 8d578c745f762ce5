"""Losses of two views' embeddings: pure functions that compute in float32 whatever they get, also under autocast.

``z1`` and ``z2`` are embeddings of the first and the second view, any length, shape (B, D). ``query`` and ``key`` are
those of unit length, the key by the momentum encoder, and ``queue`` holds keys of earlier batches, shape (K, D). A
``temperature``, the divisor of the cosine similarities, that is not positive raises an ``InputError``. In an accuracy a
tie counts as a miss, so embeddings that have collapsed to one point score 0 and not 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.errors import InputError


def check_temperature(temperature: float) -> None:
    """Refuse what is not positive."""
    if temperature <= 0:
        raise InputError(f"temperature must be positive, got {temperature}")


def negative_cosine(prediction: Tensor, embedding: Tensor) -> Tensor:
    """Minus the mean cosine of one view's prediction and the other's embedding, both (B, D), in [-1, 1].

    Equation 1 of SimSiam (Chen and He, 2021, https://arxiv.org/abs/2011.10566). The gradient flows into ``prediction``
    only.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        return -F.cosine_similarity(prediction.float(), embedding.detach().float(), dim=1).mean()


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> Tensor:
    """Contrastive loss of SimCLR (Chen et al., 2020, https://arxiv.org/abs/2002.05709, eq. 1), mean over all 2 B views.

    Each view is to find the other one of its image among all 2 B - 1 other views. MONAI's ``ContrastiveLoss`` is not
    used: it sums exponentials by hand and gives NaN at temperatures of 0.01.
    """
    check_temperature(temperature)
    logits = _view_cosines(z1, z2) / temperature
    return F.cross_entropy(logits, _partners(len(z1), logits.device))


def nt_xent_accuracy(z1: Tensor, z2: Tensor) -> Tensor:
    """Share of the 2 B views that are nearest to the other view of their image, in [0, 1]; chance is 1 / (2 B - 1)."""
    cosines = _view_cosines(z1, z2)
    partner = _partners(len(z1), cosines.device)[:, None]
    positive = cosines.gather(1, partner)
    return (positive > cosines.scatter(1, partner, -torch.inf)).all(dim=1).float().mean()


def _view_cosines(z1: Tensor, z2: Tensor) -> Tensor:
    """Cosines of all views with each other, float32, shape (2 B, 2 B), minus infinity of a view with itself."""
    with torch.autocast(z1.device.type, enabled=False):
        unit = F.normalize(torch.cat([z1, z2]).float(), dim=1)
        cosines = unit @ unit.T
    return cosines.masked_fill(torch.eye(len(unit), dtype=torch.bool, device=unit.device), -torch.inf)


def _partners(count: int, device: torch.device) -> Tensor:
    """Row of the other view of each image, shape (2 B,)."""
    return torch.arange(2 * count, device=device).roll(count)


def _similarities(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """Dot products of every query with its key (column 0) and with the queue, float32, shape (B, 1 + K)."""
    with torch.autocast(query.device.type, enabled=False):  # autocast would take the product back to half precision
        query, key, queue = query.float(), key.detach().float(), queue.detach().float()
        positive = (query * key).sum(dim=1, keepdim=True)  # (B, 1)
        return torch.cat([positive, query @ queue.T], dim=1)


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """Contrastive loss of MoCo (He et al., 2020, https://arxiv.org/abs/1911.05722, eq. 1), mean over the batch.

    The gradient flows into ``query`` only.
    """
    check_temperature(temperature)
    logits = _similarities(query, key, queue) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(query), dtype=torch.long))  # the positive is column 0


def contrastive_accuracy(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """Share of the queries that are more similar to their own key than to every key of the queue, in [0, 1]."""
    positive, negative = _similarities(query, key, queue).tensor_split([1], dim=1)
    return (positive > negative).all(dim=1).float().mean()
