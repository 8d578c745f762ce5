"""The ranking loss of GraVIS: an image's own views are to stand before all others."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..utils.errors import InputError
from .contrastive import check_temperature

ATTENTIONS = ("smooth_ap", "uniform")
LARGEST_EXPONENT = 50.0  # beyond it a rank is settled


def smooth_ap(
    embeddings: Tensor,
    views: int,
    temperature: float = 0.2,
    attention: str = "smooth_ap",
    chunk_size: int | None = None,
) -> Tensor:
    """Loss of GraVIS (Zhou et al., 2022, https://arxiv.org/abs/2301.04410): smooth average precision of grouped views.

    With s_ik = z_i . z_k, the soft step H(x) = 1 / (1 + exp(-x / temperature)) and G(i) the views of i's image, i among
    them, the soft ranks of a view j of G(i) are

        P(i, j) = 1 + sum over k of G(i), k not j, of H(s_ik - s_ij), and
        N(i, j) = sum over k outside of G(i) of H(s_ik - s_ij);

    the loss is the mean over all i and all j of G(i) of N / (P + N), which is 1 - P / (P + N): the form of Smooth-AP
    (Brown et al., 2020, https://arxiv.org/abs/2007.12163). It lies in [0, 1) and is 0 where every view is nearer to the
    own image's views than to all others, as the temperature goes to 0. Computed in float32, of the ranks of own views
    alone: (n, views, n) differences, where the published code builds (n, n, n) with the same value.

    Args:
        embeddings: rows grouped by image, all ``views`` of the first image first, of any length, shape (n, D).
        views: views of each image, at least 2.
        temperature: softness of the ranks, greater than 0.
        attention: ``smooth_ap``: the slope of N is 1 / P, so of an anchor's views the similar ones count most, the
            paper's hardness-aware attention; ``uniform``: P is replaced by 1, and all count alike.
        chunk_size: anchors whose ranks are held in memory at a time, computed once more in the backward pass; None:
            all at once. Value and gradient are the same.
    """
    check_smooth_ap(temperature, attention, chunk_size)
    _check_groups(embeddings, views)
    rows = torch.arange(len(embeddings), device=embeddings.device)
    with torch.autocast(embeddings.device.type, enabled=False):
        settings = (embeddings.float(), views, temperature, attention)
        if chunk_size is None:
            return _misplaced(rows, *settings) / (len(rows) * views)
        parts = [
            checkpoint(_misplaced, part, *settings, use_reentrant=False, preserve_rng_state=False)
            for part in rows.split(chunk_size)
        ]
        return torch.stack(parts).sum() / (len(rows) * views)


def check_smooth_ap(temperature: float, attention: str, chunk_size: int | None) -> None:
    """Refuse options of ``smooth_ap`` that are out of range."""
    check_temperature(temperature)
    if attention not in ATTENTIONS:
        raise InputError(f"attention must be one of {', '.join(ATTENTIONS)}, got {attention!r}")
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}")


def _misplaced(anchors: Tensor, embeddings: Tensor, views: int, temperature: float, attention: str) -> Tensor:
    """Sum of N / (P + N) over the anchors with the given numbers, (m,), and over their own views."""
    scores = embeddings[anchors] @ embeddings.T  # (m, n)
    own = _own(anchors, views)
    ahead = (scores[:, None] - scores.gather(1, own)[..., None]) / temperature  # (m, views, n)
    step = ahead.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).sigmoid()
    same = torch.zeros_like(scores).scatter(1, own, 1.0)
    positive, negative = (step @ torch.stack([same, 1 - same], dim=-1)).unbind(-1)
    rank = positive + 0.5 if attention == "smooth_ap" else 1.0  # the sum holds H(0) = 1/2 for k = j, which counts 1
    return (negative / (rank + negative)).sum()


def ranking_accuracy(embeddings: Tensor, views: int) -> Tensor:
    """Share of the views whose own image's other views are all nearer than any other image's, in [0, 1].

    Nearness is the dot product; rows are grouped as for ``smooth_ap``. A tie counts as a miss, so embeddings that have
    collapsed to one point score 0. Of a single image it is 1.
    """
    _check_groups(embeddings, views)
    with torch.autocast(embeddings.device.type, enabled=False):
        scores = embeddings.float() @ embeddings.float().T
    rows = torch.arange(len(scores), device=scores.device)
    own = _own(rows, views)
    others = own[own != rows[:, None]].reshape(len(scores), views - 1)
    farthest = scores.gather(1, others).amin(1)
    nearest = scores.scatter(1, own, -torch.inf).amax(1)
    return (farthest > nearest).float().mean()


def _own(rows: Tensor, views: int) -> Tensor:
    """Numbers of all rows of the same image, (m, views), for each of the given rows, (m,)."""
    return (rows // views * views)[:, None] + torch.arange(views, device=rows.device)


def _check_groups(embeddings: Tensor, views: int) -> None:
    if views < 2 or len(embeddings) == 0 or len(embeddings) % views:
        raise ValueError(
            f"embeddings must be groups of views, at least 2 of each image, got {len(embeddings)} rows "
            f"and {views} views."
        )
