"""From the heat map of a class to boxes, and how well they meet the boxes that a person drew.

Boxes are rows of MONAI's standard mode in voxels of the file's own array: all lower ends, then all upper ends, which
are exclusive, as in ``x0, y0, z0, x1, y1, z1``. Connected means touching by a face, an edge or a corner.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.box_utils import box_iou
from monai.transforms import Compose, Invertd
from monai.transforms.utils import rescale_array
from monai.visualize import GradCAM
from numpy import ndarray
from scipy import ndimage
from torch import Tensor, nn

from .errors import InputError

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


def find_layer(network: nn.Module, name: str | None = None) -> str:
    """The name of the layer whose features make the map.

    Args:
        network: a classifier.
        name: of a layer of it; None: ``layer4`` (ResNet), or the last part of a ``Sequential`` before the pooling.

    Raises:
        InputError: if the network has no such layer, or none is known for it.
    """
    names = [known for known, _ in network.named_modules() if known]
    if name is not None:
        if str(name) not in names:
            raise InputError(
                f"target_layer {name} is no layer of {type(network).__name__}, which has {_list(network)}."
            )
        return str(name)
    if "layer4" in names:
        return "layer4"
    parts = list(network.children()) if isinstance(network, nn.Sequential) else []
    pools = [index for index, part in enumerate(parts) if type(part).__name__.startswith("AdaptiveAvgPool")]
    if not pools or pools[0] == 0:
        raise InputError(
            f"no layer for the heat map is known for {type(network).__name__}; give --target_layer, one of "
            f"{_list(network)} or of their parts."
        )
    return next(known for known, part in network.named_children() if part is parts[pools[0] - 1])


def _list(network: nn.Module) -> str:
    return ", ".join(name for name, _ in network.named_children())


def make_cam(network: nn.Module, target_layer: str) -> GradCAM:
    """MONAI's Grad-CAM of a layer, whose maps are scaled to [0, 1]; a constant map becomes 0 everywhere."""
    network.eval().requires_grad_(True)  # a frozen layer would have no gradient
    return GradCAM(network, target_layer, postprocessing=rescale_array)


def check_cam(cam: GradCAM, sample: Mapping[str, Any], class_count: int) -> None:
    """Nothing, where the network gives one logit a class and its target layer a map.

    Args:
        cam: of ``make_cam``.
        sample: preprocessed; ``image`` is what the network takes, shape (C, *spatial).
        class_count: number of classes.

    Raises:
        InputError: if not.
    """
    batch = _batch(cam, sample)
    logits, features, _ = cam.nn_module(batch, class_idx=0)
    layer = cam.nn_module.target_layers[0]
    if tuple(logits.shape) != (1, class_count):
        raise InputError(f"the network gives outputs of shape {tuple(logits.shape)[1:]} for {class_count} class_names.")
    if features[0].ndim != batch.ndim:
        raise InputError(
            f"target_layer {layer} gives features of shape {tuple(features[0].shape)[1:]}, which are no map."
        )


def _batch(cam: GradCAM, sample: Mapping[str, Any]) -> Tensor:
    return sample["image"].as_tensor()[None].to(next(cam.nn_module.get_wrapped_net().parameters()).device)


def heat_map(cam: GradCAM, preprocessing: Compose, sample: Mapping[str, Any], class_index: int) -> MetaTensor:
    """Grad-CAM of a class (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) as it lies in the file.

    It is that of the logit, before sigmoid or softmax. The map is interpolated to the network's input, scaled to [0, 1]
    there, and brought to the voxels of the file by the inverse of the preprocessing; what that cropped is 0. Shape
    (1, *spatial), on the CPU.

    Args:
        cam: of ``make_cam``.
        preprocessing: of the dictionary key ``image``, which it must have processed last.
        sample: what it made of the file.
        class_index: of the class.

    Raises:
        InputError: if the map has NaN or infinite values.
    """
    image = sample["image"]
    found = cam(_batch(cam, sample), class_idx=class_index)[0].detach().cpu()
    if not torch.isfinite(found).all():
        raise InputError(f"{image.meta.get('filename_or_obj')}: the heat map holds NaN or infinite values.")
    invert = Invertd("map", preprocessing, orig_keys="image", nearest_interp=False)
    return invert({"image": image, "map": MetaTensor(found)})["map"].clamp(0, 1)


def component_boxes(mask: ndarray) -> ndarray:
    """The tight box of each connected component, the one with most voxels first; shape (N, 2 spatial_dims)."""
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    found = [[part.start for part in box] + [part.stop for part in box] for box in ndimage.find_objects(labels)]
    boxes = np.array(found, dtype=float).reshape(count, 2 * mask.ndim)
    return boxes[np.argsort(-voxels, kind="stable")]


def predict_boxes(heat: ndarray, threshold: float, component: str) -> ndarray:
    """The boxes around the voxels that reach the threshold; shape (N, 2 spatial_dims), N may be 0.

    Args:
        heat: in [0, 1], shape (*spatial).
        threshold: over 0, so that a map of zeros has no box.
        component: "largest" boxes the connected component with most voxels alone, "each" boxes every one.
    """
    return choose(component_boxes(heat >= threshold), component)


def choose(boxes: ndarray, component: str) -> ndarray:
    """The boxes of a rule, from all boxes of ``component_boxes``."""
    return boxes[:1] if component == "largest" else boxes


def best_overlaps(truth: ndarray, predicted: ndarray) -> ndarray:
    """For each true box the highest IoU with a predicted one, 0 where there is none; shape (N,)."""
    if len(predicted) == 0:
        return np.zeros(len(truth))
    return box_iou(truth, predicted).max(axis=1)


def inside_boxes(shape: Sequence[int], boxes: ndarray) -> ndarray:
    """Whether the center of each voxel lies inside a box; shape ``shape``."""
    inside = np.zeros(shape, dtype=bool)
    for box in np.ceil(boxes - 0.5).astype(int):  # voxel i has its center at i + 0.5
        low, high = np.split(box, 2)
        inside[tuple(slice(max(start, 0), max(stop, 0)) for start, stop in zip(low, high, strict=True))] = True
    return inside


def judge(image: str, finding: str, heat: ndarray, truth: ndarray, thresholds: Sequence[float]) -> Case:
    """Map and true boxes of one finding in one image, ready for ``summarize``.

    Args:
        image: its name.
        finding: its name.
        heat: in [0, 1], shape (*spatial).
        truth: boxes, shape (N, 2 spatial_dims).
        thresholds: over 0.
    """
    inside = inside_boxes(heat.shape, truth)
    constant = bool(heat.min() == heat.max())
    return Case(
        image=image,
        finding=finding,
        shape=heat.shape,
        truth=truth,
        predicted={value: predict_boxes(heat, value, "each") for value in thresholds},
        share=float(inside.mean()),
        pointed=not constant and bool(inside[find_peak(heat)]),
        constant=constant,
    )


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
    meets so well; boxes too many cost nothing, so "each" cannot be worse than "largest".
    ``accuracy_of_centered_box`` is what a box in the middle of each image reaches that has the mean size of these very
    true boxes: chance that knows their size. ``pointing_game`` is the share of cases whose map has its maximum in a
    true box (Zhang et al., 2016, https://arxiv.org/abs/1608.00507, without their tolerance), and
    ``pointing_at_random`` the mean part of the image that lies inside.

    Args:
        cases: at least one.
        threshold: one that they were judged with.
        component: "largest" or "each".
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
