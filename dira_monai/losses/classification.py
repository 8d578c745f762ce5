"""The loss of classifiers and the weights of their classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.distributed import average_scalars
from ..utils.errors import InputError


def class_weights(
    labels: Sequence[Any] | None, weights: str | Sequence[float] | None, count: int
) -> list[float] | None:
    """Weights of the classes in a loss.

    Args:
        labels: of the training images: class numbers, or lists of 0, 1 and None (not known); None: no labels of whole
            images, as in segmentation.
        weights: None: all alike; "balanced": inversely proportional to frequency, 1 on average over the images for
            class numbers, and the ratio of negative to positive images for lists; or a list of numbers.
        count: number of classes.
    """
    if weights is None or not isinstance(weights, str):
        if weights is not None and (len(weights) != count or min(weights) < 0):
            raise InputError(f"class_weights must be {count} numbers from 0, one a class, got {list(weights)}")
        return None if weights is None else [float(w) for w in weights]
    if weights != "balanced":
        raise InputError(f"class_weights must be None, a list or 'balanced', got {weights!r}")
    if labels is None:
        raise InputError("class_weights 'balanced' is for classification; give segmentation one number a class")
    frequency = _frequency(labels, count)
    if not all(share > 0 for share in frequency):
        raise InputError(f"class_weights 'balanced': class {frequency.index(0)} has no image in training")
    if isinstance(labels[0], int):
        return [1 / (count * share) for share in frequency]
    if 1 in frequency:
        raise InputError(f"class_weights 'balanced': all images in training have class {frequency.index(1)}")
    return [(1 - share) / share for share in frequency]


def check_classes(items: Sequence[Mapping[str, Any]], name: str) -> None:
    """Refuse a list that cannot evaluate a classifier: no class is present in some images and absent in others.

    Of its ``items`` each ``label`` is a class number or a list of 0, 1 and None; ``name`` is what the error calls it.
    """
    labels = [item["label"] for item in items]
    columns = [labels] if isinstance(labels[0], int) else list(zip(*labels, strict=True))
    if not any(len({value for value in column if value is not None}) > 1 for column in columns):
        raise InputError(
            f"the {name} list has no class that some of its {len(items)} images have and others lack, so no epoch can "
            "be called the best; give a larger fraction or another seed"
        )


def _frequency(labels: Sequence[Any], count: int) -> list[float]:
    """Share of each class among the images whose label is known."""
    if isinstance(labels[0], int):
        return [sum(label == c for label in labels) / len(labels) for c in range(count)]
    known = [[label[c] for label in labels if label[c] is not None] for c in range(count)]
    return [sum(column) / max(1, len(column)) for column in known]


class ClassificationLoss(nn.Module):
    """Cross-entropy of classes that exclude each other, or of labels that are each present, absent or not known.

    Means are taken over all processes' images, so that two processes have the gradient of one.

    Attributes:
        multi_label: False: softmax, and targets are one-hot; True: sigmoid of each class, and targets are 0, 1 or NaN
            where the label is not known, which costs nothing.
        weight: of each class; for multi-label the weight of its positives.
        label_smoothing: share of the target that is spread over the classes, or moved towards 1/2 for multi-label.
    """

    def __init__(
        self, multi_label: bool = False, weight: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.weight: Tensor | None
        self.register_buffer("weight", None if weight is None else torch.tensor(weight), persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (B, classes) and targets of the same shape."""
        weight = torch.ones_like(pred[0]) if self.weight is None else self.weight.to(pred)
        known = ~target.isnan()
        target = torch.where(known, target, 0.0).to(pred.dtype)
        smooth = 0.5 if self.multi_label else 1 / pred.shape[1]
        soft = target * (1 - self.label_smoothing) + smooth * self.label_smoothing
        if self.multi_label:
            losses = nn.functional.binary_cross_entropy_with_logits(pred, soft, reduction="none", pos_weight=weight)
            total, count = (losses * known).sum(), known.sum()
        else:
            total = -(weight * soft * pred.log_softmax(dim=1)).sum()
            count = (weight * target).sum()
        return total / average_scalars({"count": count.to(pred)})["count"].clamp(min=1e-8)
