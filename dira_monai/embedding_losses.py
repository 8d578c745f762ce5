"""Losses of two views' embeddings: pure functions that compute in float32 whatever they get, also under autocast."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_correlation(z1: Tensor, z2: Tensor) -> Tensor:
    """Correlation C of every component of the first view with every component of the second, in [-1, 1], (D, D).

    Each component is standardized over the batch first, with the biased variance plus 1e-5, so that C_ii of equal views
    is 1 (Zbontar et al., 2021, https://arxiv.org/abs/2103.03230, eq. 2). A component that does not vary correlates 0.

    Args:
        z1: embeddings of the first view, any length, shape (B, D).
        z2: of the second.
    """
    with torch.autocast(z1.device.type, enabled=False):
        standard = [_standardized(z.float()) for z in (z1, z2)]
        return standard[0].T @ standard[1] / len(z1)


def _standardized(z: Tensor) -> Tensor:
    """Columns with mean 0 and deviation 1; those of a single row, or of equal rows, become 0."""
    variance, mean = torch.var_mean(z, dim=0, correction=0)
    return (z - mean) * torch.rsqrt(variance + 1e-5)


def redundancy_reduction(correlation: Tensor, redundancy_weight: float = 0.0051) -> Tensor:
    """Loss of Barlow Twins from the matrix of ``cross_correlation`` (see ``barlow_twins``)."""
    diagonal = correlation.diagonal()
    mirror = torch.eye(len(correlation), dtype=torch.bool, device=correlation.device)
    others = correlation.masked_fill(mirror, 0)
    return (1 - diagonal).square().sum() + redundancy_weight * others.square().sum()


def barlow_twins(z1: Tensor, z2: Tensor, redundancy_weight: float = 0.0051) -> Tensor:
    """Loss of Barlow Twins (Zbontar et al., 2021, https://arxiv.org/abs/2103.03230, eq. 1), at least 0.

    The sum of (1 - C_ii)² plus the weighted sum of C_ij², i different from j; see ``cross_correlation``. It grows with
    D. MONAI's ``BarlowTwinsLoss`` is not used: it divides products of N - 1 normalized rows by N, so its loss of equal
    views is not 0.

    Args:
        z1: embeddings of the first view, any length, shape (B, D).
        z2: of the second.
        redundancy_weight: lambda.
    """
    return redundancy_reduction(cross_correlation(z1, z2), redundancy_weight)


def negative_cosine(prediction: Tensor, embedding: Tensor) -> Tensor:
    """Minus the mean cosine of predictions and embeddings, in [-1, 1].

    Equation 1 of SimSiam (Chen and He, 2021, https://arxiv.org/abs/2011.10566). The gradient flows into ``prediction``
    only.

    Args:
        prediction: what the predictor makes of one view, any length, shape (B, D).
        embedding: of the other view.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        return -F.cosine_similarity(prediction.float(), embedding.detach().float(), dim=1).mean()


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> Tensor:
    """Contrastive loss of SimCLR (Chen et al., 2020, https://arxiv.org/abs/2002.05709, eq. 1), mean over all 2 B views.

    Each view is to find the other one of its image among all 2 B - 1 other views. MONAI's ``ContrastiveLoss`` is not
    used: it sums exponentials by hand and gives NaN at temperatures of 0.01.

    Args:
        z1: embeddings of the first view, any length, shape (B, D).
        z2: of the second.
        temperature: divisor of the cosine similarities, greater than 0.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    logits = _view_cosines(z1, z2) / temperature
    return F.cross_entropy(logits, _partners(len(z1), logits.device))


def nt_xent_accuracy(z1: Tensor, z2: Tensor) -> Tensor:
    """Share of the 2 B views that are nearest to the other view of their image, in [0, 1]; chance is 1 / (2 B - 1).

    A tie counts as a miss, so embeddings that have collapsed to one point score 0.

    Args:
        z1: embeddings of the first view, any length, shape (B, D).
        z2: of the second.
    """
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
