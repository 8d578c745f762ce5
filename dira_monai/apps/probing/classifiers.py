"""What frozen features tell of labels by a linear classifier; nearest neighbors are in ``metrics``.

Labels are 0, 1 or NaN where not known, shape (images, classes).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)  # of the linear classifier, strongest first


def logistic_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over the classes of the mean cross-entropy over the images whose label is known; a class of none adds 0."""
    has = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, torch.where(has, labels, 0.0), reduction="none")
    return ((losses * has).sum(0) / has.sum(0).clamp(min=1)).sum()


def fit_logistic(features: Tensor, labels: Tensor, penalty: float, start: Tensor | None = None) -> Tensor:
    """Weights of one logistic regression a class: the minimum of ``logistic_loss`` + penalty / 2 · |weights|².

    Args:
        features: shape (N, D), float64, on similar scales.
        labels: of the same images.
        penalty: greater than 0, so that the minimum is one point.
        start: weights to begin with; None: 0.

    Returns:
        Shape (D + 1, classes), float64; the last row is the bias, which is not penalized.

    Raises:
        ValueError: if ``penalty`` is not positive.
    """
    if penalty <= 0:
        raise ValueError(f"penalty must be positive, got {penalty}.")
    shape = (features.shape[1] + 1, labels.shape[1])
    weights = torch.zeros(shape, dtype=torch.float64) if start is None else start.clone()
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-8, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = logistic_loss(linear_scores(features, weights), labels.double())
        loss = loss + penalty / 2 * weights[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def linear_scores(features: Tensor, weights: Tensor) -> Tensor:
    """Logits (N, classes) of features (N, D) by the weights of ``fit_logistic``."""
    return features @ weights[:-1] + weights[-1]


def choose_logistic(
    features: Tensor, labels: Tensor, validation: Tensor, validation_labels: Tensor
) -> tuple[Tensor, float]:
    """The weights of ``fit_logistic`` under the one of ``PENALTIES`` with the least loss in validation, and that."""
    fits: list[Tensor] = []
    for penalty in PENALTIES:
        fits.append(fit_logistic(features, labels, penalty, fits[-1] if fits else None))
    losses = [float(logistic_loss(linear_scores(validation, w), validation_labels.double())) for w in fits]
    best = losses.index(min(losses))
    return fits[best], PENALTIES[best]
