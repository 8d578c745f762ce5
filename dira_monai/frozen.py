"""What frozen features tell of labels: nearest neighbors, a linear classifier, and how well each ranks the images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.data.utils import dense_patch_slices
from monai.metrics import compute_roc_auc
from torch import Tensor, nn

from .backbones import encode
from .objectives.base import pooled

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)  # of the linear classifier, strongest first
ROWS = 256  # test images whose similarities are held at once


@torch.no_grad()
def image_features(network: nn.Module, image: Tensor, window: Sequence[int], batch_size: int = 8) -> Tensor:
    """The global average of the deepest feature map over a whole image, float32, shape (D,), on the CPU.

    The image is seen through windows of the size that the network was trained with; they lie side by side, the last one
    of an axis against its end, and their averages are averaged. So any image fits into memory, and the features do not
    depend on ``batch_size``.

    Args:
        network: one of the known networks, in evaluation mode.
        image: shape (C, *spatial), float in [0, 1], no axis shorter than the window's.
        window: voxels per axis.
        batch_size: windows that are encoded at once.
    """
    places = dense_patch_slices(image.shape[1:], window, window)
    crops = torch.stack([image[(slice(None), *place)] for place in places])
    parts = [pooled(encode(network, part)[-1]) for part in crops.split(batch_size)]
    return torch.cat(parts).mean(0).cpu()


def standardize(features: Tensor, reference: Tensor) -> Tensor:
    """Features less the mean of ``reference``, divided by its standard deviation, channel by channel, float64.

    A channel that is constant in ``reference``, to six digits, becomes 0.

    Args:
        features: shape (N, D).
        reference: features of the training images, shape (M, D).
    """
    features, reference = features.double(), reference.double()
    mean, deviation = reference.mean(0), reference.std(0, correction=0)
    varies = deviation > 1e-6 * mean.abs()
    return torch.where(varies, (features - mean) / torch.where(varies, deviation, 1.0), 0.0)


def knn_scores(
    features: Tensor, known: Tensor, labels: Tensor, neighbors: int = 20, temperature: float = 0.07
) -> Tensor:
    """Share of the nearest labeled images that have each class, weighted by exp(cosine / temperature).

    The weighted vote of Wu et al. (2018, https://arxiv.org/abs/1805.01978, section 3.4), for classes that need not
    exclude each other: each class asks the nearest images of which its label is known, and the vote is divided by the
    weights, so that images can be ranked by it.

    Args:
        features: of the images to judge, shape (N, D).
        known: of the labeled images, shape (M, D).
        labels: 0, 1 or NaN where not known, shape (M, classes); each class is known of some image.
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


def logistic_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over the classes of the mean cross-entropy over the images whose label is known.

    Args:
        logits: shape (N, classes).
        labels: 0, 1 or NaN where not known, same shape; a class of which none is known adds 0.
    """
    has = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, torch.where(has, labels, 0.0), reduction="none")
    return ((losses * has).sum(0) / has.sum(0).clamp(min=1)).sum()


def fit_logistic(features: Tensor, labels: Tensor, penalty: float, start: Tensor | None = None) -> Tensor:
    """Weights of one logistic regression a class: the minimum of ``logistic_loss`` + penalty / 2 · |weights|².

    Args:
        features: shape (N, D), float64, on similar scales.
        labels: 0, 1 or NaN where not known, shape (N, classes).
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
    """The weights of ``fit_logistic`` under the one of ``PENALTIES`` with the least loss in validation, and that.

    Args:
        features: of the training images, shape (N, D), float64.
        labels: of them, shape (N, classes).
        validation: features of the validation images, shape (M, D).
        validation_labels: of them.
    """
    fits: list[Tensor] = []
    for penalty in PENALTIES:
        fits.append(fit_logistic(features, labels, penalty, fits[-1] if fits else None))
    losses = [float(logistic_loss(linear_scores(validation, w), validation_labels.double())) for w in fits]
    best = losses.index(min(losses))
    return fits[best], PENALTIES[best]


def class_auc(scores: Tensor, labels: Tensor) -> list[float]:
    """Area under the ROC curve of each class over the images whose label is known; NaN where these are all alike.

    Args:
        scores: shape (N, classes).
        labels: 0, 1 or NaN where not known, same shape.
    """
    areas = []
    for score, label in zip(scores.T, labels.T, strict=True):
        has = ~label.isnan()
        both = label[has].unique().numel() == 2
        areas.append(float(compute_roc_auc(score[has], label[has])) if both else float("nan"))
    return areas
