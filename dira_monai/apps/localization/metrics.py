"""From the heat map of a class to boxes, and how well they meet the boxes that a person drew.

Boxes are rows of MONAI's standard mode in voxels of the file's own array: all lower ends, then all upper ends, which
are exclusive, as in ``x0, y0, z0, x1, y1, z1``. Connected means touching by a face, an edge or a corner.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.data.box_utils import box_iou
from numpy import ndarray
from scipy import ndimage

COMPONENTS = ("largest", "each")
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # least IoU of a box that counts as found
TIE = 1e-6  # of the map: what interpolation makes of equal values
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Case(NamedTuple):
    """One finding in one image."""

    image: str
    finding: str
    shape: tuple[int, ...]  # voxels along each spatial axis of the file
    truth: ndarray  # boxes, at least one
    predicted: Mapping[float, ndarray]  # boxes at each threshold, that of the largest component first
    share: float  # part of the image that lies inside the true boxes
    pointed: bool  # the maximum of the map (``find_peak``) lies inside a true box
    constant: bool  # the map is the same everywhere, so it points nowhere and has no box


def component_boxes(mask: ndarray) -> ndarray:
    """The tight box of each connected component, the one with most voxels first; shape (N, 2 spatial_dims)."""
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    found = [[part.start for part in box] + [part.stop for part in box] for box in ndimage.find_objects(labels)]
    boxes = np.array(found, dtype=float).reshape(count, 2 * mask.ndim)
    return boxes[np.argsort(-voxels, kind="stable")]


def predict_boxes(heat: ndarray, threshold: float, component: str) -> ndarray:
    """The boxes around the voxels that reach the threshold, which is over 0, so that a map of zeros has none."""
    return choose(component_boxes(heat >= threshold), component)


def choose(boxes: ndarray, component: str) -> ndarray:
    """Of all boxes of ``component_boxes`` that of the "largest" component, with most voxels, or "each"."""
    return boxes[:1] if component == "largest" else boxes


def best_overlaps(truth: ndarray, predicted: ndarray) -> ndarray:
    """For each true box the highest IoU with a predicted one, 0 where there is none; shape (N,)."""
    if len(predicted) == 0:
        return np.zeros(len(truth))
    return box_iou(truth, predicted).max(axis=1)


def inside_boxes(shape: Sequence[int], boxes: ndarray) -> ndarray:
    """Whether the center of each voxel lies inside a box."""
    inside = np.zeros(shape, dtype=bool)
    for box in np.ceil(boxes - 0.5).astype(int):  # voxel i has its center at i + 0.5
        low, high = np.split(box, 2)
        inside[tuple(slice(max(start, 0), max(stop, 0)) for start, stop in zip(low, high, strict=True))] = True
    return inside


def evaluate_case(image: str, finding: str, heat: ndarray, truth: ndarray, thresholds: Sequence[float]) -> Case:
    """Map in [0, 1], (*spatial), and true boxes of one finding in one image, ready for ``summarize``."""
    inside = inside_boxes(heat.shape, truth)
    constant = bool(heat.min() == heat.max())
    pointed = not constant and bool(inside[find_peak(heat)])
    predicted = {value: predict_boxes(heat, value, "each") for value in thresholds}
    return Case(image, finding, heat.shape, truth, predicted, float(inside.mean()), pointed, constant)


def find_peak(heat: ndarray) -> tuple[int, ...]:
    """The voxel of the maximum; of tied ones that nearest to the center of their largest connected plateau."""
    labels, _ = ndimage.label(heat >= heat.max() - TIE, np.ones((3,) * heat.ndim))
    tied = np.argwhere(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
    return tuple(tied[((tied - tied.mean(axis=0)) ** 2).sum(axis=1).argmin()])


def centered_box(shape: Sequence[int], size: ndarray) -> ndarray:
    """The box of a size in the middle of an image, no larger than it; shape (1, 2 spatial_dims)."""
    size = np.minimum(size, shape)
    low = (np.array(shape) - size) / 2
    return np.concatenate([low, low + size])[None]


def summarize(cases: Sequence[Case], threshold: float, component: str) -> dict[str, Any]:
    """Numbers of several cases: how many, how often the map points into a box, how many boxes are found.

    ``accuracy`` is, for each least IoU of ``OVERLAPS``, the share of true boxes that a predicted box of their case
    meets so well; boxes too many cost nothing, so "each" cannot be worse than "largest": compare it with itself alone.
    ``accuracy_of_centered_box`` is what a box in the middle of each image reaches that has the mean size of these very
    true boxes: chance that knows their size. ``pointing_game`` is the share of cases whose map has its maximum in a
    true box (Zhang et al., 2016, https://arxiv.org/abs/1608.00507, without their tolerance), and
    ``pointing_at_random`` the mean part of the image that lies inside.
    The cases, at least one, were evaluated with the threshold.
    """
    truth = np.concatenate([case.truth for case in cases])
    low, high = np.split(truth, 2, axis=1)
    size = (high - low).mean(axis=0)

    def accuracy(predict: Callable[[Case], ndarray]) -> dict[str, float]:
        overlaps = np.concatenate([best_overlaps(case.truth, predict(case)) for case in cases])
        return {str(least): float((overlaps >= least).mean()) for least in OVERLAPS}

    return {
        "boxes": len(truth),
        "images": len({case.image for case in cases}),
        "cases": len(cases),
        "constant_maps": sum(case.constant for case in cases),
        "pointing_game": float(np.mean([case.pointed for case in cases])),
        "pointing_at_random": float(np.mean([case.share for case in cases])),
        "accuracy": accuracy(lambda case: choose(case.predicted[threshold], component)),
        "mean_box_size": size.tolist(),
        "accuracy_of_centered_box": accuracy(lambda case: centered_box(case.shape, size)),
    }
