"""The loss of Barlow Twins, which computes in float32 whatever it gets, also under autocast.

``z1`` and ``z2`` are the embeddings of the first and of the second view, any length, shape (B, D).
"""

import torch
from torch import Tensor


def cross_correlation(z1: Tensor, z2: Tensor) -> Tensor:
    """Correlation C of every component of the first view with every component of the second, in [-1, 1], (D, D).

    Each component is standardized over the batch first, with the biased variance plus 1e-5, so that C_ii of equal views
    is 1 (Zbontar et al., 2021, https://arxiv.org/abs/2103.03230, eq. 2). A component that does not vary correlates 0.
    """
    with torch.autocast(z1.device.type, enabled=False):
        standard = []
        for z in (z1.float(), z2.float()):
            variance, mean = torch.var_mean(z, dim=0, correction=0)
            standard.append((z - mean) * torch.rsqrt(variance + 1e-5))
        return standard[0].T @ standard[1] / len(z1)


def redundancy_reduction(correlation: Tensor, redundancy_weight: float = 0.0051) -> Tensor:
    """Loss of Barlow Twins from the matrix of ``cross_correlation`` (see ``barlow_twins``)."""
    diagonal = correlation.diagonal()
    mirror = torch.eye(len(correlation), dtype=torch.bool, device=correlation.device)
    others = correlation.masked_fill(mirror, 0)
    return (1 - diagonal).square().sum() + redundancy_weight * others.square().sum()


def barlow_twins(z1: Tensor, z2: Tensor, redundancy_weight: float = 0.0051) -> Tensor:
    """Loss of Barlow Twins (Zbontar et al., 2021, https://arxiv.org/abs/2103.03230, eq. 1), at least 0.

    The sum of (1 - C_ii)² plus lambda times the sum of C_ij², i different from j; see ``cross_correlation``. It grows
    with D. MONAI's ``BarlowTwinsLoss`` is not used: it divides products of N - 1 normalized rows by N, so its loss of
    equal views is not 0.
    """
    return redundancy_reduction(cross_correlation(z1, z2), redundancy_weight)
